"""The results of a run, on the terminal and as a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.measure import MISSED, Check, Ratio, Result, Series, Target, number

Rows = list[tuple[str, ...]]
FIGURES = ("figure", "value", "interval", "target", "")
SERIES = ("measured", "side", "median", "rounds")


def figure_rows(result: Result) -> Rows:
    """Ratios and checks: what the targets are about."""
    rows: Rows = []
    for ratio in result.ratios:
        rows.append(_ratio_row(ratio))
    for check in result.checks:
        rows.append(_check_row(check))
    return rows


def _ratio_row(ratio: Ratio) -> tuple[str, ...]:
    interval = f"{number(ratio.low)} to {number(ratio.high)}"
    return ratio.what, f"{number(ratio.median)} ×", interval, _times(ratio.target), ratio.verdict


def _times(target: Target) -> str:
    return f"{target} ×" if target else ""


def _check_row(check: Check) -> tuple[str, ...]:
    target = f"{check.target} {check.unit}".rstrip() if check.target else ""
    return check.what, f"{number(check.value)} {check.unit}".rstrip(), check.detail, target, check.verdict


def series_rows(result: Result) -> Rows:
    return [_series_row(one) for one in result.series]


def _series_row(series: Series) -> tuple[str, ...]:
    spread = f"{number(min(series.values))} to {number(max(series.values))}"
    return series.metric, series.side, f"{number(series.median)} {series.unit}", spread


def missed(results: Sequence[Result]) -> list[str]:
    """What did not come out as it should, one line each."""
    lines = []
    for result in results:
        lines += [f"{result.name}: {one.what}" for one in [*result.ratios, *result.checks] if one.verdict == MISSED]
        if result.failed:
            lines.append(f"{result.name}: ended early ({result.failed})")
    return lines


def markdown(results: Sequence[Result], environment: Mapping[str, str], options: Mapping[str, Any]) -> str:
    """The whole run as one document."""
    parts = ["# Benchmarks", ""]
    parts += [
        "Method: bench/README.md. Ratios are medians over interleaved rounds, with the 95 % bootstrap interval.",
        "",
    ]
    parts += [f"Options: {', '.join(f'{name} {value}' for name, value in options.items())}.", ""]
    parts += _table(("environment", ""), [(name, value) for name, value in environment.items()])
    for result in results:
        parts += [f"## {result.title}", ""]
        if result.failed:
            parts += [f"Ended early: {result.failed}", ""]
        figures = figure_rows(result)
        if figures:
            parts += _table(FIGURES, figures)
        rows = series_rows(result)
        if rows:
            parts += _table(SERIES, rows)
        parts += [f"- {line}" for line in [*result.notes, *result.missing]]
        parts += [""] if result.notes or result.missing else []
    return "\n".join(parts).rstrip() + "\n"


def _table(head: Sequence[str], rows: Rows) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [*lines, ""]


def show(console: Any, result: Result) -> None:
    """One topic on a rich console."""
    from rich.table import Table
    from rich.text import Text

    console.print(f"\n[bold]{result.title}[/bold]  ({result.name}, {result.seconds:.0f} s)")
    for head, rows in ((FIGURES, figure_rows(result)), (SERIES, series_rows(result))):
        if not rows:
            continue
        table = Table(*head, box=None, pad_edge=False, header_style="dim")
        for row in rows:
            table.add_row(*map(Text, row), style="red" if row[-1] == MISSED else None)
        console.print(table)
    for line in [*result.notes, *result.missing]:
        console.print(f"  {line}", highlight=False, markup=False)
    if result.failed:
        console.print(f"  ended early: {result.failed}", style="red", highlight=False, markup=False)
