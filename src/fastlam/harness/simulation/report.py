"""What a simulated run came to, as plain values and as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from fastlam.harness.simulation.plain import Expected, found
from fastlam.harness.simulation.run import Row, Simulation


def document(simulation: Simulation, wall_seconds: float, expected: Sequence[Expected]) -> dict[str, Any]:
    """Everything, for JSON."""
    figures = simulation.figures()
    return {
        "figures": figures,
        "wall_seconds": wall_seconds,
        "arrivals_per_wall_second": figures["arrivals"] / wall_seconds if wall_seconds else 0.0,
        "closed_forms": [{**asdict(one), "simulated": found(figures, one.figure)} for one in expected],
        "triggers": by_trigger(simulation),
        "samples": [asdict(row) for row in simulation.rows()],
    }


def by_trigger(simulation: Simulation) -> dict[str, dict[str, int]]:
    """Functions, calls that ran, cold starts, throttles and timeouts of each kind of trigger."""
    sums: dict[str, dict[str, int]] = defaultdict(
        lambda: dict.fromkeys(("functions", "invocations", "cold_starts", "throttles", "timeouts"), 0)
    )
    for function, target in zip(simulation.functions, simulation.targets, strict=True):
        one = sums[function.trigger]
        one["functions"] += 1
        one["invocations"] += target.invocations
        one["cold_starts"] += target.cold_starts
        one["throttles"] += target.throttles
        one["timeouts"] += target.timeouts
    return dict(sorted(sums.items()))


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The text that `fastlam simulate` prints, but for its tables."""
    figures = result["figures"]
    arrivals = figures["arrivals"]
    yield (
        f"{figures['seconds'] / 3600:.4g} h simulated in {result['wall_seconds']:.1f} s: {arrivals:,} arrivals,"
        f" {result['arrivals_per_wall_second']:,.0f} a second of this machine"
    )
    ran = figures["ok"] + figures["function_errors"]
    yield f"ran            {share(ran, arrivals)}, {figures['function_errors']:,} of them into their timeout"
    for reason, count in sorted(figures["throttled_by_reason"].items()):
        yield f"throttled      {share(count, arrivals)}  {reason}"
    if figures["rejected"]:
        yield f"rejected       {share(figures['rejected'], arrivals)}  the line was full"
    yield f"cold starts    {share(figures['cold_starts'], ran)}"
    yield f"had to wait    {share(figures['delayed'], ran)}"
    for name in ("wait", "response"):
        times = figures[f"{name}_seconds"]
        yield f"{name:<14} " + "  ".join(
            f"{part} {seconds(times[part])}" for part in ("mean", "p50", "p90", "p99", "max")
        )
    yield (
        f"environments   mean {figures['environments_mean']:,.1f}, most {figures['environments_most']:,};"
        f" calls in the system: mean {figures['in_system_mean']:,.1f}"
    )
    for one in result["closed_forms"]:
        yield f"closed form    {one['model']}: {one['figure']} {one['value']:.6g}, simulated {one['simulated']:.6g}"


def share(count: int, whole: int) -> str:
    """A count, and of how many."""
    return f"{count:,} ({count / whole:.3%})" if whole else f"{count:,}"


def seconds(value: float) -> str:
    """A time in the unit that suits it."""
    if value < 1e-3:
        return f"{value * 1e6:.3g} µs"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.4g} s"


def timeline(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The samples as rows of a table."""
    return [
        (
            f"{int(row.seconds) // 3600:02d}:{int(row.seconds) // 60 % 60:02d}",
            f"{row.environments:,}",
            f"{row.running:,}",
            f"{row.waiting:,}",
            f"{row.arrivals:,}",
            f"{row.throttled:,}",
            f"{row.cold_starts:,}",
        )
        for row in rows
    ]
