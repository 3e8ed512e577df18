"""`fastlam deploy`: creates or updates a function, or what a template describes, and waits until it can be invoked."""

from __future__ import annotations

import base64
import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from fastlam.cli.client import FUNCTIONS_PATH, Client, function_path
from fastlam.cli.output import configuration_line, human_bytes, json_option, print_json
from fastlam.cli.package import collect, default_handler, package, zip_files
from fastlam.cli.session import ApiFailure, CommandError, Session, pass_session
from fastlam.limits import ZIP_BYTES_MAX

POLL_SECONDS: Final = 0.02
SETTLE_SECONDS: Final = 300
TEMPLATES: Final = (".yaml", ".yml", ".json", ".template")
OWN_RUNTIME: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"


@click.command("deploy")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--name", help="Name of the function [default: the directory's or file's].")
@click.option("--handler", help="module.function [default: app.handler, or handler in the given file].")
@click.option("--runtime", help=f"Lambda runtime of a new function [default: {OWN_RUNTIME}].")
@click.option(
    "--timeout", type=int, metavar="SECONDS", help="Longest time one invocation may take [Lambda's default: 3]."
)
@click.option("--memory", type=int, metavar="MB", help="Memory of one environment [Lambda's default: 128].")
@click.option("--env", "environment", multiple=True, metavar="KEY=VALUE", help="Environment variable; repeat for more.")
@click.option("--role", metavar="ARN", help="Execution role [default of a new function: role/lambda of the account].")
@click.option(
    "--parameter-overrides",
    "parameters",
    multiple=True,
    metavar="KEY=VALUE",
    help="Of a template: value of a parameter; repeat for more.",
)
@click.option("--stack-name", metavar="NAME", help="Of a template: what AWS::StackName is [default: its directory's].")
@click.option("--skip-unsupported", is_flag=True, help="Of a template: leave out what fastlam does not have.")
@json_option
@pass_session
@click.pass_context
def command(
    ctx: click.Context,
    session: Session,
    path: Path,
    name: str | None,
    handler: str | None,
    runtime: str | None,
    timeout: int | None,
    memory: int | None,
    environment: tuple[str, ...],
    role: str | None,
    parameters: tuple[str, ...],
    stack_name: str | None,
    skip_unsupported: bool,
    as_json: bool,
) -> None:
    """Create or update a function from PATH: a directory (its requirements.txt is installed), a file, or a zip.
    What is not given stays as it is. --env replaces all variables of the function.

    Or everything of Lambda that a SAM or CloudFormation template describes (.yaml, .json): functions, layers, versions,
    aliases, permissions, URLs, event settings. What the template leaves out gets its default.

    \b
    Examples:
      fastlam deploy hello
      fastlam deploy handler.py --handler handler.main --timeout 30 --memory 512
      fastlam deploy build.zip --name api --handler app.handler --env STAGE=dev --env TABLE=orders
      fastlam deploy template.yaml --parameter-overrides Stage=dev --skip-unsupported
    """
    path = Path(os.path.abspath(path))
    _refuse_foreign_options(ctx, path)
    if _is_template(path):
        from fastlam.cli import template

        packaging = _package_function, _package_layer
        overrides = _pairs(parameters, "--parameter-overrides")
        template.deploy(session, path, packaging, overrides, stack_name, skip_unsupported, as_json)
        return
    name = name or (path.name if path.is_dir() else path.stem)
    wanted = {
        "Handler": handler,
        "Runtime": runtime,
        "Timeout": timeout,
        "MemorySize": memory,
        "Role": role,
        "Environment": {"Variables": _pairs(environment, "--env")} if environment else None,
    }
    wanted = {key: value for key, value in wanted.items() if value is not None}
    client = session.client
    current = _current(client, name)
    effective_runtime = runtime or (current or {}).get("Runtime", OWN_RUNTIME)
    code = package(path, effective_runtime)
    if len(code) > ZIP_BYTES_MAX:
        raise CommandError(
            f"The package has {human_bytes(len(code))}; Lambda takes {human_bytes(ZIP_BYTES_MAX)} at most: leave"
            " packages"
            " or data out."
        )
    if current is None:
        wanted.setdefault("Handler", _guessed_handler(path))
        changes = [_create(client, name, wanted, code, session.account)]
    else:
        changes = _update(client, name, current, wanted, code)
    configuration = _settle(client, name)
    if as_json:
        print_json(configuration)
    else:
        click.echo("\n".join(changes) or f"{name} is unchanged")
        click.echo(f"  {configuration_line(configuration)}, code {human_bytes(configuration['CodeSize'])}")
        click.echo(f"next: fastlam invoke {name} -p '{{}}'", err=True)


