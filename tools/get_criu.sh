#!/bin/sh
# get_criu.sh DIRECTORY: criu of Debian's stable release with the libraries that it needs, unpacked below the directory
# and not installed: for machines with an older one (4.1 is needed), of Debian or of a system that is made from it.
# fastlam runs it with the libraries beside it: fastlam serve --criu DIRECTORY/usr/sbin/criu
set -eu

[ $# = 1 ] || { echo "usage: get_criu.sh DIRECTORY" >&2; exit 2; }
suite=${CRIU_SUITE:-trixie}
mkdir -p "$1"
directory=$(cd "$1" && pwd)
apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
# The mirror that this machine has its own packages from.
find_mirror() {
    apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 'Created-By: Packages' |
        awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }'
}
mirror=$(find_mirror)
[ -n "$mirror" ] || { apt-get -qq update && mirror=$(find_mirror); }
[ -n "$mirror" ] || { echo "get_criu.sh: this machine has no packages from Debian" >&2; exit 1; }
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
: >"$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
run() {
    apt-get -qq -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State="$apt" \
        -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" \
        -o APT::Sandbox::User=root "$@"
}
run update
run install -y --download-only --no-install-recommends criu >/dev/null
for package in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$package" "$directory"; done
echo "$directory/usr/sbin/criu"
