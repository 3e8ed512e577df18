"""`fastlam export`: a function as files that deploy it again."""

from __future__ import annotations

from pathlib import Path

import click

from fastlam.cli.output import human_bytes
from fastlam.cli.session import CommandError, Session, pass_session

TEMPLATE = "template.yaml"


@click.command("export")
@click.argument("name")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, file_okay=False), help="Where to write [default: NAME-export]."
)
@click.option("--qualifier", help="Version or alias to export [default: $LATEST].")
@click.option(
    "--with-environment",
    is_flag=True,
    help="Write the values of environment variables too; otherwise they are parameters of the template.",
)
@click.option("--force", is_flag=True, help="Write over what is there.")
@pass_session
def command(
    session: Session, name: str, output: Path | None, qualifier: str | None, with_environment: bool, force: bool
) -> None:
    """Write a function as a SAM template with its code and layers, which 'fastlam deploy' and 'sam deploy' take.

    \b
    Examples:
      fastlam export hello && fastlam --endpoint-url http://127.0.0.1:4567 deploy hello-export/template.yaml
      fastlam export hello --qualifier live --output build/hello --with-environment
      cd hello-export && sam deploy --guided --parameter-overrides ExecutionRole=
    """
    from fastlam.cli.transport import failures, service
    from fastlam.deploy.export import export_function

    with failures():
        exported = export_function(service(session), name, qualifier, with_environment=with_environment)
    folder = output or Path(f"{exported.name}-export")
    files = {TEMPLATE: exported.template.encode(), **exported.files}
    present = [path for path in files if (folder / path).exists()]
    if present and not force:
        raise CommandError(f"{folder} already has {', '.join(present)}: give another --output, or --force.")
    try:
        for path, data in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
            if with_environment:
                target.chmod(0o600)  # before there is a secret in it
            target.write_bytes(data)
    except OSError as error:
        raise CommandError(f"{error.filename or folder} cannot be written: {error.strerror}.") from error
    for path, data in files.items():
        click.echo(f"wrote {folder / path} ({human_bytes(len(data))})")
    for note in exported.notes:
        click.echo(f"not in the template: {note}", err=True)
    click.echo(f"next: fastlam deploy {folder / TEMPLATE}", err=True)
