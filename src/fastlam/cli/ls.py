"""`fastlam ls`: the functions."""

from __future__ import annotations

import click

from fastlam.cli.output import human_bytes, json_option, print_json, print_table
from fastlam.cli.session import Session, pass_session


@click.command("ls")
@json_option
@pass_session
def command(session: Session, as_json: bool) -> None:
    """List the functions of the account and region.

    \b
    Examples:
      fastlam ls
      fastlam ls --json | jq -r '.[].FunctionName'
    """
    functions = session.client.functions()
    if as_json:
        print_json(functions)
        return
    if not functions:
        click.echo("No functions yet: 'fastlam init hello' and 'fastlam deploy hello' make one.", err=True)
        return
    print_table(
        ("name", "runtime", "handler", "memory", "timeout", "code", "modified"),
        [
            (
                one["FunctionName"],
                one.get("Runtime", ""),
                one.get("Handler", ""),
                f"{one['MemorySize']} MB",
                f"{one['Timeout']} s",
                human_bytes(one["CodeSize"]),
                one["LastModified"].partition(".")[0],
            )
            for one in functions
        ],
    )
