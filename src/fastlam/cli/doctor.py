"""`fastlam doctor`: what this machine permits, and which paths fastlam takes because of it."""

from __future__ import annotations

from dataclasses import asdict

import click

from fastlam.cli import probes
from fastlam.cli.output import json_option, print_json, print_table
from fastlam.cli.session import CommandError, NoDaemon, Session, pass_session


@click.command("doctor")
@json_option
@pass_session
def command(session: Session, as_json: bool) -> None:
    """Show what this machine permits and which paths are active. Every line was really tried.

    The exit status is 1 if something is missing that fastlam cannot run without.

    \b
    Examples:
      fastlam doctor
      fastlam doctor --json | jq '.[] | select(.works == false)'
    """
    findings = examine(session)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_table(
            ("what", "works", "detail"),
            [(one.topic, "" if one.works is None else "yes" if one.works else "no", one.detail) for one in findings],
        )
    missing = [one.topic for one in findings if one.required and one.works is False]
    if missing:
        raise CommandError(f"fastlam cannot run here: {', '.join(missing)} failed (docs/howto/install.md).")


def examine(session: Session) -> list[probes.Finding]:
    return [
        probes.kernel(),
        probes.processors(),
        probes.interpreter(),
        probes.native_core(),
        probes.libzmq(),
        probes.memfd(),
        probes.pidfd(),
        probes.subreaper(),
        probes.open_files(),
        *probes.walls(),
        *probes.runtimes(),
        probes.aws_command_line(),
        _daemon(session),
    ]


def _daemon(session: Session) -> probes.Finding:
    try:
        health = session.client.health()
    except NoDaemon:
        return probes.Finding("daemon", None, f"none answers at {session.endpoint_url}")
    return probes.Finding(
        "daemon", True, f"fastlam {health['version']} at {session.endpoint_url} (pid {health['pid']})"
    )
