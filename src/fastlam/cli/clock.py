"""`fastlam clock`: what time it is for retries, event age and schedules; lets it pass where that clock is virtual."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from fastlam.cli.duration import DURATION
from fastlam.cli.output import human_seconds, json_option, print_json
from fastlam.cli.session import Session, pass_session

_PATH = "/_fastlam/clock"


@click.command("clock")
@click.argument("action", required=False, type=click.Choice(["advance"]))
@click.argument("duration", required=False, type=DURATION)
@json_option
@pass_session
def command(session: Session, action: str | None, duration: float | None, as_json: bool) -> None:
    """Show the clock that retries, the age of events and schedules go by. A daemon started with --clock virtual has one
    that stands still until it is advanced: what is due by then runs, in its order, and has ended when this returns.

    \b
    Examples:
      fastlam clock
      fastlam clock advance 2m
      fastlam clock advance 1h30m
    """
    if action is None:
        state = session.client.request("GET", _PATH, signed=False).json()
    elif duration is None:
        raise click.UsageError("Give how much time is to pass, such as 90s, 2m or 1h30m.")
    else:
        body = json.dumps({"advance": duration}).encode()
        state = session.client.request("POST", _PATH, body=body, signed=False).json()
    if as_json:
        print_json(state)
    else:
        click.echo(_line(state))


def _line(state: dict[str, Any]) -> str:
    moment = datetime.fromtimestamp(state["wall_ms"] / 1000, UTC)
    line = f"{moment:%Y-%m-%d %H:%M:%S}.{state['wall_ms'] % 1000:03} UTC, {state['clock']} clock"
    if state["clock"] != "virtual":
        return line
    line += f", {human_seconds(state['elapsed_ms'] / 1000)} since the start; {state['scheduled']} scheduled"
    if state["next_due_seconds"] is not None:
        line += f", the next in {human_seconds(state['next_due_seconds'])}"
    return line
