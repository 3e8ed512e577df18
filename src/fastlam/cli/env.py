"""`fastlam env`: the variables that point AWS SDKs and tools at the daemon."""

from __future__ import annotations

import os
import shlex
from typing import Final

import click

from fastlam.cli.output import json_option, print_json
from fastlam.cli.session import NoDaemon, Session, pass_session
from fastlam.config import DEFAULT_ACCOUNT, DEFAULT_REGION

SECRET: Final = "fastlam"  # any will do: nothing is verified


def variables(session: Session) -> dict[str, str]:
    """Endpoint, region and stand-in keys. The access key id is the account id, which is how the daemon learns it."""
    account, region = session.account, session.region
    if account is None or region is None:
        try:
            health = session.client.health()
        except NoDaemon:
            health = {"account": DEFAULT_ACCOUNT, "region": DEFAULT_REGION}
            click.echo(f"(no daemon answers at {session.endpoint_url} yet)", err=True)
        account, region = account or health["account"], region or health["region"]
    return {
        "AWS_ENDPOINT_URL": session.endpoint_url,  # other services: forwarded, or refused in one clear sentence
        "AWS_ENDPOINT_URL_LAMBDA": session.endpoint_url,
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "AWS_ACCESS_KEY_ID": account,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }


@click.command("env")
@click.option(
    "--shell",
    type=click.Choice(["bash", "fish"]),
    help="Syntax to print; bash also serves sh and zsh [default: from $SHELL].",
)
@json_option
@pass_session
def command(session: Session, shell: str | None, as_json: bool) -> None:
    """Print the variables that make boto3, the aws command line and every other AWS SDK talk to the daemon.

    \b
    Examples:
      eval "$(fastlam env)"                  in bash, zsh, sh
      fastlam env | source                   in fish
      fastlam env --json
    """
    found = variables(session)
    if as_json:
        print_json(found)
        return
    fish = (shell or os.path.basename(os.environ.get("SHELL", ""))) == "fish"
    for name, value in found.items():
        click.echo(f"set -gx {name} {shlex.quote(value)};" if fish else f"export {name}={shlex.quote(value)}")
