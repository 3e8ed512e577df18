"""Servers as children of a program that needs one for a while, a daemon above all: the demo and the benchmarks."""

from __future__ import annotations

import contextlib
import re
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastlam.cli.client import Client
from fastlam.errors import FastlamError

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0


@dataclass
class Server:
    """Something that answers on a port of this machine."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        """The JSON at an address of its own."""
        return Client(self.url, None, None).request("GET", path, signed=False).json()

    def environments(self, name: str) -> list[dict[str, Any]]:
        """Of a daemon: those of one function."""
        return [one for one in self.get("/_fastlam/environments")["environments"] if one["function"] == name]


@contextlib.contextmanager
def server(
    words: Sequence[str],
    announced: str,
    environment: Mapping[str, str] | None = None,
    process_group: int | None = None,
) -> Iterator[Server]:
    """Starts a program whose first line has its port, the group of the pattern `announced`, and ends it with the block.

    `environment` is all that it gets, this program's own unless given; `process_group` 0 makes it the leader of a
    group, which the terminal's signals pass by.
    """
    process = subprocess.Popen(
        words,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        process_group=process_group,
    )
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        found = re.search(announced, process.stdout.readline() if ready else "")
        if found is None:
            raise FastlamError(f"{' '.join(words)} has not said on which port it listens.")
        yield Server(process, int(found[1]))
    finally:
        end(process)
        process.stdout.close()


def daemon(
    *options: str, environment: Mapping[str, str] | None = None, process_group: int | None = None
) -> contextlib.AbstractContextManager[Server]:
    """`fastlam serve` on a free port with these options; it keeps nothing unless they name a data directory."""
    kept = () if "--data-dir" in options else ("--ephemeral",)
    words = [sys.executable, "-P", "-m", "fastlam", "serve", *kept, "--port", "0", *options]
    return server(words, r" is ready on http://127\.0\.0\.1:(\d+)", environment, process_group)


def end(process: subprocess.Popen[Any]) -> None:
    """SIGTERM, and SIGKILL for what does not heed it in time."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.kill()
        process.wait()
