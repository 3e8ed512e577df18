"""What the commands that work with templates share: the API as `fastlam.deploy` wants it, and its failures as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from fastlam.cli.session import ApiFailure, CommandError, Session
from fastlam.deploy.service import Refused, Service, Transport
from fastlam.errors import FastlamError


def service(session: Session) -> Service:
    """The session's daemon."""
    client = session.client
    health = client.health() if session.account is None or session.region is None else {}

    def send(method: str, target: str, body: bytes | None) -> bytes:
        try:
            return client.request(method, target, body=body, headers={"Content-Type": "application/json"}).body
        except ApiFailure as failure:
            message = failure.message.removeprefix(f"{failure.code}: ")
            raise Refused(failure.status, failure.code, message) from failure

    def fetch(location: str) -> bytes:
        """Links are to the daemon: they are followed to where it is reached."""
        parts = urlsplit(location)
        return client.request("GET", parts.path + (f"?{parts.query}" if parts.query else ""), signed=False).body

    account, region = session.account or health["account"], session.region or health["region"]
    return Service(Transport(send, fetch, account, region))


@contextmanager
def failures() -> Iterator[None]:
    """What `fastlam.deploy` raises, as the command line ends with it."""
    try:
        yield
    except Refused as refusal:
        message = str(refusal).removeprefix(f"{refusal.code}: ")
        raise ApiFailure(refusal.status, refusal.code, message) from refusal
    except FastlamError as error:
        raise CommandError(str(error)) from error
