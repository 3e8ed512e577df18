"""`fastlam rm`: deletes functions."""

from __future__ import annotations

import click

from fastlam.cli.client import function_path
from fastlam.cli.session import ApiFailure, Session, pass_session


@click.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@pass_session
@click.pass_context
def command(ctx: click.Context, session: Session, names: tuple[str, ...]) -> None:
    """Delete functions. Invocations that run may finish.

    \b
    Examples:
      fastlam rm hello
      fastlam ls --json | jq -r '.[].FunctionName' | xargs fastlam rm
    """
    failure = None
    for name in names:
        try:
            session.client.call("DELETE", function_path(name))
        except ApiFailure as error:
            failure = error
            error.show()
        else:
            click.echo(f"deleted {name}")
    if failure is not None:
        ctx.exit(failure.exit_code)
