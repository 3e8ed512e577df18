"""`fastlam invoke`: runs a function; the result on stdout, everything about it on stderr."""

from __future__ import annotations

import base64
import binascii
import json
import sys
from typing import IO

import click

from fastlam.cli.client import Response, function_path
from fastlam.cli.hints import hint
from fastlam.cli.session import EXIT_FUNCTION_ERROR, Session, pass_session


@click.command("invoke")
@click.argument("name")
@click.option("-p", "--payload", help="The event, as JSON text [default: {}].")
@click.option("--event", type=click.File("rb"), metavar="FILE", help="The event, from a file; - reads stdin.")
@click.option("--qualifier", help="Version or alias.")
@click.option("--client-context", metavar="JSON", help="The client context that the handler finds in its context.")
@click.option("--tail", "--log-type", "tail", is_flag=True, help="Print the end of the log (4 KB) to stderr, too.")
@click.option("--async", "asynchronous", is_flag=True, help="Queue the event and return at once.")
@click.option("--dry-run", is_flag=True, help="Only check that the function exists and may be called.")
@pass_session
@click.pass_context
def command(
    ctx: click.Context,
    session: Session,
    name: str,
    payload: str | None,
    event: IO[bytes] | None,
    qualifier: str | None,
    client_context: str | None,
    tail: bool,
    asynchronous: bool,
    dry_run: bool,
) -> None:
    """Run the function NAME and print its result.

    The result goes to stdout; the report line, hints and log go to stderr. The exit status is 1 if the function failed,
    2 if the call was refused, 3 if no daemon answers.

    \b
    Examples:
      fastlam invoke hello -p '{"name": "Ada"}'
      fastlam invoke hello --event event.json --tail
      cat event.json | fastlam invoke hello --event - | jq .body
    """
    if payload is not None and event is not None:
        raise click.UsageError("Give the event once: either --payload or --event.")
    if asynchronous and dry_run:
        raise click.UsageError("--async and --dry-run exclude each other.")
    body = event.read() if event is not None else (payload if payload is not None else "{}").encode()
    kind = "Event" if asynchronous else "DryRun" if dry_run else "RequestResponse"
    headers = {"X-Amz-Invocation-Type": kind, "Content-Type": "application/json"}
    if kind == "RequestResponse":
        headers["X-Amz-Log-Type"] = "Tail"
    if client_context is not None:
        headers["X-Amz-Client-Context"] = base64.b64encode(client_context.encode()).decode()
    response = session.client.request(
        "POST",
        function_path(name, "/invocations"),
        query={"Qualifier": qualifier} if qualifier else None,
        headers=headers,
        body=body,
    )
    if kind == "Event":
        click.echo(f"accepted, request {response.headers.get('x-amzn-RequestId', '?')}", err=True)
    elif kind == "DryRun":
        click.echo(f"{name} exists and may be invoked", err=True)
    else:
        _print_result(response.body)
        _print_log(response, whole=tail)
        if response.headers.get("X-Amz-Function-Error"):
            _print_hint(name, response.body)
            ctx.exit(EXIT_FUNCTION_ERROR)


def _print_result(body: bytes) -> None:
    """The very bytes of the function's result, and a newline so that a prompt follows on its own line."""
    stdout = sys.stdout.buffer
    stdout.write(body if body.endswith(b"\n") else body + b"\n")
    stdout.flush()


def _print_log(response: Response, *, whole: bool) -> None:
    try:
        log = base64.b64decode(response.headers.get("X-Amz-Log-Result", "")).decode(errors="replace")
    except binascii.Error:
        return
    for line in log.splitlines():
        if line.startswith("REPORT "):
            click.secho(line.rstrip(), err=True, dim=True)
        elif whole:
            click.echo(line, err=True)


def _print_hint(name: str, body: bytes) -> None:
    try:
        line = hint(name, json.loads(body))
    except ValueError:
        return
    if line:
        click.secho(line, fg="yellow", err=True)
