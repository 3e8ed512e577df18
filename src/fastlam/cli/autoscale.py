"""`fastlam autoscale`: lets provisioned concurrency follow its use, and the calendar."""

from __future__ import annotations

import json
from typing import Any

import click

from fastlam.cli.output import json_option, print_json, print_table
from fastlam.cli.session import Session, pass_session

_PATH = "/_fastlam/autoscaling"


@click.command("autoscale")
@click.argument("address", required=False, metavar="[NAME:QUALIFIER]")
@click.option("--min", "minimum", type=click.IntRange(1), help="Never fewer environments than this.")
@click.option("--max", "maximum", type=click.IntRange(1), help="Never more.")
@click.option("--target", type=click.FloatRange(0.1, 0.9), help="The utilization to aim at, such as 0.7.")
@click.option("--period", default=60.0, show_default=True, metavar="SECONDS", help="Between two looks at it.")
@click.option(
    "--at",
    "scheduled",
    type=(str, int, int),
    multiple=True,
    metavar="SCHEDULE MIN MAX",
    help="When the bounds become others: at(...), rate(...) or cron(...), in UTC. May be repeated.",
)
@click.option("--off", is_flag=True, help="Take the setting away; the concurrency stays as it is.")
@json_option
@pass_session
def command(
    session: Session,
    address: str | None,
    minimum: int | None,
    maximum: int | None,
    target: float | None,
    period: float,
    scheduled: tuple[tuple[str, int, int], ...],
    off: bool,
    as_json: bool,
) -> None:
    """Scale the provisioned concurrency of a version or alias; without arguments, list what is set.

    \b
    Examples:
      fastlam autoscale hello:live --min 2 --max 20 --target 0.7
      fastlam autoscale hello:live --min 1 --max 9 --at 'cron(0 8 ? * MON-FRI *)' 5 9 --at 'cron(0 18 * * ? *)' 1 9
      fastlam autoscale hello:live --off
    """
    if address is None:
        _show(session, as_json)
        return
    name, colon, qualifier = address.rpartition(":")
    if not colon:
        raise click.UsageError(f"{address!r} names no version or alias: write NAME:QUALIFIER.")
    query = {"function": name, "qualifier": qualifier}
    if off:
        session.client.request("DELETE", _PATH, query=query)
        click.echo(f"{address} is not scaled any more")
        return
    if minimum is None or maximum is None:
        raise click.UsageError("Give --min and --max.")
    setting: dict[str, Any] = {"minimum": minimum, "maximum": maximum, "period_seconds": period}
    if target is not None:
        setting["target_utilization"] = target
    setting["scheduled"] = [
        {"name": schedule, "schedule": schedule, "minimum": least, "maximum": most}
        for schedule, least, most in scheduled
    ]
    session.client.request("PUT", _PATH, query=query, body=json.dumps(setting).encode())
    click.echo(f"{address} is scaled between {minimum} and {maximum}")


def _show(session: Session, as_json: bool) -> None:
    settings = session.client.request("GET", _PATH).json()["settings"]
    if as_json:
        print_json(settings)
        return
    if not settings:
        click.echo("Nothing is scaled: see fastlam autoscale --help.", err=True)
        return
    print_table(
        ("function", "min", "max", "target", "scheduled"),
        [
            (
                f"{one['function']}:{one['qualifier']}",
                str(one["minimum"]),
                str(one["maximum"]),
                str(one["target_utilization"] or "-"),
                ", ".join(action["schedule"] for action in one["scheduled"]) or "-",
            )
            for one in settings
        ],
    )
