"""Compiles the small C programs that benchmarks need."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

NATIVE: Final = Path(__file__).parent / "native"
CSRC: Final = Path(__file__).parents[1] / "csrc"
FLAGS: Final = ("-std=gnu11", "-O2", "-g0", "-Wall", "-Wextra")


def build_program(
    source: str, directory: Path, libraries: tuple[str, ...] = (), csrc: tuple[str, ...] = ()
) -> Path:
    """bench/native/SOURCE with modules of csrc/, as a program in `directory`."""
    target = directory / Path(source).stem
    sources = [NATIVE / source, *(CSRC / name for name in csrc)]
    subprocess.run(["cc", *FLAGS, f"-I{CSRC}", "-o", target, *sources, *libraries], check=True)
    return target


def build_library(source: str, csrc: tuple[str, ...], directory: Path) -> Path:
    """bench/native/SOURCE with modules of csrc/, as a library for ctypes."""
    target = directory / f"lib{Path(source).stem}.so"
    sources = [NATIVE / source, *(CSRC / name for name in csrc)]
    subprocess.run(["cc", *FLAGS, "-shared", "-fPIC", "-pthread", f"-I{CSRC}", "-o", target, *sources], check=True)
    return target
