"""Walls around the functions of a program, as root's and as an ordinary user's; the program itself has none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from daemon_running import control_groups_of, descendants
from fastlam import Runtime
from ordinary_user import as_ordinary_user
from permitted import group_can_be_made, no_namespaces

PROGRAM = Path(__file__).parents[1] / "walled_runtime.py"
CODE = """
import os

calls = 0

def handler(event, context):
    global calls
    calls += 1
    if "mb" in event:
        bytearray(b"x") * (event["mb"] << 20)
    return {"calls": calls, "root": sorted(os.listdir("/")), "directory": os.getcwd(), "uid": os.getuid()}
"""


@pytest.mark.parametrize("who", ["root", "user"])
def test_functions_of_a_program_have_walls(tmp_path: Path, who: str) -> None:
    if who == "root" and os.geteuid() != 0:
        pytest.skip("root can run the tests of both")
    tmp_path.chmod(0o755)
    for above in tmp_path.parents[:3]:
        if above.stat().st_uid == os.geteuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)  # for the ordinary user
    (tmp_path / "app.py").write_text(CODE)
    user = as_ordinary_user() if who == "user" and os.geteuid() == 0 else nullcontext([])
    with user as prefix:
        command = [*prefix, sys.executable, str(PROGRAM), str(tmp_path), "auto"]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd="/")
        assert ran.returncode == 0, ran.stderr
        said = json.loads(ran.stdout)
        if "namespaces" in said["missing"]:
            no_namespaces(said["missing"], prefix)
    assert said["plain"]["directory"] == str(tmp_path)
    assert said["plain"]["root"] == sorted(os.listdir("/"))
    assert said["walled"]["directory"] == "/var/task"
    assert "home" not in said["walled"]["root"]
    assert said["walled"]["uid"] not in (0, said["plain"]["uid"])
    assert said["other"] == said["walled"]["root"]
    assert "walls hide them" in said["callable"]
    if "memory" not in said["missing"]:
        assert said["eaten"]["errorMessage"].endswith("signal: killed")
        assert said["again"] == 1  # in another environment
    else:
        assert who == "user" or not group_can_be_made("memory")
    assert said["beside"] == 2  # in the same one
    assert said["after a fork"] == said["again"] + 1


def test_nothing_is_left_of_them(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(CODE)
    tmp_path.chmod(0o755)
    before = descendants(os.getpid())
    with Runtime(isolation="auto") as runtime:
        functions = [runtime.function(f"f{number}", "app.handler", code=tmp_path) for number in range(4)]
        assert [function.invoke({}).payload["calls"] for function in functions] == [1] * 4
    assert descendants(os.getpid()) <= before
    assert control_groups_of(os.getpid()) == []


def test_a_level_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="isolation is 'some'; it must be 'auto' or 'full', or None for no walls"):
        Runtime(isolation="some")
