"""The daemon's API over http.client: JSON in and out, failures as the exceptions of `session`.

Each request has its own connection: they are few, and so a daemon that drains has nothing of ours to wait for.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import click

from fastlam.cli.session import ApiFailure, CommandError, NoAnswer, NoDaemon
from fastlam.limits import TIMEOUT_SECONDS_MAX

FUNCTIONS_PATH: Final = "/2015-03-31/functions"
CONNECT_SECONDS: Final = 5
ANSWER_SECONDS: Final = TIMEOUT_SECONDS_MAX + 120  # the longest function, its queueing and start


class Response(NamedTuple):
    """One answer that is no error."""

    status: int
    headers: http.client.HTTPMessage  # case-insensitive
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Speaks to one daemon, in the name of an account and region or as the daemon's defaults."""

    def __init__(self, endpoint_url: str, account: str | None, region: str | None) -> None:
        self.endpoint_url = endpoint_url
        self._account, self._region = account, region
        self._authorization: str | None = None
        try:
            parts = urlsplit(endpoint_url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in ("http", "https"):
            raise click.UsageError(f"{endpoint_url!r} is no URL: give one such as http://127.0.0.1:4566.")
        self.host = host
        self._port = port
        self._prefix = parts.path.rstrip("/")
        self._connection_class = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        signed: bool = True,
    ) -> Response:
        """Sends one request. ApiFailure for an error answer, NoDaemon when nobody is there."""
        sent = {"Accept": "application/json", "Connection": "close", **(headers or {})}
        if signed and (self._account or self._region):
            sent["Authorization"] = self._authorize()
        target = self._prefix + path + (f"?{urlencode(query)}" if query else "")
        connection = self._connect()
        try:
            connection.request(method, target, body=body, headers=sent)
            answer = connection.getresponse()
            response = Response(answer.status, answer.headers, answer.read())
        except TimeoutError as error:
            raise NoAnswer(f"The daemon did not answer within {ANSWER_SECONDS} s.") from error
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"What listens at {self.endpoint_url} ended the connection without an answer.") from error
        finally:
            connection.close()
        if response.status >= 400:
            raise _failure(response)
        return response

    def _connect(self) -> http.client.HTTPConnection:
        connection = self._connection_class(self.host, self._port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
        except OSError as error:
            raise NoDaemon(self.endpoint_url) from error
        sock: socket.socket = connection.sock
        sock.settimeout(ANSWER_SECONDS)
        return connection

    def _authorize(self) -> str:
        """Looks like Signature Version 4 so far that account and region can be read from it; nothing is signed."""
        if self._authorization is None:
            region = self._region or self.health()["region"]
            self._authorization = (
                f"AWS4-HMAC-SHA256 Credential={self._account or 'fastlam'}/20260101/{region}/lambda/aws4_request,"
                " SignedHeaders=host, Signature=0"
            )
        return self._authorization

    # --- operations ------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        try:
            health = self.request("GET", "/_fastlam/health", signed=False).json()
        except (CommandError, ValueError):
            health = None
        if not isinstance(health, dict) or "pid" not in health:
            raise NoDaemon(self.endpoint_url)  # some other server
        return health

    def call(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> Any:
        """An operation with JSON in and out; None where the answer has no body."""
        body = None if document is None else json.dumps(document).encode()
        response = self.request(method, path, body=body, headers={"Content-Type": "application/json"})
        return response.json() if response.body else None

    def functions(self) -> list[dict[str, Any]]:
        """The configurations of all functions, page by page."""
        found: list[dict[str, Any]] = []
        query = {"MaxItems": "50"}
        while True:
            page = self.request("GET", FUNCTIONS_PATH, query=query).json()
            found += page["Functions"]
            if not page.get("NextMarker"):
                return found
            query["Marker"] = page["NextMarker"]

    def configuration(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.call("GET", function_path(name, "/configuration"))
        return found


def function_path(name: str, rest: str = "") -> str:
    return f"{FUNCTIONS_PATH}/{quote(name, safe='')}{rest}"


def _failure(response: Response) -> ApiFailure:
    code = response.headers.get("x-amzn-ErrorType", "").partition(":")[0]
    try:
        document = response.json()
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    message = document.get("message") or document.get("Message") or http.client.responses.get(response.status, "")
    if reason := document.get("Reason"):
        message = f"{message} ({reason})"
    return ApiFailure(response.status, code or f"HTTP {response.status}", " ".join(str(message).split()))
