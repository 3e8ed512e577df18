"""Servers as children: the port that they announce, what they are given, and that they are gone afterwards."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from fastlam.cli import child
from fastlam.errors import FastlamError

PORT = r"^port (\d+)$"


def program(text: str) -> list[str]:
    return [sys.executable, "-I", "-c", f"import os, signal\n{text}"]


def test_it_is_there_in_the_block_and_not_after_it() -> None:
    with child.server(program("print('port 81', flush=True)\nsignal.pause()"), PORT) as server:
        assert (server.port, server.url) == (81, "http://127.0.0.1:81")
        assert server.process.poll() is None
        assert os.getpgid(server.process.pid) == os.getpgid(0)
    assert server.process.returncode == -signal.SIGTERM


def test_a_group_and_an_environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "82")
    words = program("print('port', os.environ['PORT'], flush=True)\nsignal.pause()")
    with child.server(words, PORT) as inheriting:
        assert inheriting.port == 82
    with child.server(words, PORT, {"PORT": "83"}, 0) as server:
        assert server.port == 83
        assert os.getpgid(server.process.pid) == server.process.pid


@pytest.mark.parametrize("text", ["", "print('no port', flush=True)\nsignal.pause()"])
def test_one_that_announces_nothing_is_ended(text: str, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    words = program(f"open({str(note)!r}, 'w').write(str(os.getpid()))\n{text}")
    with pytest.raises(FastlamError, match="has not said on which port"), child.server(words, PORT):
        pytest.fail("it has no port")
    assert not Path(f"/proc/{note.read_text()}").exists()


def test_one_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "STOP_SECONDS", 0.1)
    ignoring = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('port 84', flush=True)\nsignal.pause()"
    with child.server(program(ignoring), PORT) as server:
        pass
    assert server.process.returncode == -signal.SIGKILL


def test_one_that_has_ended_by_itself_is_no_trouble() -> None:
    with child.server(program("print('port 85', flush=True)\nos._exit(3)"), PORT) as server:
        server.process.wait()
    assert server.process.returncode == 3


def test_what_fails_in_the_block_passes() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        child.server(program("print('port 86', flush=True)\nsignal.pause()"), PORT) as server,
    ):
        _ = 1 / 0
    assert server.process.returncode == -signal.SIGTERM


def test_a_daemon() -> None:
    with child.daemon("--account", "111122223333") as daemon:
        health = daemon.get("/_fastlam/health")
        assert (health["pid"], health["account"]) == (daemon.process.pid, "111122223333")
        assert daemon.environments("none") == []
    assert daemon.process.returncode == 0
