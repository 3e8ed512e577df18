"""What every command shares: where the daemon is, as whom to speak to it, how failures end the program."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from fastlam.cli.client import Client

EXIT_FUNCTION_ERROR: Final = 1  # the function failed, or the command itself
EXIT_API_ERROR: Final = 2  # the API refused; also click's status for wrong usage
EXIT_NO_DAEMON: Final = 3


class CommandError(click.ClickException):
    """Ends the command with one line on stderr."""

    exit_code = EXIT_FUNCTION_ERROR

    def show(self, file: IO[Any] | None = None) -> None:
        click.secho(self.message, fg="red", err=True, file=file)


class ApiFailure(CommandError):
    """An error answer of the API, shown as `Code: message`."""

    exit_code = EXIT_API_ERROR

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code


class NoDaemon(CommandError):
    """Nothing answers at the endpoint."""

    exit_code = EXIT_NO_DAEMON

    def __init__(self, endpoint_url: str) -> None:
        super().__init__(
            f"No fastlam daemon answers at {endpoint_url}: start one with 'fastlam serve --detach', or name another"
            " with --endpoint-url or FASTLAM_ENDPOINT."
        )


class NoAnswer(CommandError):
    """Something took the request and did not answer it."""

    exit_code = EXIT_NO_DAEMON


@dataclass
class Session:
    """The global options; `client` is made when a command first speaks to the daemon."""

    endpoint_url: str
    account: str | None = None
    region: str | None = None

    def __post_init__(self) -> None:
        self.endpoint_url = self.endpoint_url.rstrip("/")
        if self.account is not None and re.fullmatch(r"[0-9]{12}", self.account) is None:
            raise click.UsageError(f"--account {self.account!r} is no account id: give twelve digits.")

    @cached_property
    def client(self) -> Client:
        from fastlam.cli.client import Client

        return Client(self.endpoint_url, self.account, self.region)


pass_session = click.make_pass_decorator(Session)
