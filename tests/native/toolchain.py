"""Compiles and runs C for the native tests: $CC or the first compiler found, with one set of warnings."""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from needs import missing

HERE = Path(__file__).parent
CSRC = HERE.parent.parent / "csrc"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror")
FLAGS = ("-std=gnu11", "-g", "-pthread", *WARNINGS, f"-I{CSRC}", f"-I{HERE}")
COMPILE_SECONDS_MAX = 60
RUN_SECONDS_MAX = 120
ADDR_NO_RANDOMIZE = 0x0040000  # personality(2): what setarch -R sets


class Source(NamedTuple):
    path: Path
    defines: tuple[str, ...] = ()


def compiler() -> list[str]:
    """The command of the C compiler, which must be there."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    found = next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))), None)
    if found is None:
        missing("there is no C compiler: install gcc or clang (Debian: apt-get install gcc libc6-dev)")
    return [found]


def compile_program(
    command: Sequence[str],
    sources: Sequence[Source],
    options: Sequence[str],
    output: Path,
    *,
    link: Sequence[str] = (),
) -> None:
    """Compiles each source with its own defines, beside `output`, and links them; a failure tells what was said."""
    objects = []
    for number, source in enumerate(sources):
        target = output.with_name(f"{output.name}-{number}.o")
        defines = [f"-D{define}" for define in source.defines]
        _call([*command, *FLAGS, *options, *defines, "-c", str(source.path), "-o", str(target)])
        objects.append(str(target))
    for_linking = [option for option in options if not option.startswith("-D")]
    _call([*command, "-pthread", *for_linking, *link, *objects, "-lm", "-o", str(output)])


def _call(command: Sequence[str]) -> None:
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=COMPILE_SECONDS_MAX)
    assert result.returncode == 0, f"{shlex.join(command)}\n{result.stderr}"


def run_program(command: Sequence[str], environment: dict[str, str] | None = None) -> str:
    """Runs a test program and gives its output, which is also the failure's text."""
    result = _run(command, environment, None)
    if result.returncode != 0 and "unexpected memory mapping" in result.stdout:
        # ThreadSanitizer's fixed layout meets a kernel that randomises more address bits than it knows.
        result = _run(command, environment, _fixed_addresses())
    assert result.returncode == 0, f"{shlex.join(command)} ended with {result.returncode}\n{result.stdout}"
    return result.stdout


def _run(
    command: Sequence[str], environment: dict[str, str] | None, before_exec: Callable[[], object] | None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **(environment or {})},
            timeout=RUN_SECONDS_MAX,
            preexec_fn=before_exec,
        )
    except subprocess.TimeoutExpired as expired:
        said = (expired.stdout or b"").decode(errors="replace")
        raise AssertionError(f"{shlex.join(command)} did not end in {RUN_SECONDS_MAX} s\n{said}") from None


def _fixed_addresses() -> Callable[[], object]:
    return functools.partial(ctypes.CDLL(None).personality, ADDR_NO_RANDOMIZE)
