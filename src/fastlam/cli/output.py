"""Tables, JSON and small formats of the command line. rich is imported only for a table on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

STYLES = {
    "Active": "green",
    "Enabled": "green",
    "idle": "green",
    "busy": "cyan",
    "starting": "yellow",
    "Pending": "yellow",
    "Failed": "red",
    "yes": "green",
    "no": "red",
}


def json_option(function: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")(function)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; elsewhere plain aligned columns of full length, easy to cut and grep."""
    if sys.stdout.isatty():
        _print_rich(columns, rows)
        return
    lines = [[column.upper() for column in columns], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # reads NO_COLOR itself
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def human_bytes(size: int) -> str:
    for unit, factor in (("MB", 1 << 20), ("KB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def human_seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes = int(seconds) // 60
    return f"{minutes}m" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"


def configuration_line(configuration: Mapping[str, Any]) -> str:
    """`python3.11, app.handler, 128 MB, 3 s` of a function configuration."""
    runtime, handler = configuration.get("Runtime", "?"), configuration.get("Handler", "?")
    return f"{runtime}, {handler}, {configuration['MemorySize']} MB, timeout {configuration['Timeout']} s"
