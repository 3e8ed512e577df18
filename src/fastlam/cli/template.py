"""The part of `fastlam deploy` that takes a template."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from fastlam.cli.output import print_json
from fastlam.cli.session import CommandError, Session
from fastlam.cli.transport import failures, service
from fastlam.deploy.documents import read_document
from fastlam.deploy.made import Context, Packaging
from fastlam.deploy.stack import Deployed, Stack
from fastlam.deploy.template import Place


def deploy(
    session: Session,
    path: Path,
    packaging: tuple[Callable[[Path, str], bytes], Callable[[Path], bytes]],
    overrides: Mapping[str, str],
    stack_name: str | None,
    skip_unsupported: bool,
    as_json: bool,
) -> None:
    """Makes what the template describes, and says what came of each part."""
    done: list[Deployed] = []

    def report(deployed: Deployed) -> None:
        done.append(deployed)
        if not as_json:
            click.echo(f"{deployed.name}: {'; '.join(deployed.changes) or 'unchanged'}")

    with failures():
        document = read_document(path)
        api = service(session)
        name = stack_name or re.sub(r"[^A-Za-z0-9-]+", "-", path.parent.name).strip("-") or "stack"
        stack = Stack(document, Place(api.account, api.region, name), overrides)
        _say_unsupported(stack.unsupported, skip_unsupported)
        stack.deploy(Context(api, path.parent, Packaging(*packaging)), report)
        outputs = stack.outputs()
    if as_json:
        resources = [{"LogicalId": one.name, "Type": one.type, "Id": one.id, "Changes": one.changes} for one in done]
        print_json({"Resources": resources, "Outputs": outputs})
        return
    for name, value in outputs.items():
        click.echo(f"  {name} = {value}")
    _say_next(done)


def _say_unsupported(unsupported: Mapping[str, str], skip: bool) -> None:
    if not unsupported:
        return
    named = ", ".join(f"{name} ({kind})" for name, kind in unsupported.items())
    if not skip:
        raise CommandError(f"fastlam has nothing for {named}: --skip-unsupported deploys the rest.")
    click.echo(f"left out: {named}", err=True)


def _say_next(done: list[Deployed]) -> None:
    functions: list[Any] = [one.id for one in done if one.type == "AWS::Lambda::Function"]
    if functions:
        click.echo(f"next: fastlam invoke {functions[0]} -p '{{}}'", err=True)
