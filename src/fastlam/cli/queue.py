"""`fastlam queue`: asynchronous events that are not over, and records that wait for their destination."""

from __future__ import annotations

from typing import Any

import click

from fastlam.cli.output import human_seconds, json_option, print_json, print_table
from fastlam.cli.session import Session, pass_session


@click.command("queue")
@json_option
@pass_session
def command(session: Session, as_json: bool) -> None:
    """Show, for each function, how many asynchronous events it has, how old the oldest is, how many run and how many
    wait for another attempt; and for each destination or dead-letter queue how many records wait to be delivered.

    \b
    Examples:
      fastlam queue
      fastlam queue --json | jq .statistics.waiting_delivery
    """
    found = session.client.request("GET", "/_fastlam/queue", signed=False).json()
    if as_json:
        print_json(found)
        return
    if not found["functions"] and not found["destinations"]:
        click.echo("No asynchronous event has come yet: fastlam invoke --async sends one.", err=True)
        return
    if found["functions"]:
        print_table(
            ("function", "depth", "oldest", "in flight", "waiting for retry", "completed", "dropped"),
            [
                (
                    one["function"],
                    str(one["depth"]),
                    _age(one["oldest_seconds"]),
                    str(one["in_flight"]),
                    str(one["waiting_retry"]),
                    str(one["completed"]),
                    str(one["dropped"]),
                )
                for one in found["functions"]
            ],
        )
    if found["destinations"]:
        if found["functions"]:
            click.echo()
        print_table(
            ("destination", "waiting for delivery", "delivered", "dropped", "last error"),
            [
                (
                    one["destination"],
                    str(one["waiting"]),
                    str(one["delivered"]),
                    str(one["failed"]),
                    one["last_error"] or "-",
                )
                for one in found["destinations"]
            ],
        )


def _age(seconds: Any) -> str:
    return "-" if seconds is None else human_seconds(seconds)
