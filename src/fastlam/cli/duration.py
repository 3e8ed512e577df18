"""Durations as options and arguments: 90s, 2m, 1h30m, or seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from fastlam.clock import seconds_of

if TYPE_CHECKING:
    _Type = click.ParamType[float]
else:
    _Type = click.ParamType  # not generic in every version


class _Duration(_Type):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return seconds_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = _Duration()
