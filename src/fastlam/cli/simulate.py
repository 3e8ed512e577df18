"""`fastlam simulate`: the dispatcher on a virtual clock, past the size of this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastlam.cli.output import json_option, print_json, print_table
from fastlam.cli.session import CommandError
from fastlam.errors import FastlamError, native_module_missing
from fastlam.limits import ACCOUNT_CONCURRENCY, KEEPALIVE_SECONDS, PENDING_INVOCATIONS_MAX, TIMEOUT_SECONDS_MAX

if TYPE_CHECKING:
    from fastlam.core.dispatcher import Sampler
    from fastlam.harness.simulation.plain import Expected
    from fastlam.harness.simulation.workload import Function, Limits

POSITIVE = click.FloatRange(min=0.0, min_open=True)
CSV = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command("simulate")
@click.option("--functions", default=1, show_default=True, type=click.IntRange(1, 1_000_000), help="How many.")
@click.option("--rate", default=10.0, show_default=True, type=POSITIVE, help="Calls a second, of all functions.")
@click.option(
    "--service",
    default="exponential",
    show_default=True,
    type=click.Choice(("exponential", "constant", "lognormal")),
    help="How the durations of calls are distributed.",
)
@click.option("--service-ms", default=100.0, show_default=True, type=POSITIVE, help="Their mean.")
@click.option("--azure-like", is_flag=True, help="A workload like that of Azure Functions instead: --functions of it.")
@click.option("--invocations", type=POSITIVE, help="Calls a day of --azure-like [default: 31,500 a function].")
@click.option("--trace", type=CSV, help="Invocations of the Azure Functions trace of 2019 instead: one day's file.")
@click.option("--durations", type=CSV, help="Its durations of the same day.")
@click.option("--memory", type=CSV, help="Its memory of the same day.")
@click.option("--hours", default=1.0, show_default=True, type=POSITIVE, help="How long, on the virtual clock.")
@click.option(
    "--concurrency",
    default=ACCOUNT_CONCURRENCY,
    show_default=True,
    type=click.IntRange(min=1),
    help="The account's concurrency; past it calls are throttled.",
)
@click.option("--reserved", type=click.IntRange(min=0), help="Reserved concurrency of each function.")
@click.option(
    "--environments-max",
    default=1_000_000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Environments that the simulated machine holds; past it calls wait.",
)
@click.option("--enforce-rates", is_flag=True, help="Lambda's request rates, and 1000 environments + 100 a second.")
@click.option(
    "--keepalive",
    default=KEEPALIVE_SECONDS,
    show_default=True,
    type=click.FloatRange(min=0.0),
    help="Seconds after which an idle environment is stopped; 0: after each call; inf: never.",
)
@click.option(
    "--cold-start-ms",
    default=250.0,
    show_default=True,
    type=click.FloatRange(min=0.0),
    help="Median time from start to ready, lognormal; 0: none.",
)
@click.option(
    "--timeout",
    default=float(TIMEOUT_SECONDS_MAX),
    show_default=True,
    type=POSITIVE,
    help="Of each function, in seconds.",
)
@click.option(
    "--seed", default=1, show_default=True, type=click.IntRange(0, 2**32), help="The same gives the same run."
)
@click.option("--sample-minutes", default=0.0, type=click.FloatRange(min=0.0), help="A row of state so often.")
@json_option
def command(
    functions: int,
    rate: float,
    service: str,
    service_ms: float,
    azure_like: bool,
    invocations: float | None,
    trace: Path | None,
    durations: Path | None,
    memory: Path | None,
    hours: float,
    concurrency: int,
    reserved: int | None,
    environments_max: int,
    enforce_rates: bool,
    keepalive: float,
    cold_start_ms: float,
    timeout: float,
    seed: int,
    sample_minutes: float,
    as_json: bool,
) -> None:
    """Run the dispatcher on a virtual clock: its own code, with environments that are events instead of processes.

    Shows how queueing, scaling and throttling behave with thousands of environments and millions of calls, beside
    the closed form where there is one. No daemon is needed.

    \b
    Examples:
      fastlam simulate --rate 80 --service-ms 100 --reserved 10
      fastlam simulate --rate 80 --service-ms 100 --environments-max 10
      fastlam simulate --azure-like --functions 1000 --hours 24 --concurrency 10000 --sample-minutes 60
      fastlam simulate --trace invocations_per_function_md.anon.d01.csv --hours 24
    """
    if trace is not None and azure_like:
        raise click.UsageError("--trace and --azure-like are two workloads; give one of them.")
    if (durations or memory) and trace is None:
        raise click.UsageError("--durations and --memory belong to --trace.")
    if invocations is not None and not azure_like:
        raise click.UsageError("--invocations belongs to --azure-like.")
    try:
        from fastlam.harness.simulation.report import document, lines, timeline
        from fastlam.harness.simulation.run import Simulation
        from fastlam.harness.simulation.workload import Limits
    except ModuleNotFoundError as error:
        raise CommandError(native_module_missing(error) or str(error)) from error
    limits = Limits(
        concurrency=concurrency,
        environments_max=environments_max,
        pending_max=PENDING_INVOCATIONS_MAX,
        enforce_rates=enforce_rates,
        keep_alive_seconds=keepalive,
    )
    try:
        workload, expected = _workload(
            functions, rate, service, service_ms / 1e3, azure_like, invocations, trace, durations, memory,
            limits, reserved, timeout, _start(cold_start_ms), seed,
        )  # fmt: skip
    except FastlamError as error:
        raise CommandError(str(error)) from error
    with Simulation(workload, limits, seed, sample_minutes * 60) as simulation:
        begun = time.perf_counter()
        simulation.run(hours * 3600)
        result = document(simulation, time.perf_counter() - begun, expected)
        result["seed"] = seed
        if as_json:
            print_json(result)
            return
        for line in lines(result):
            click.echo(line)
        _print_triggers(result)
        if sample_minutes:
            click.echo()
            print_table(
                ("time", "environments", "running", "waiting", "arrivals", "throttled", "cold"),
                timeline(simulation.rows()),
            )


def _start(median_ms: float) -> Sampler | None:
    import math

    from fastlam.core.dispatcher import Sampler

    return Sampler("lognormal", math.log(median_ms / 1e3), 0.5) if median_ms > 0 else None


def _workload(
    functions: int,
    rate: float,
    service: str,
    service_seconds: float,
    azure_like: bool,
    invocations: float | None,
    trace: Path | None,
    durations: Path | None,
    memory: Path | None,
    limits: Limits,
    reserved: int | None,
    timeout: float,
    start: Sampler | None,
    seed: int,
) -> tuple[list[Function], list[Expected]]:
    """The functions, and what a closed form says of them."""
    from dataclasses import replace

    from fastlam.harness.simulation import azure, plain, synthetic

    if trace is None and not azure_like:
        made = plain.plain(
            functions, rate, service, service_seconds, reserved=reserved, timeout_seconds=timeout, start=start
        )
        return made, plain.expected(functions, rate, service, service_seconds, limits, reserved)
    if trace is not None:
        found = azure.read_trace(trace, durations, memory, start)
    else:
        found = synthetic.azure_like(functions, seed, invocations, start)
    return [replace(one, reserved=reserved, timeout_seconds=timeout) for one in found], []


def _print_triggers(result: dict[str, Any]) -> None:
    if len(result["triggers"]) < 2:
        return
    click.echo()
    print_table(
        ("trigger", "functions", "ran", "cold", "throttled", "timed out"),
        [
            (
                name,
                f"{one['functions']:,}",
                f"{one['invocations']:,}",
                f"{one['cold_starts']:,}",
                f"{one['throttles']:,}",
                f"{one['timeouts']:,}",
            )
            for name, one in result["triggers"].items()
        ],
    )
