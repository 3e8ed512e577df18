"""`fastlam init`: a small project to start from."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

import click

from fastlam.cli.session import CommandError

FILES: Final = ("app.py", "event.json", "requirements.txt", "README.md", "test_app.py")


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path())
def command(directory: Path) -> None:
    """Write a small project into DIRECTORY (this one by default): a handler, an event, a test.

    \b
    Example:
      fastlam init hello && fastlam deploy hello && fastlam invoke hello --event hello/event.json
    """
    existing = [name for name in FILES if (directory / name).exists()]
    if existing:
        raise CommandError(f"{directory} already has {', '.join(existing)}: nothing was written.")
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", directory.absolute().name).strip("-")[:64] or "hello"
    folder = str(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for file_name in FILES:
        template = Template((files("fastlam.cli") / "templates" / f"{file_name}.template").read_text())
        (directory / file_name).write_text(template.substitute(name=name, folder=folder))
    click.echo(f"wrote {', '.join(FILES)} to {directory}")
    click.echo(f"next: fastlam deploy {folder}", err=True)
