"""Inline functions run where they are called: no process, thread, descriptor or directory of ours comes with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastlam

pytestmark = pytest.mark.lanes

SECONDS = 60.0

# Prints what there is besides the program itself: once before, once in the middle, once after the end of the Runtime.
PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from fastlam import Runtime

def handler(event, context):
    return event

def held():
    descriptors = sorted(os.listdir("/proc/self/fd"))
    threads = os.listdir("/proc/self/task")
    children = [(Path("/proc/self/task") / thread / "children").read_text() for thread in threads]
    return descriptors, threads, children, os.listdir(os.environ["TMPDIR"])

if __name__ == "__main__":
    asyncio.run(asyncio.sleep(0))  # whatever the interpreter opens once and for all
    before = held()
    with Runtime() as runtime:
        own = runtime.function("own", handler)
        assert own.invoke(1).payload == 1
        assert asyncio.run(own.ainvoke(2)).payload == 2
        named = runtime.function("named", "app.handler", code=Path(sys.argv[1]))
        assert [result.payload for result in named.map([3, 4])] == [6, 8]
        assert runtime.function("own", lambda event, context: None).invoke().payload is None
        print(held() == before or (before, held()))
    print(held() == before or (before, held()))
"""


def run(tmp_path: Path, **variables: str) -> list[str]:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text("def handler(event, context):\n    return 2 * event\n")
    (tmp_path / "t").mkdir()
    (tmp_path / "program.py").write_text(PROGRAM)
    own = {"PYTHONPATH": str(Path(fastlam.__file__).parents[1]), "TMPDIR": str(tmp_path / "t"), "XDG_RUNTIME_DIR": ""}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "code")],
        env={**os.environ, **own, **variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_an_inline_runtime_starts_and_opens_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, FASTLAM_INLINE="1") == ["True", "True"]


def test_environments_would_have_been_seen(tmp_path: Path) -> None:
    during, after = run(tmp_path, FASTLAM_INLINE="0")
    assert during != "True"
    assert after == "True"
