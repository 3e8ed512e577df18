"""`fastlam sources`: the event source mappings, and what goes through them."""

from __future__ import annotations

from typing import Any, Final

import click

from fastlam.cli.output import json_option, print_json, print_table
from fastlam.cli.session import Session, pass_session

_PATH: Final = "/2015-03-31/event-source-mappings"
_OURS: Final = "arn:aws:fastlam:::"  # before the URL of a source that Lambda does not have
_POSITIONS: Final = {"latest": "LATEST", "oldest": "TRIM_HORIZON"}
_POSITIONED: Final = (":kinesis:", ":dynamodb:", ":kafka:", ":::redis", ":::nats")  # in their ARNs


@click.group("sources", invoke_without_command=True)
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the event source mappings of the daemon: their state, what is wrong, and how many records have been read,
    handled and failed since its start.

    \b
    Examples:
      fastlam sources
      fastlam sources add hello arn:aws:sqs:us-east-1:000000000000:orders
      fastlam sources add hello redis://127.0.0.1:6379/0 --queue orders --from oldest
      fastlam sources add hello file:///srv/inbox
      fastlam sources rm 91eaeb7e-c976-4db0-9d36-6f7bcaf4eccc
    """
    if context.invoked_subcommand is not None:
        return
    session: Session = context.obj
    rows = session.client.request("GET", "/_fastlam/sources").json()["sources"]
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("No event source mappings: 'fastlam sources add FUNCTION SOURCE' makes one.", err=True)
        return
    print_table(
        ("uuid", "function", "source", "state", "read", "handled", "failed", "result"),
        [
            (
                one["uuid"],
                one["function_arn"].partition(":function:")[2],
                _shown(one),
                one["state"],
                str(one["metrics"]["PolledEventCount"]),
                str(one["metrics"]["InvokedEventCount"] - one["metrics"]["FailedInvokeEventCount"]),
                str(one["metrics"]["FailedInvokeEventCount"]),
                one["last_processing_result"] or "-",
            )
            for one in rows
        ],
    )


@command.command("add")
@click.argument("function")
@click.argument("source")
@click.option("--queue", help="What is read there: a queue, stream, subject, topic or channel.")
@click.option("--batch-size", type=click.IntRange(1, 10_000), help="Records of one invocation, at most.")
@click.option("--window", type=click.IntRange(0, 300), metavar="SECONDS", help="How long a batch is waited for.")
@click.option(
    "--from", "position", type=click.Choice(list(_POSITIONS)), help="Where a stream begins [default: latest]."
)
@click.option("--filter", "patterns", multiple=True, metavar="PATTERN", help="JSON; one of several must match.")
@pass_session
def add(
    session: Session,
    function: str,
    source: str,
    queue: str | None,
    batch_size: int | None,
    window: int | None,
    position: str | None,
    patterns: tuple[str, ...],
) -> None:
    """Have a function called with what comes from SOURCE: an ARN, or the URL of a source of this machine."""
    arn = source if source.startswith("arn:") else f"{_OURS}{source}"
    if position is None and any(part in arn for part in _POSITIONED):
        position = "latest"
    request: dict[str, Any] = {"FunctionName": function, "EventSourceArn": arn}
    if position is not None:
        request["StartingPosition"] = _POSITIONS[position]
    if queue is not None:
        request["Queues"] = [queue]
    if batch_size is not None:
        request["BatchSize"] = batch_size
    if window is not None:
        request["MaximumBatchingWindowInSeconds"] = window
    if patterns:
        request["FilterCriteria"] = {"Filters": [{"Pattern": pattern} for pattern in patterns]}
    click.echo(session.client.call("POST", _PATH, request)["UUID"])


@command.command("rm")
@click.argument("uuids", nargs=-1, required=True, metavar="UUID...")
@pass_session
def remove(session: Session, uuids: tuple[str, ...]) -> None:
    """Delete event source mappings; their functions stay."""
    for uuid in uuids:
        session.client.call("DELETE", f"{_PATH}/{uuid}")
        click.echo(f"{uuid} is deleted")


def _shown(one: dict[str, Any]) -> str:
    arn: str = one["event_source_arn"]
    return arn.removeprefix(_OURS) or str(one["source"])
