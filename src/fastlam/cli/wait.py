"""`fastlam wait`: until the daemon answers."""

from __future__ import annotations

import time
from typing import Final

import click

from fastlam.cli.session import NoDaemon, Session, pass_session

POLL_SECONDS: Final = 0.05


@click.command("wait")
@click.option("--timeout", default=30.0, show_default=True, metavar="SECONDS", help="Give up after this time.")
@pass_session
def command(session: Session, timeout: float) -> None:
    """Wait until the daemon answers; exit status 3 if it does not in time.

    \b
    Example, in a CI script:
      fastlam serve & fastlam wait && fastlam deploy hello
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            health = session.client.health()
        except NoDaemon:
            if time.monotonic() >= deadline:
                raise
            time.sleep(POLL_SECONDS)
        else:
            click.echo(f"fastlam {health['version']} answers at {session.endpoint_url} (pid {health['pid']})")
            return
