"""`fastlam aws`: the aws command line, pointed at the daemon."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from fastlam.cli.env import variables
from fastlam.cli.session import CommandError, Session, pass_session


def find_aws() -> str | None:
    """The aws beside this interpreter, else on PATH."""
    beside = Path(sys.executable).with_name("aws")
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("aws")


@click.command("aws", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="ARGS...")
@pass_session
def command(session: Session, arguments: tuple[str, ...]) -> None:
    """Run the aws command line with the daemon's endpoint, region and keys set.

    \b
    Examples:
      fastlam aws lambda list-functions
      fastlam aws lambda invoke --function-name hello --payload '{}' \\
          --cli-binary-format raw-in-base64-out /dev/stdout
    """
    program = find_aws()
    if program is None:
        raise CommandError('The aws command line is not installed: pip install "fastlam[aws]".')
    sys.stdout.flush()
    kept = {name: value for name, value in os.environ.items() if name not in ("AWS_PROFILE", "AWS_SESSION_TOKEN")}
    os.execve(program, ["aws", *arguments], {**kept, **variables(session)})
