"""`fastlam logs`: what a function has written, and go on with it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

import click

from fastlam.cli.session import Session, pass_session

WAIT_SECONDS: Final = 2  # the daemon holds a request of -f open for so long, also when it is told to stop


@click.command("logs")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on printing what comes, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(min=0), help="Only the last lines.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: sequence, timestamp_ms, message.")
@pass_session
def command(session: Session, name: str, follow: bool, lines: int | None, as_json: bool) -> None:
    """Print the log of the function NAME: its output and the START, END and REPORT lines.

    \b
    Examples:
      fastlam logs hello
      fastlam logs hello -f
      fastlam logs hello --json | jq -r .message
    """
    client = session.client
    after, events = _read(session, name, 0, 0)
    if not events:
        client.configuration(name)  # a function that does not exist is an error, one that was silent is not
    _print(events if lines is None else events[len(events) - lines if lines < len(events) else 0 :], as_json)
    try:
        while follow:
            after, events = _read(session, name, after, WAIT_SECONDS)
            _print(events, as_json)
    except KeyboardInterrupt:
        pass


def _read(session: Session, name: str, after: int, wait_seconds: int) -> tuple[int, list[dict[str, Any]]]:
    query = {"function": name, "after": str(after), "wait": str(wait_seconds)}
    page = session.client.request("GET", "/_fastlam/logs", query=query).json()
    if page.get("dropped"):
        click.echo(f"({page['dropped']} older lines are no longer kept)", err=True)
    return page["next"], page["events"]


def _print(events: list[dict[str, Any]], as_json: bool) -> None:
    for event in events:
        if as_json:
            click.echo(json.dumps(event, ensure_ascii=False))
            continue
        moment = datetime.fromtimestamp(event["timestamp_ms"] / 1000, UTC).isoformat(timespec="milliseconds")
        message = event["message"].rstrip("\n")
        click.echo(f"{click.style(moment.replace('+00:00', 'Z'), dim=True)}  {message}")
