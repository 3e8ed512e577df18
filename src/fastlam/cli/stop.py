"""`fastlam stop`: ends the daemon by SIGTERM and waits until it is gone."""

from __future__ import annotations

import ipaddress
import os
import select
import signal
from pathlib import Path

import click

from fastlam.cli.session import CommandError, Session, pass_session


@click.command("stop")
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for invocations that run.",
)
@pass_session
def command(session: Session, timeout: float) -> None:
    """Stop the daemon. It takes no more calls, lets running invocations finish, and ends.

    \b
    Examples:
      fastlam stop
      fastlam --endpoint-url http://127.0.0.1:4600 stop
    """
    client = session.client
    health = client.health()
    if not _is_local(client.host):
        raise CommandError(f"The daemon at {session.endpoint_url} runs on another machine: stop it there.")
    pid = int(health["pid"])
    try:
        descriptor = os.pidfd_open(pid)
    except OSError as error:
        raise CommandError(f"The daemon's process {pid} cannot be reached from here: {error.strerror}.") from error
    try:
        if b"fastlam" not in _command_line(pid):  # a forwarded port of a container: the number means another process
            raise CommandError(f"The daemon at {session.endpoint_url} runs in another container: stop it there.")
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        if not poller.poll(timeout * 1000):
            raise CommandError(f"The daemon (pid {pid}) has not ended within {timeout:g} s: invocations still run.")
    except PermissionError as error:
        raise CommandError(f"The daemon (pid {pid}) belongs to another user: stop it as that user.") from error
    finally:
        os.close(descriptor)
    click.echo(f"stopped (pid {pid})")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
