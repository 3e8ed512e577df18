"""How a daemon does not start: in another one's place, or with a data directory that it cannot use. It says so in one
sentence and leaves nothing; and one whose disk is full goes on.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from botocore.exceptions import ClientError

from daemon_running import running_daemon
from fastlam.store.sqlite import FILE_NAME, MIGRATIONS, SqliteStore
from waiting import WAIT_SECONDS

# The command without the right to write everywhere, which root has, and which would come back with another program.
WITHOUT_PRIVILEGE: Final = """
import ctypes, runpy, sys

libc = ctypes.CDLL(None, use_errno=True)
header = (ctypes.c_uint32 * 2)(0x20080522, 0)   # the third version of the structures, this process
sets = (ctypes.c_uint32 * 6)()                  # effective, permitted, inheritable; then the upper halves of each
assert libc.capget(header, sets) == 0
for number in range(3):
    sets[number] &= ~(1 << 1)                   # CAP_DAC_OVERRIDE
assert libc.capset(header, sets) == 0
runpy.run_module("fastlam", run_name="__main__", alter_sys=True)
"""
START: Final = ["-m", "fastlam"]


def refused(directory: Path, *options: str, start: list[str] = START) -> str:
    """The sentence with which a daemon gives up."""
    sockets = directory / "refused"
    sockets.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, *start, "serve", *options],
        env={**os.environ, "TMPDIR": str(sockets), "XDG_RUNTIME_DIR": str(sockets), "HOME": str(directory)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, ""), done
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in lines[0] and lines[0].endswith(".")
    assert list(sockets.iterdir()) == [], "it has left its socket directory"
    return lines[0]


# --- another one's place ------------------------------------------------------------------------------


def test_the_port_is_taken(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        sentence = refused(directory, "--ephemeral", "--port", str(port))
    assert re.search(rf"Port {port} on 127\.0\.0\.1 is in use", sentence)


def test_the_port_is_another_daemons(directory: Path) -> None:
    with running_daemon() as daemon:
        sentence = refused(directory, "--ephemeral", "--port", str(daemon.port))
        assert f"Port {daemon.port} " in sentence
        assert daemon.health()["pid"] == daemon.process.pid


def test_the_data_directory_is_another_daemons(directory: Path) -> None:
    data = directory / "data"
    with running_daemon("--data-dir", str(data), ephemeral=False) as daemon:
        daemon.deploy("one", "def handler(event, context):\n    return 1\n")
        sentence = refused(directory, "--port", "0", "--data-dir", str(data))
        assert str(data) in sentence
        assert f"pid {daemon.process.pid}" in sentence
        assert daemon.invoke("one").result == 1


# --- the data directory -------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file/data", "/proc/self/fastlam", "/proc/none"])
def test_the_data_directory_cannot_be_made(directory: Path, place: str) -> None:
    (directory / "file").write_text("")
    data = directory / place
    assert str(data) in refused(directory, "--port", "0", "--data-dir", str(data))


@pytest.mark.parametrize("place", ["", "data"], ids=["itself", "in what is closed"])
def test_the_data_directory_cannot_be_written(directory: Path, place: str) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o500)
    data = closed / place
    sentence = refused(directory, "--port", "0", "--data-dir", str(data), start=["-c", WITHOUT_PRIVILEGE])
    assert str(data) in sentence and "Permission denied" in sentence


def test_the_data_directory_is_a_file(directory: Path) -> None:
    data = directory / "file"
    data.write_text("")
    done = subprocess.run(
        [sys.executable, *START, "serve", "--data-dir", str(data)],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, ""), "a mistake on the command line"
    assert f"{data} is a file: give a directory" in done.stderr


@pytest.mark.parametrize("case", ["lock", "records.sqlite", "code", "no database"])
def test_the_data_directory_holds_something_else(directory: Path, case: str) -> None:
    data = directory / "data"
    data.mkdir()
    if case == "code":
        (data / "code").write_text("a file")
    elif case == "no database":
        (data / "records.sqlite").write_bytes(b"no database" * 1000)
    else:
        (data / case).mkdir()
    assert str(data) in refused(directory, "--port", "0", "--data-dir", str(data))


def test_the_data_directory_is_a_newer_fastlams(directory: Path) -> None:
    """It is left as it is, for that one."""
    data = directory / "data"
    data.mkdir()
    SqliteStore(data / FILE_NAME, [*MIGRATIONS, lambda connection: None]).close()
    before = (data / FILE_NAME).read_bytes()
    sentence = refused(directory, "--port", "0", "--data-dir", str(data))
    assert f"{data} was written by a newer fastlam" in sentence and "upgrade fastlam" in sentence
    assert (data / FILE_NAME).read_bytes() == before


def test_a_function_whose_variables_cannot_be_sealed(directory: Path) -> None:
    """No key, no function; without variables there is one."""
    data = directory / "data"
    code = "def handler(event, context):\n    return 1\n"
    with running_daemon("--data-dir", str(data), ephemeral=False) as daemon:
        (data / "keys").write_text("in the way")
        with pytest.raises(ClientError) as failure:
            daemon.deploy("secret", code, environment={"PASSWORD": "hunter2"})
        assert failure.value.response["Error"]["Code"] == "ServiceException"
        assert f"A key cannot be kept in {data / 'keys'}" in failure.value.response["Error"]["Message"]
        assert daemon.invoke(daemon.deploy("plain", code)).result == 1
        assert [one["FunctionName"] for one in daemon.lambda_.list_functions()["Functions"]] == ["plain"]
        (data / "keys").unlink()
        assert daemon.invoke(daemon.deploy("secret", code, environment={"PASSWORD": "hunter2"})).result == 1
    assert {path.name for path in data.iterdir() if path.name.startswith(".")} == set()


# --- a full disk --------------------------------------------------------------------------------------


@pytest.fixture
def tiny(directory: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    mount = directory / "tiny"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        # Anything but the lack of that right is a fault of this test.
        assert re.search(r"permission denied|must be superuser|only root|not permitted", done.stderr, re.IGNORECASE), (
            done
        )
        pytest.skip(f"a small file system needs the right to mount (CAP_SYS_ADMIN): {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def fill(path: Path, room: int) -> None:
    """Takes all the space that is left, but for `room` bytes."""
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    os.truncate(path, path.stat().st_size - room)


def test_a_full_disk(directory: Path, tiny: Path, rng: random.Random) -> None:
    """Creating a function fails with an answer; the daemon goes on, and so does the function that was there. Another daemon
    does not start.
    """
    with running_daemon("--data-dir", str(tiny / "data"), ephemeral=False) as daemon:
        small = daemon.deploy("small", "def handler(event, context):\n    return event\n")
        with pytest.raises(ClientError) as failure:
            daemon.deploy("large", {"app.py": "", "noise": rng.randbytes(2_000_000)})
        assert failure.value.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
        assert "No space left" in failure.value.response["Error"]["Message"]
        assert daemon.invoke(small, 5).result == 5
        assert [one["FunctionName"] for one in daemon.lambda_.list_functions()["Functions"]] == ["small"]
        # No room for the lock; then for it alone, and not for the records.
        for room in (0, 4096, 8192):
            fill(tiny / "filler", room)
            data = tiny / f"other{room}"
            assert str(data) in refused(directory, "--port", "0", "--data-dir", str(data))
        (tiny / "filler").unlink()
        assert daemon.invoke(small, 6).result == 6
