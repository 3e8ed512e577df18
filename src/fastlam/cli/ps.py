"""`fastlam ps`: the execution environments."""

from __future__ import annotations

from typing import Final

import click

from fastlam.cli.output import human_seconds, json_option, print_json, print_table
from fastlam.cli.session import Session, pass_session

_MADE: Final = {"on-demand": "on demand", "provisioned-concurrency": "ahead", "snap-start": "restored"}


@click.command("ps")
@json_option
@pass_session
def command(session: Session, as_json: bool) -> None:
    """List the execution environments of the daemon: whose they are, whether they were made ahead (provisioned
    concurrency), on demand or from a snapshot, whose template is listed too; their state, process and memory.

    \b
    Examples:
      fastlam ps
      fastlam ps --json | jq 'map(select(.state == "busy")) | length'
    """
    environments = session.client.request("GET", "/_fastlam/environments").json()["environments"]
    if as_json:
        print_json(environments)
        return
    if not environments:
        click.echo("No environments: the first invocation of a function starts one.", err=True)
        return
    print_table(
        ("id", "function", "made", "state", "pid", "memory", "invocations", "age", "idle"),
        [
            (
                str(one["id"]),
                f"{one['function']}:{one['version']}",
                "template" if one["template"] else _MADE.get(one["initialization_type"], "-"),
                one["state"],
                str(one["pid"] or "-"),
                f"{one['memory_peak_mb']} MB",
                str(one["invocations"]),
                human_seconds(one["age_seconds"]),
                human_seconds(one["idle_seconds"]) if one["state"] == "idle" else "-",
            )
            for one in environments
        ],
    )
