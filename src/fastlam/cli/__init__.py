"""The `fastlam` command. A command's module is imported only when that command runs, so that help and `invoke` start
fast.
"""

from __future__ import annotations

import importlib
import os
from typing import Final, NamedTuple

import click

DEFAULT_ENDPOINT: Final = "http://127.0.0.1:4566"


class Entry(NamedTuple):
    """One command as the overview shows it; its module `fastlam.cli.<module>` holds it under the name `command`."""

    section: str
    module: str
    summary: str


COMMANDS: Final = {
    "serve": Entry("Daemon", "serve", "Start the daemon that answers the AWS Lambda API on this machine."),
    "wait": Entry("Daemon", "wait", "Wait until the daemon answers."),
    "stop": Entry("Daemon", "stop", "Stop the daemon; what runs may finish."),
    "clock": Entry("Daemon", "clock", "Show the daemon's clock, or let time pass on a virtual one."),
    "init": Entry("Functions", "init", "Write a small project to start from."),
    "deploy": Entry("Functions", "deploy", "Create or update functions from a directory, file, zip or template."),
    "export": Entry("Functions", "export", "Write a function as a SAM template with its code and layers."),
    "invoke": Entry("Functions", "invoke", "Run a function and print its result."),
    "ls": Entry("Functions", "ls", "List the functions."),
    "logs": Entry("Functions", "logs", "Print what a function has logged."),
    "ps": Entry("Functions", "ps", "List the execution environments and their states."),
    "queue": Entry("Functions", "queue", "Show what waits: asynchronous events, and records for destinations."),
    "sources": Entry("Functions", "sources", "List, add and remove what calls functions: queues, streams, topics."),
    "autoscale": Entry("Functions", "autoscale", "Let provisioned concurrency follow its use, or the calendar."),
    "rm": Entry("Functions", "rm", "Delete functions."),
    "env": Entry("Tools", "env", "Print the variables that point AWS SDKs and tools at the daemon."),
    "aws": Entry("Tools", "aws", "Run the aws command line against the daemon."),
    "simulate": Entry("Tools", "simulate", "Simulate the dispatcher under load past the size of this machine."),
    "doctor": Entry("Tools", "doctor", "Show what this machine permits and which paths are active."),
}


class Commands(click.Group):
    """The command group, from the table above instead of from imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = importlib.import_module(f"fastlam.cli.{entry.module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [(name, entry.summary) for name, entry in COMMANDS.items() if entry.section == section]
                )


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from fastlam.version import VERSION

        click.echo(f"fastlam {VERSION}")
        ctx.exit()


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="'fastlam COMMAND --help' explains a command, with examples.",
)
@click.option(
    "--endpoint-url",
    envvar="FASTLAM_ENDPOINT",
    default=DEFAULT_ENDPOINT,
    show_default=True,
    show_envvar=True,
    help="Where the daemon answers.",
)
@click.option(
    "--account", envvar="FASTLAM_ACCOUNT", help="Account of the functions, 12 digits [default: the daemon's]."
)
@click.option("--region", envvar="FASTLAM_REGION", help="Region of the functions [default: the daemon's].")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
@click.pass_context
def cli(ctx: click.Context, endpoint_url: str, account: str | None, region: str | None) -> None:
    """Run AWS Lambda functions on your own machine, without Docker.

    \b
    Five lines to a first result:
      fastlam serve --detach
      fastlam init hello
      fastlam deploy hello
      fastlam invoke hello -p '{"name": "Ada"}'
      fastlam stop
    """
    from fastlam.cli.session import Session

    if os.environ.get("NO_COLOR"):
        ctx.color = False
    ctx.obj = Session(endpoint_url, account, region)


def main() -> None:
    """Entry point of the console script."""
    cli(prog_name="fastlam")
