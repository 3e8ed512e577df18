"""Workloads: the Azure trace's files as they are read, and what is made in their place."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from fastlam.cli import cli
from fastlam.core.dispatcher import Sampler
from fastlam.errors import FastlamError
from fastlam.harness.simulation import formulas
from fastlam.harness.simulation.azure import LEVELS, read_trace
from fastlam.harness.simulation.run import Simulation
from fastlam.harness.simulation.synthetic import (
    DAY_SECONDS,
    INVOCATIONS_A_DAY,
    TRIGGERS,
    azure_like,
    burr_mb,
    daily_profile,
    normal_quantile,
)
from fastlam.harness.simulation.workload import Function, Limits, Periodic, PerMinute, Poisson

KEY = ("HashOwner", "HashApp", "HashFunction")


def a_day(function: Function) -> float:
    arrivals = function.arrivals
    if isinstance(arrivals, Periodic):
        return DAY_SECONDS / arrivals.seconds
    assert isinstance(arrivals, Poisson)
    return arrivals.per_second * DAY_SECONDS


# -- like Azure's ------------------------------------------------------------------------------------


def test_the_published_shares_hold(rng: random.Random) -> None:
    """What the paper says of all applications, of 10,000 functions; the tolerances are what docs/howto/simulation.md says."""
    functions = azure_like(10_000, rng.getrandbits(32))
    rates = sorted((a_day(function) for function in functions), reverse=True)
    total = sum(rates)
    assert sum(rate <= 24 for rate in rates) / len(rates) == pytest.approx(0.45, abs=0.02)
    assert sum(rate <= 1440 for rate in rates) / len(rates) == pytest.approx(0.81, abs=0.02)
    assert sum(rates[: round(0.186 * len(rates))]) / total == pytest.approx(0.996, abs=0.002)
    assert total / len(rates) == pytest.approx(INVOCATIONS_A_DAY, rel=0.05)
    for name, share in TRIGGERS.items():
        of_kind = [function for function in functions if function.trigger == name]
        assert len(of_kind) / len(functions) == pytest.approx(share.functions / 100, abs=0.002)
        assert sum(map(a_day, of_kind)) / total == pytest.approx(share.invocations / 100, abs=0.01)


def test_half_of_the_durations_are_shorter_than_the_published_median(rng: random.Random) -> None:
    functions = azure_like(1000, rng.getrandbits(32))
    means = sorted(sum(function.service.sample(200, 1)) / 200 for function in functions)
    assert means[500] == pytest.approx(0.684, rel=0.1)  # e^-0.38
    assert means[841] == pytest.approx(7.24, rel=0.15)  # one deviation of 2.36 above
    level = rng.random()
    assert 1 - (1 + (burr_mb(level) / 107.083) ** 11.652) ** -0.221 == pytest.approx(level)
    assert normal_quantile(0.5) == 0.0


def test_the_number_of_calls_can_be_asked_for(rng: random.Random) -> None:
    functions = azure_like(500, rng.getrandbits(32), 5_000_000)
    assert sum(map(a_day, functions)) == pytest.approx(5_000_000, rel=0.05)
    with pytest.raises(FastlamError, match="for fewer functions"):
        azure_like(500, 1, 50_000)
    profile = daily_profile()
    assert sum(profile) / len(profile) == pytest.approx(1.0)
    assert min(profile) / max(profile) == pytest.approx(0.5, abs=0.01)


# -- the trace's files -------------------------------------------------------------------------------


class Files:
    """A day of four functions, as the data set has it: one is never called, one has no duration."""

    def __init__(self, directory: Path, rng: random.Random) -> None:
        self.invocations = directory / "invocations_per_function_md.anon.d01.csv"
        self.durations = directory / "function_durations_percentiles.anon.d01.csv"
        self.memory = directory / "app_memory_percentiles.anon.d01.csv"
        self.counts = {
            "f1": [rng.choice((0, 0, 3)) for _ in range(1440)],
            "f2": [int(minute % 60 == 0) for minute in range(1440)],
            "f3": [0] * 1440,
            "f4": [rng.randrange(50) for _ in range(1440)],
        }
        triggers = {"f1": "http", "f2": "timer", "f3": "queue", "f4": "event"}
        with self.invocations.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*KEY, "Trigger", *range(1, 1441)])
            for name, counts in self.counts.items():
                writer.writerow(["owner", "app", name, triggers[name], *counts])
        with self.durations.open("w", newline="") as file:
            writer = csv.writer(file)
            header = ["Average", "Count", "Minimum", "Maximum", *(f"percentile_Average_{level}" for level in LEVELS)]
            writer.writerow([*KEY, *header])
            for name in ("f1", "f2", "f3"):
                writer.writerow(["owner", "app", name, 100, 10, 1, 900, 1, 2, 50, 100, 99.999, 800, 900])
        with self.memory.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["HashOwner", "HashApp", "SampleCount", "AverageAllocatedMb"])
            writer.writerow(["owner", "app", 100, 321.5])


@pytest.fixture
def files(tmp_path: Path, rng: random.Random) -> Files:
    return Files(tmp_path, rng)


def test_a_trace_is_played_to_the_call(files: Files) -> None:
    functions = read_trace(files.invocations, files.durations, files.memory)
    assert [(one.name, one.trigger, one.memory_mb) for one in functions] == [
        ("f1", "http", 321.5),
        ("f2", "timer", 321.5),
        ("f4", "event", 321.5),
    ]
    assert [one.service.kind for one in functions] == ["quantiles", "quantiles", "lognormal"]
    with Simulation(functions, Limits(), 1, 3600) as simulation:
        simulation.run(DAY_SECONDS)
        simulation.dispatcher.run_out()
        figures = simulation.figures()
        ran = [target.invocations for target in simulation.targets]
        rows = simulation.rows()
    expected = [sum(files.counts[name]) for name in ("f1", "f2", "f4")]
    assert ran == expected
    assert figures["arrivals"] == sum(expected)
    assert [row.arrivals for row in rows] == [
        sum(sum(files.counts[name][60 * hour : 60 * hour + 60]) for name in ("f1", "f2", "f4")) for hour in range(24)
    ]


def test_durations_follow_their_percentiles(files: Files) -> None:
    service = read_trace(files.invocations, files.durations)[0].service
    times = sorted(service.sample(20_000, 7))
    assert times[0] >= 0.001
    assert times[-1] <= 0.9
    assert times[5000] == pytest.approx(0.05, rel=0.05)
    assert times[10_000] == pytest.approx(0.1, rel=0.05)


def test_only_so_many_functions_of_a_trace(files: Files) -> None:
    assert [one.name for one in read_trace(files.invocations, functions_max=2)] == ["f1", "f2"]
    arrivals = read_trace(files.invocations)[1].arrivals
    assert isinstance(arrivals, PerMinute)
    assert list(arrivals.counts) == files.counts["f2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has no column HashOwner"),
        (",".join([*KEY, "Trigger", *map(str, range(1, 1441))]) + "\no,a,f\n", "line 2: 3 fields"),
        (",".join([*KEY, "Trigger", *map(str, range(1, 1441))]) + "\no,a,f,http" + ",x" * 1440, "do not parse"),
        (",".join([*KEY, "Trigger", *map(str, range(1, 1441))]) + "\no,a,f,http" + ",-1" * 1440, "do not parse"),
        (",".join([*KEY, "Trigger", *map(str, range(1, 1441))]) + "\n", "has no invocations"),
    ],
)
def test_a_file_of_another_kind_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text(text)
    with pytest.raises(FastlamError, match=message):
        read_trace(path)


# -- the command -------------------------------------------------------------------------------------


def simulate(*words: str) -> dict[str, object]:
    result = CliRunner().invoke(cli, ["simulate", "--json", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    document: dict[str, object] = json.loads(result.output)
    return document


def test_the_command_sets_its_result_beside_the_closed_form() -> None:
    words = ("--rate", "80", "--service-ms", "100", "--reserved", "10", "--hours", "2", "--cold-start-ms", "0")
    document = simulate(*words)
    (one,) = document["closed_forms"]  # type: ignore[misc]
    assert one["value"] == pytest.approx(formulas.erlang_b(10, 8.0))
    assert one["simulated"] == pytest.approx(one["value"], rel=0.05)
    assert {**simulate(*words), "wall_seconds": 0, "arrivals_per_wall_second": 0} == {
        **document,
        "wall_seconds": 0,
        "arrivals_per_wall_second": 0,
    }
    assert simulate(*words, "--seed", "2")["figures"] != document["figures"]


def test_the_command_makes_calls_wait_for_environments() -> None:
    document = simulate(
        "--rate", "80", "--service-ms", "100", "--environments-max", "10", "--hours", "2", "--cold-start-ms", "0"
    )
    assert [one["figure"] for one in document["closed_forms"]] == ["delayed / ok", "wait mean", "wait p99"]  # type: ignore[attr-defined]
    for one in document["closed_forms"]:  # type: ignore[attr-defined]
        assert one["simulated"] == pytest.approx(one["value"], rel=0.1)


def test_the_command_reads_a_trace(files: Files) -> None:
    document = simulate(
        "--trace", str(files.invocations), "--durations", str(files.durations), "--memory", str(files.memory),
        "--hours", "24", "--sample-minutes", "60", "--timeout", "900",
    )  # fmt: skip
    assert document["figures"]["arrivals"] == sum(map(sum, files.counts.values()))  # type: ignore[index]
    assert len(document["samples"]) == 24  # type: ignore[arg-type]
    assert set(document["triggers"]) == {"http", "timer", "event"}  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "words",
    [("--trace", __file__, "--azure-like"), ("--durations", __file__), ("--memory", __file__), ("--invocations", "9")],
)
def test_options_that_do_not_belong_together_are_refused(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, ["simulate", *words])
    assert result.exit_code == 2
    assert "belong" in result.output or "two workloads" in result.output


def test_the_text_has_its_lines() -> None:
    result = CliRunner().invoke(
        cli, ["simulate", "--azure-like", "--functions", "50", "--hours", "1", "--sample-minutes", "20"]
    )
    assert result.exit_code == 0
    for word in ("simulated in", "cold starts", "had to wait", "environments   mean", "TRIGGER", "00:40"):
        assert word in result.output


def test_a_trace_that_is_none_is_one_sentence() -> None:
    result = CliRunner().invoke(cli, ["simulate", "--trace", __file__])
    assert result.exit_code != 0
    assert "has no column" in result.output


def test_a_start_takes_its_time() -> None:
    functions = azure_like(20, 1, 20_000, Sampler("constant", 0.5))
    with Simulation(functions, Limits(), 1) as simulation:
        simulation.run(DAY_SECONDS)
        assert simulation.dispatcher.cold_waits.longest_ns == 500_000_000
