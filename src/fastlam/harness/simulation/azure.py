"""The Azure Functions trace of 2019, as its authors publish it: for each day a file of invocations, of durations and of
memory.

The columns are those of AzureFunctionsDataset2019.md in github.com/Azure/AzurePublicDataset: `HashOwner, HashApp,
HashFunction, Trigger, 1 .. 1440`; percentiles of durations in milliseconds; memory of applications in MB.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fastlam.core.dispatcher import Sampler
from fastlam.errors import FastlamError
from fastlam.harness.simulation.synthetic import DURATION_LOG_DEVIATION, DURATION_LOG_MEAN, MEMORY_MEDIAN_MB
from fastlam.harness.simulation.workload import Function, PerMinute

MINUTES: Final = 1440
LEVELS: Final = (0, 1, 25, 50, 75, 99, 100)
KEY: Final = ("HashOwner", "HashApp", "HashFunction")
# Of a function that the durations do not know: the fit over all functions.
UNKNOWN: Final = Sampler("lognormal", DURATION_LOG_MEAN, DURATION_LOG_DEVIATION)


def rows(path: Path, columns: tuple[str, ...]) -> Iterator[list[str]]:
    """The rows of a CSV file, with these columns first; a FastlamError names the file and the line."""
    with path.open(newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        missing = [name for name in columns if name not in header]
        if missing:
            raise FastlamError(f"{path} has no column {missing[0]}: is it a file of the Azure Functions trace of 2019?")
        places = [header.index(name) for name in columns]
        for row in reader:
            if len(row) != len(header):
                raise FastlamError(f"{path}, line {reader.line_num}: {len(row)} fields, not {len(header)}")
            yield [row[place] for place in places]


def read_durations(path: Path) -> dict[tuple[str, ...], Sampler]:
    """A sampler for each function that has usable percentiles."""
    found = {}
    names = tuple(f"percentile_Average_{level}" for level in LEVELS)
    for row in rows(path, (*KEY, *names)):
        values = [max(0.0, float(text)) / 1e3 for text in row[3:]]
        for index in range(1, len(values)):  # averages of averages: some files have one that falls by a rounding
            values[index] = max(values[index], values[index - 1])
        found[tuple(row[:3])] = Sampler(
            "quantiles", quantiles=zip((level / 100 for level in LEVELS), values, strict=True)
        )
    return found


def read_memory(path: Path) -> dict[tuple[str, ...], float]:
    """Mean allocated MB of each application."""
    columns = ("HashOwner", "HashApp", "AverageAllocatedMb")
    return {(owner, app): float(mean) for owner, app, mean in rows(path, columns)}


def read_trace(
    invocations: Path,
    durations: Path | None = None,
    memory: Path | None = None,
    start: Sampler | None = None,
    functions_max: int | None = None,
) -> list[Function]:
    """The functions of one day that were called at all, in the file's order."""
    times = read_durations(durations) if durations else {}
    sizes = read_memory(memory) if memory else {}
    found: list[Function] = []
    for row in rows(invocations, (*KEY, "Trigger", *map(str, range(1, MINUTES + 1)))):
        try:
            counts = array("I", map(int, row[4:]))
        except (ValueError, OverflowError) as error:
            raise FastlamError(f"{invocations}: the counts of function {row[2]} do not parse: {error}") from error
        if not any(counts):
            continue
        key = tuple(row[:3])
        found.append(
            Function(
                row[2],
                times.get(key, UNKNOWN),
                PerMinute(counts),
                trigger=row[3],
                memory_mb=sizes.get(key[:2], MEMORY_MEDIAN_MB),
                start=start,
            )
        )
        if functions_max is not None and len(found) == functions_max:
            break
    if not found:
        raise FastlamError(f"{invocations} has no invocations")
    return found
