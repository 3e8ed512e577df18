"""docs/models/lane.pml, checked in all its states by SPIN; and that it finds each mistake it has a name for."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from needs import missing

MODEL: Final = Path(__file__).parents[2] / "docs/models/lane.pml"
DEPTH_MAX: Final = 100_000  # steps; the longest of any variant is below 1000
SECONDS_MAX: Final = 110
DIRECTIONS: Final = {"requests": (), "replies": ("-DREPLIES",)}

# A mistake, what else its model needs to show it, and how it shows: somebody sleeps for ever, or a record is wrong.
ASLEEP: Final = "invalid end state"
WRONG: Final = "assertion violated"
MUTANTS: Final = {
    "NO_FENCE_IN_PUBLISH": ((), ASLEEP),
    "NO_FENCE_IN_ANNOUNCE_SLEEP": ((), ASLEEP),
    "NO_SECOND_LOOK_IN_ANNOUNCE_SLEEP": ((), ASLEEP),
    "NO_FENCE_IN_RELEASE": ((), ASLEEP),
    "NO_FENCE_IN_ANNOUNCE_CROWDED": ((), ASLEEP),
    "NO_SECOND_LOOK_IN_ANNOUNCE_CROWDED": ((), ASLEEP),
    "RELEASE_WITHOUT_LOOKING": ((), ASLEEP),
    "WAKE_BEFORE_TAKING": ((), ASLEEP),
    "SLEEP_WITHOUT_COMPARING": ((), ASLEEP),
    "CLEAR_AFTER_ANNOUNCING": ((), ASLEEP),
    "CROWDED_BEFORE_PUBLISHING": (("-DBATCH=3",), ASLEEP),
    "DEATH_UNTOLD": (("-DDEATH",), ASLEEP),
    "PUBLISH_BEFORE_WRITING": ((), WRONG),
    "RELEASE_BEFORE_USING": ((), WRONG),
}


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    for program, package in (("spin", "spin"), ("gcc", "gcc libc6-dev")):
        if shutil.which(program) is None:
            missing(f"there is no {program}: apt-get install {package}")


def check(place: Path, *defines: str, liveness: bool = False, optimise: str = "-O2") -> str:
    """What the verifier says: one that searches all states, or all up to the first error."""
    ways = ("-DLIVENESS",) if liveness else ()
    call(place, "spin", "-a", *defines, *ways, str(MODEL))
    kind = ("-DNFAIR=3",) if liveness else ("-DSAFETY",)
    call(place, "gcc", optimise, *kind, "-DNOREDUCE", "-o", "pan", "pan.c")
    output = call(place, "./pan", f"-m{DEPTH_MAX}", *(("-a", "-f") if liveness else ()))
    assert "max search depth too small" not in output, output
    assert "Search not completed" not in output or "errors: 1" in output, output
    return output


def call(place: Path, *command: str) -> str:
    result = subprocess.run(command, cwd=place, check=False, capture_output=True, text=True, timeout=SECONDS_MAX)
    output = result.stdout + result.stderr
    assert result.returncode == 0, f"{' '.join(command)}\n{output}"
    return output


def holds(output: str) -> None:
    assert "errors: 0" in output, output
    found = re.search(r"(\d+) states, stored", output)
    assert found is not None and int(found[1]) > 100_000, output  # not a model that stops at once
    print(found[0])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_no_wake_and_no_record_is_lost(direction: str, tmp_path: Path) -> None:
    holds(check(tmp_path, *DIRECTIONS[direction]))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_more_records_in_a_larger_ring(direction: str, tmp_path: Path) -> None:
    sizes = ("-DRECORDS=6", "-DCAPACITY=3", "-DBATCH=3", "-DSPURIOUS=2")
    holds(check(tmp_path, *DIRECTIONS[direction], *sizes))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_worker_that_dies_blocks_nobody(direction: str, tmp_path: Path) -> None:
    holds(check(tmp_path, *DIRECTIONS[direction], "-DDEATH"))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_what_is_published_is_taken_in_the_end(direction: str, tmp_path: Path) -> None:
    output = check(tmp_path, *DIRECTIONS[direction], liveness=True)
    assert "acceptance   cycles \t+ (fairness enabled)" in output, output
    holds(output)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_mistake_is_found(mutant: str, direction: str, tmp_path: Path) -> None:
    needs, shows = MUTANTS[mutant]
    # Found after few states: compiling takes the time.
    output = check(tmp_path, *DIRECTIONS[direction], f"-DMUTANT_{mutant}", *needs, optimise="-O0")
    assert "errors: 1" in output, output
    assert f"pan:1: {shows}" in output, output


def test_every_mistake_of_the_model_is_listed() -> None:
    assert set(re.findall(r"\bMUTANT_(\w+)", MODEL.read_text())) == set(MUTANTS)