def _is_template(path: Path) -> bool:
    return path.is_file() and path.suffix in TEMPLATES


def _refuse_foreign_options(ctx: click.Context, path: Path) -> None:
    """Options of the one kind of PATH say nothing about the other."""
    is_template = _is_template(path)
    for parameter in ctx.command.params:
        given = parameter.name is not None and ctx.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT
        if not given or parameter.name in ("path", "as_json"):
            continue
        if is_template != (parameter.name in ("parameters", "stack_name", "skip_unsupported")):
            kind = "a template" if is_template else "no template"
            raise click.UsageError(f"{parameter.opts[0]} is not for {path.name}, which is {kind}.")


def _package_function(path: Path, runtime: str) -> bytes:
    """What `sam build` has made holds its requirements already."""
    if path.is_dir() and ".aws-sam" in path.parts:
        return zip_files(collect(path))
    return package(path, runtime)


def _package_layer(path: Path) -> bytes:
    return zip_files(collect(path)) if path.is_dir() else package(path, "")


def _pairs(pairs: tuple[str, ...], option: str) -> dict[str, str]:
    found = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE.", param_hint=option)
        found[key] = value
    return found


def _guessed_handler(path: Path) -> str:
    handler = default_handler(path)
    template = next(
        (path / f"template{suffix}" for suffix in TEMPLATES if (path / f"template{suffix}").is_file()), None
    )
    if handler is None and template is not None:
        raise click.UsageError(f"{path} holds a template: fastlam deploy {template}")
    if handler is None:
        raise click.UsageError(
            "Which function is the handler? Give --handler module.function, e.g. --handler app.handler."
        )
    return handler


def _current(client: Client, name: str) -> dict[str, Any] | None:
    try:
        return client.configuration(name)
    except ApiFailure as failure:
        if failure.status == 404:
            return None
        raise


def _create(client: Client, name: str, wanted: dict[str, Any], code: bytes, account: str | None) -> str:
    account = account or client.health()["account"]
    document = {
        "FunctionName": name,
        "Runtime": OWN_RUNTIME,
        "Role": f"arn:aws:iam::{account}:role/lambda",
        "Code": {"ZipFile": base64.b64encode(code).decode()},
        **wanted,
    }
    client.call("POST", FUNCTIONS_PATH, document)
    return f"created {name}"


def _update(client: Client, name: str, current: dict[str, Any], wanted: dict[str, Any], code: bytes) -> list[str]:
    """Sends what differs, and says it."""
    changes = []
    if base64.b64encode(hashlib.sha256(code).digest()).decode() != current["CodeSha256"]:
        _await_quiet(client, name)
        client.call("PUT", function_path(name, "/code"), {"ZipFile": base64.b64encode(code).decode()})
        changes.append(f"updated the code of {name}: {human_bytes(current['CodeSize'])} -> {human_bytes(len(code))}")
    differing = {key: value for key, value in wanted.items() if value != current.get(key)}
    if differing:
        _await_quiet(client, name)
        client.call("PUT", function_path(name, "/configuration"), differing)
        for key, value in differing.items():
            changes.append(f"updated {name}: {_change(key, current.get(key), value)}")
    return changes


def _change(key: str, old: Any, new: Any) -> str:
    if key == "Environment":  # values may be secrets
        names = ", ".join(sorted(new["Variables"]))
        return f"environment variables are now {names}"
    return f"{key} {old} -> {new}"


def _await_quiet(client: Client, name: str) -> dict[str, Any]:
    """Waits until the function is neither being created nor updated, well or badly."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        configuration = client.configuration(name)
        state, update = configuration.get("State"), configuration.get("LastUpdateStatus")
        if state != "Pending" and update != "InProgress":
            return configuration
        if time.monotonic() > deadline:
            raise CommandError(f"{name} is still {state}, its update {update}, after {SETTLE_SECONDS} s.")
        time.sleep(POLL_SECONDS)


def _settle(client: Client, name: str) -> dict[str, Any]:
    """Waits until the function can be invoked."""
    configuration = _await_quiet(client, name)
    for status, reason in (("State", "StateReason"), ("LastUpdateStatus", "LastUpdateStatusReason")):
        if configuration.get(status) == "Failed":
            raise CommandError(f"{name} cannot be used: {configuration.get(reason, 'no reason is given')}")
    return configuration
