"""`make demo`, without make: the whole of it in a second, on a terminal and off, interrupted, and where it cannot
work.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from daemon_running import WAIT_SECONDS, await_end, descendants

DEMO = Path(__file__).parents[2] / "tools" / "demo.py"


def environment(temporary: Path, **more: str) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    return kept | {"TMPDIR": str(temporary), "XDG_RUNTIME_DIR": str(temporary), "PYTHONWARNINGS": "error"} | more


def test_the_demo_shows_everything_and_leaves_nothing(tmp_path: Path) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, str(DEMO), "--seconds", "1", "--connections", "3"],
        env=environment(temporary),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), (done.stdout, done.stderr)
    assert "\x1b" not in done.stdout
    for name in ("hello", "s3_records", "dynamodb_stream", "word_count", "cpu"):
        assert re.search(rf"^  {name} +active after \d+ ms$", done.stdout, re.MULTILINE), name
        assert re.search(rf"^  {name} +{{.*\n +REPORT  Duration: [\d.]+ ms  Billed", done.stdout, re.MULTILINE), name
    for row in ("requests", "requests a second", "latency p50", "latency p99.9", "latency max", "Lambda bills"):
        assert re.search(rf"^  {row} +[\d,.]+", done.stdout, re.MULTILINE), row
    assert int(re.findall(r"^  cold starts +(\d+)", done.stdout, re.MULTILINE)[0]) <= 3
    assert done.stdout.endswith("Stopped cleanly. Nothing is left running, nothing is left on disk.\n")
    assert list(temporary.iterdir()) == []


def test_ctrl_c_in_the_middle_of_the_load_stops_it_all(tmp_path: Path) -> None:
    temporary = tmp_path / "t"
    temporary.mkdir()
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(DEMO), "--seconds", "60"],
        env=environment(temporary, TERM="xterm-256color", COLUMNS="100"),
        cwd=tmp_path,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(follower)
    shown = b""
    try:
        while not re.search(rb"[1-9][\d,]* answers, ", shown):  # the bar is drawn, the load is under way
            shown += os.read(leader, 65536)
        family = descendants(process.pid)
        assert len(family) > 3
        os.write(leader, b"\x03")
        try:
            while piece := os.read(leader, 65536):
                shown += piece
        except OSError:  # the other side is closed
            pass
        assert process.wait(WAIT_SECONDS) == 130
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    await_end(family)
    assert "Interrupted; everything has been stopped." in shown.decode()
    assert "Traceback" not in shown.decode()
    assert b"\x1b[" in shown
    assert list(temporary.iterdir()) == []


def take_terminal() -> None:
    """In the child: standard input becomes its controlling terminal, so that ^C is a signal."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_without_fastlam_it_says_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(DEMO)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("run make demo.\n")
    assert done.stderr.count("\n") == 1


def test_a_function_that_fails_ends_it_with_one_sentence(tmp_path: Path) -> None:
    examples = tmp_path / "docs" / "examples"
    for directory in (DEMO.parents[1] / "docs" / "examples").iterdir():
        if directory.is_dir():
            (examples / directory.name).mkdir(parents=True)
            for name in ("app.py", "event.json"):
                (examples / directory.name / name).write_text((directory / name).read_text())
    (examples / "word_count" / "app.py").write_text("def handler(event, context):\n    raise ValueError('broken')\n")
    (tmp_path / "tools").mkdir()
    demo = tmp_path / "tools" / "demo.py"
    demo.write_text(DEMO.read_text())
    temporary = tmp_path / "t"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, str(demo)],
        env=environment(temporary),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(r'word_count failed: \{"errorMessage": "broken", .*\}\n', done.stderr)
    assert list(temporary.iterdir()) == []
