"""The gaps in an interpreter's memory that zygotes fill before they fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fastlam

# In a process of its own: those of this one are needed by the tests that follow.
PROGRAM = """
import os, sys
sys.path.insert(0, sys.argv[1])
import gc
from fastlam.worker import packing

holed = [[bytes(size) for _ in range(2000)] for size in (8, 40, 100, 300)]
for row in holed:
    del row[::2]
before = sum(size * count for size, count in packing._free_blocks())
kept = packing.fill_gaps()
after = sum(size * count for size, count in packing._free_blocks())
print(before, after, len(kept))
"""


def test_gaps_are_filled() -> None:
    source = str(Path(fastlam.__file__).parents[1])
    done = subprocess.run([sys.executable, "-I", "-c", PROGRAM, source], check=True, capture_output=True, text=True)
    assert done.stderr == "", "the table of the pools is not shown to anybody"
    before, after, kept = map(int, done.stdout.split())
    assert before > 400_000, "4,000 objects have left gaps"
    assert after < before / 3, "what is left is the end of the newest pool of each size"
    assert kept >= 4000


def test_no_stderr_no_table() -> None:
    """The table of the pools is printed there: without it nothing is filled, and nothing fails."""
    source = str(Path(fastlam.__file__).parents[1])
    program = "import os\nos.close(2)\n" + PROGRAM
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, source], check=True, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert done.stdout == "0 0 0\n"
