#!/bin/sh
# make_venv.sh DIRECTORY: a virtual environment of the first Python on this machine that can build and run fastlam.
# make_venv.sh --check:   only says in one sentence what is missing, with exit status 1, if something is.
# $PYTHON, when set, is the only interpreter that is tried.
set -eu

fail() {
    echo "fastlam: $1 (docs/howto/install.md)." >&2
    exit 1
}

[ "$(uname -s)" = Linux ] || fail "this is $(uname -s), and fastlam runs on Linux only: use WSL2, a Linux VM or a container"
old='' bare='' headless='' chosen=''
for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3}; do
    "$python" -c '' 2>/dev/null || continue
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { old=$python; continue; }
    "$python" -c 'import ensurepip, venv' 2>/dev/null || { bare=$python; continue; }
    "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        { headless=$python; continue; }
    chosen=$python
    break
done
if [ -z "$chosen" ]; then
    [ -z "$headless" ] || fail "$headless has no headers (Python.h): install them (Debian: apt-get install python3-dev)"
    [ -z "$bare" ] || fail "$bare cannot make virtual environments: install that part of it (Debian: apt-get install python3-venv)"
    [ -z "$old" ] || fail "$old is older than 3.11, the oldest Python that will do: install a newer one"
    fail "no Python was found: install Python 3.11 or later (Debian: apt-get install python3 python3-venv python3-dev)"
fi
compiler=${CC:-cc}
command -v "${compiler%% *}" >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 ||
    fail "there is no C compiler: install one (Debian: apt-get install gcc libc6-dev)"
[ "$1" = --check ] || "$chosen" -m venv "$1"
