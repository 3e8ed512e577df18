"""The streams of a function's log, and what its set-up leaves to user code."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastlam.worker import faults, logs, marshaller


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    return tmp_path / "log"


def run_with_streams(script: str, log_file: Path) -> bytes:
    """What the script leaves in the file that is its descriptor 1 and 2; it ends without flushing anything."""
    program = (
        "import os, sys\nfrom fastlam.worker import logs\nsys.stdout, sys.stderr = logs.open_streams()\n"
        + script
        + "\nos._exit(0)"
    )
    with log_file.open("ab") as file:
        subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            stdout=file,
            stderr=file,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            timeout=60,
        )
    return log_file.read_bytes()


def test_nothing_is_held_back(log_file: Path) -> None:
    script = """
print("no line end", end="")
sys.stderr.write("from stderr\\n")
sys.stdout.buffer.write(b"bytes\\n")
os.write(1, b"descriptor\\n")
print("a", 1, sep="-")
sys.stdout.writelines(["x", "y\\r\\n"])
"""
    assert run_with_streams(script, log_file) == b"no line endfrom stderr\nbytes\ndescriptor\na-1\nxy\r\n"


def test_any_text_can_be_printed(log_file: Path) -> None:
    script = "print('é\\u2028\\ud800\\x00')"
    assert run_with_streams(script, log_file) == "é\u2028\\ud800\x00\n".encode()


def test_a_log_that_has_content_is_appended_to(log_file: Path) -> None:
    log_file.write_bytes(b"before\n")
    assert run_with_streams("print('after')", log_file) == b"before\nafter\n"


def test_streams_are_like_python_s_own(log_file: Path) -> None:
    script = """
for stream in (sys.stdout, sys.stderr):
    print(stream.name, stream.mode, stream.encoding, stream.errors, stream.fileno(), stream.isatty(), stream.writable())
"""
    assert run_with_streams(script, log_file).decode().splitlines() == [
        "<stdout> w utf-8 backslashreplace 1 False True",
        "<stderr> w utf-8 backslashreplace 2 False True",
    ]


def test_closing_the_stream_leaves_the_descriptor(log_file: Path) -> None:
    assert run_with_streams("sys.stdout.close()\nos.write(1, b'open')", log_file) == b"open"


def test_every_print_is_a_write_of_its_own(log_file: Path) -> None:
    """A reader of the file sees a print at once, not only when the process ends."""
    script = """
size = lambda: os.fstat(1).st_size
print("x" * 10)
assert size() == 11
print("y", end="")
assert size() == 12
"""
    assert run_with_streams(script, log_file) == b"x" * 10 + b"\ny"


@pytest.fixture
def root_logger(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.WARNING)
    monkeypatch.setattr(logging.Formatter, "converter", logging.Formatter.converter)
    return root


def test_records_carry_the_invocation(root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    logs.setup_logging("Text", "INFO")
    logger = logging.getLogger("app")
    logs.set_request("")
    logger.info("at init")
    logs.set_request("first", "tenant")
    logger.info("in %s", "first")
    monkeypatch.setattr(sys, "stdout", replaced := io.StringIO())
    logs.set_request("second")
    logger.debug("not seen")
    logger.warning("in second")
    lines = [line.split("\t") for line in (out.getvalue() + replaced.getvalue()).splitlines()]
    assert [[level, request_id, message] for level, _, request_id, message in lines] == [
        ["[INFO]", "", "at init"],
        ["[INFO]", "first", "in first"],
        ["[WARNING]", "second", "in second"],
    ]
    assert all(time[10] == "T" and time.endswith("Z") and len(time) == 24 for _, time, _, _ in lines)


def test_the_warning_of_a_failed_init(root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", out := io.StringIO())
    logs.setup_logging(None, None)
    logs.set_request("")
    logs.warn_init_failure()
    level, _, request_id, message = out.getvalue().split("\t")
    assert (level, request_id) == ("[WARNING]", "")
    assert message.startswith("LAMBDA_WARNING: Unhandled exception. ")
    assert message.endswith("\r\n")


def test_an_error_event_is_one_line() -> None:
    payload = faults.error_payload("two\nlines", "Odd", ['  File "/var/task/app.py", line 1, in f\n    x\n', ""], "id")
    event = logs.error_event(payload, "text", marshaller.Marshaller("AWS_Lambda_python3.12"))
    nbsp = "\u00a0"
    assert event == (
        "[ERROR] Odd: two\nlines\rTraceback (most recent call last):\r"
        f'{nbsp * 2}File "/var/task/app.py", line 1, in f\r{nbsp * 4}x\r\n'
    )
