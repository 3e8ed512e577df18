"""Pages in Chromium: one that calls through the AWS SDK for JavaScript, and those of strangers, which may not."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest

import sdk_calls
from daemon_running import RunningDaemon
from toolbox import HERE, copied, npm_install, require, run

# Whatever its name is, it is here: what a name server of strangers can do as well.
STRANGER: Final = "stranger.example"
SWITCHES: Final = [
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
    f"--host-resolver-rules=MAP {STRANGER} 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]


class Quiet(SimpleHTTPRequestHandler):
    """Files of a directory, without a line on stderr for each."""

    def log_message(self, *_: Any) -> None:
        pass


class Pages:
    """The pages on a port of their own, and a browser to open them in."""

    def __init__(self, place: Path, port: int, home: Path) -> None:
        self.place = place
        self.port = port
        self._home = home

    def open(self, *urls: str) -> list[dict[str, Any]]:
        """What each of them saw."""
        chromium = require("chromium", install="install Chromium (Debian: apt-get install chromium)")
        node = require("node", (20, 0), install="install Node.js 20 or later")
        own = {**os.environ, "HOME": str(self._home), "TMPDIR": str(self._home), "XDG_RUNTIME_DIR": str(self._home)}
        command = [node, "drive.mjs", chromium, json.dumps(SWITCHES), *urls]
        found: list[dict[str, Any]] = json.loads(run(command, self.place, own))
        return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    require("chromium", install="install Chromium (Debian: apt-get install chromium)")
    place = copied("browser", tmp_path_factory.mktemp("pages"))
    shutil.copy(HERE / "node_sdk/calls.mjs", place)
    npm_install(place)
    esbuild = str(place / "node_modules/.bin/esbuild")
    run([esbuild, "page.mjs", "--bundle", "--format=esm", "--outfile=bundle.js", "--log-level=error"], place)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(place))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Pages(place, server.server_port, tmp_path_factory.mktemp("browser"))
        finally:
            server.shutdown()
            thread.join()


def asked_by(daemon: RunningDaemon, name: str, *, until: int = 0) -> list[str]:
    """Who has invoked the function: waits for so many."""

    def callers(messages: list[str]) -> list[str]:
        return sorted(one.removeprefix("asked by ").strip() for one in messages if one.startswith("asked by "))

    return callers(daemon.logs(name, lambda messages: len(callers(messages)) >= until))


@pytest.mark.timeout(420)
def test_a_page_calls_through_the_sdk(daemon: RunningDaemon, pages: Pages) -> None:
    """From another port than the daemon's: of another origin, so that the browser asks first."""
    sdk_calls.deploy(daemon)
    (saw,) = pages.open(f"http://localhost:{pages.port}/index.html#{daemon.url},{sdk_calls.NAME}")
    sdk_calls.check(json.dumps(saw), "Chromium")


@pytest.mark.timeout(420)
def test_a_strange_page_invokes_nothing(daemon: RunningDaemon, pages: Pages) -> None:
    daemon.deploy("of-strangers", sdk_calls.CODE)
    daemon.deploy("of-friends", sdk_calls.CODE)
    strange, friendly = pages.open(
        f"http://{STRANGER}:{pages.port}/bare.html#{daemon.url},of-strangers",
        f"http://localhost:{pages.port}/bare.html#{daemon.url},of-friends",
    )
    assert strange == {"simple": "opaque", "plain": "refused", "asked": "refused", "form": "sent"}
    assert friendly == {"simple": "opaque", "plain": 200, "asked": 200, "form": "sent"}
    assert asked_by(daemon, "of-friends", until=4) == ["asked", "form", "plain", "simple"]
    daemon.invoke("of-strangers", {"name": "a program"})
    assert asked_by(daemon, "of-strangers", until=1) == ["a program"]


@pytest.mark.timeout(420)
def test_a_name_turned_to_this_machine(daemon: RunningDaemon, pages: Pages) -> None:
    """The browser takes the daemon for a part of the stranger's site and says nothing of an origin."""
    path = "/2015-03-31/functions/"
    rebound, own = pages.open(f"http://{STRANGER}:{daemon.port}{path}", f"http://localhost:{daemon.port}{path}")
    assert rebound["status"] == 403 and STRANGER in json.loads(rebound["body"])["message"]
    assert own["status"] == 200 and "Functions" in json.loads(own["body"])
