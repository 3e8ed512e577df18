"""Which pages may call: Cors in front of a handler, on a real socket, asked as browsers and others ask."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from daemon_running import Answer, bare_request
from fastlam.api.cors import Cors
from fastlam.cli.serve import _arguments, command
from fastlam.config import DaemonConfig
from fastlam.errors import FastlamError
from fastlam.http.server import Request
from http_running import Running

Fields = Mapping[str, str]


class Guarded:
    """A server with Cors in front of a handler that answers everything; `passed` are the paths that it saw."""

    def __init__(self, **options: Any) -> None:
        self.passed: list[bytes] = []
        self.running = Running(Cors(self._answer, **options))

    def _answer(self, request: Request) -> None:
        self.passed.append(request.path)
        request.respond(200, b"Content-Type: text/plain\r\n", b"done")

    def ask(self, method: str = "POST", headers: Fields | None = None, path: str = "/x") -> Answer:
        return bare_request(self.running.port, method, path, b"{}" if method == "POST" else None, headers)

    def passes(self, headers: Fields, method: str = "POST") -> Answer:
        """The answer to a request that reaches the handler."""
        seen = len(self.passed)
        answer = self.ask(method, headers)
        assert answer.status == 200, answer
        assert len(self.passed) == seen + 1
        return answer

    def refuses(self, headers: Fields, method: str = "POST") -> str:
        """The sentence in the answer to a request that does not reach the handler."""
        seen = len(self.passed)
        answer = self.ask(method, headers)
        assert answer.status == 403, answer
        assert len(self.passed) == seen
        assert answer.headers["x-amzn-errortype"] == "AccessDeniedException"
        assert "access-control-allow-origin" not in answer.headers
        message: str = json.loads(answer.body)["message"]
        assert message.endswith(".") and "\n" not in message
        return message

    def __enter__(self) -> Self:
        self.running.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:  # noqa: PYI036
        self.running.__exit__(*raised)


@pytest.fixture(scope="module")
def guarded() -> Any:
    with Guarded() as running:
        yield running


def browser(origin: str | None = None, host: str | None = None, **more: str) -> Fields:
    """Headers that a browser sends; `sec_fetch_site="cross-site"` becomes Sec-Fetch-Site."""
    fields = {"Accept-Language": "en-GB,en;q=0.9"}
    if origin is not None:
        fields["Origin"] = origin
    if host is not None:
        fields["Host"] = host
    return fields | {name.replace("_", "-"): value for name, value in more.items()}


# --- origins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost",
        "https://localhost",
        "http://localhost:3000",
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "http://app.localhost:5173",
        "https://abc.lambda-url.us-east-1.localhost:4566",
    ],
)
def test_pages_of_this_machine_may_call(guarded: Guarded, origin: str) -> None:
    answer = guarded.passes({"Origin": origin})
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["vary"] == "Origin"
    exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
    assert {"x-amzn-requestid", "x-amz-function-error", "x-amz-log-result", "x-amz-executed-version"} <= exposed
    assert answer.body == b"done"


@pytest.mark.parametrize(
    "origin",
    [
        "https://stranger.example",
        "http://localhost.stranger.example",
        "http://stranger-localhost",
        "http://127.0.0.1.stranger.example",
        "http://127.0.0.2:80",
        "http://localhost:3000.stranger.example",
        "http://localhost:",
        "http://localhost@stranger.example",
        "http://stranger.example#localhost",
        "http://[::2]",
        "ftp://localhost",
        "chrome-extension://abcdefghijklmnop",
        "localhost",
        "*",
        "null",
        "",
        "http://localhost, http://stranger.example",
        "http://localhost http://stranger.example",
        "http://localhöst",
        "http://localhost/" + "a" * 600,
    ],
)
def test_pages_of_others_may_not(guarded: Guarded, origin: str) -> None:
    sentence = guarded.refuses({"Origin": origin.encode().decode("latin-1")})
    if origin == "https://stranger.example":
        assert sentence == (
            "Pages of https://stranger.example may not call this daemon: start it with"
            " --cors-origin https://stranger.example to allow them."
        )


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_no_method_passes(guarded: Guarded, method: str) -> None:
    seen = len(guarded.passed)
    assert guarded.ask(method, {"Origin": "https://stranger.example"}).status == 403
    assert len(guarded.passed) == seen


def test_a_simple_post_of_a_form_is_refused(guarded: Guarded) -> None:
    """Browsers send it without asking first, and say null where the page hides where it is from."""
    for origin in ("http://stranger.example:4566", "null"):
        guarded.refuses(browser(origin, Content_Type="text/plain", Sec_Fetch_Site="cross-site"))


def test_two_origins_are_refused(guarded: Guarded) -> None:
    guarded.passes({"Origin": "http://localhost"})
    head = b"POST /x HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\norigin: http://localhost\r\n"
    with guarded.running.connect() as client:
        client.sendall(head + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 403 ")


def test_others_are_not_asked(guarded: Guarded) -> None:
    """Programs say neither where they come from nor in what language: any host name will do for them."""
    for headers in (
        {},
        {"Host": "stranger.example"},
        {"User-Agent": "Mozilla/5.0"},
        {"Authorization": "AWS4-HMAC-SHA256"},
    ):
        answer = guarded.passes(headers)
        assert "access-control-allow-origin" not in answer.headers and "vary" not in answer.headers


def test_origins_that_are_given(guarded: Guarded) -> None:
    allowed = ("https://App.example", "http://lan.example:80", "https://tls.example:443", "null", "app://one")
    with Guarded(origins=allowed) as running:
        for origin in ("https://app.example", "http://lan.example", "https://tls.example", "null", "app://one"):
            assert running.passes({"Origin": origin}).headers["access-control-allow-origin"] == origin
            guarded.refuses({"Origin": origin})
        for origin in ("http://app.example", "https://app.example:8443", "https://x.app.example", "app://two"):
            running.refuses({"Origin": origin})


def test_all_origins() -> None:
    with Guarded(origins=("*",)) as running:
        for origin in ("https://stranger.example", "null"):
            answer = running.passes(browser(origin, "stranger.example:4566", Sec_Fetch_Site="cross-site"))
            assert answer.headers["access-control-allow-origin"] == origin
        running.refuses({"Origin": "https://a.example b"})
        running.passes(browser(host="stranger.example", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors"))


# --- preflight ---------------------------------------------------------------------------------------


def preflight(origin: str, headers: str | None, **more: str) -> Fields:
    asked = {"Access-Control-Request-Method": "POST"}
    if headers is not None:
        asked["Access-Control-Request-Headers"] = headers
    return {**browser(origin), **asked, **{name.replace("_", "-"): value for name, value in more.items()}}


def test_preflight(guarded: Guarded) -> None:
    seen = len(guarded.passed)
    answer = guarded.ask("OPTIONS", preflight("http://localhost:3000", "authorization,x-amz-date, content-type"))
    assert answer.status == 204 and answer.body == b""
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert answer.headers["vary"] == "Origin"
    assert {"GET", "POST", "PUT", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    assert answer.headers["access-control-allow-headers"] == "authorization,x-amz-date, content-type"
    assert int(answer.headers["access-control-max-age"]) > 0
    assert "access-control-allow-private-network" not in answer.headers
    assert len(guarded.passed) == seen, "nobody but Cors answers it"


def test_preflight_of_a_stranger(guarded: Guarded) -> None:
    guarded.refuses(preflight("https://stranger.example", "x-amz-date"), "OPTIONS")


@pytest.mark.parametrize("headers", [None, "", "a b", "a,,b", "a;b", "é", "a" * 5000])
def test_headers_that_are_not_echoed(guarded: Guarded, headers: str | None) -> None:
    answer = guarded.ask("OPTIONS", preflight("http://localhost", headers))
    assert answer.status == 204
    assert "access-control-allow-headers" not in answer.headers


def test_a_page_of_a_public_address(guarded: Guarded) -> None:
    asked = preflight("http://localhost", None, Access_Control_Request_Private_Network="true")
    assert guarded.ask("OPTIONS", asked).headers["access-control-allow-private-network"] == "true"


def test_options_that_is_no_preflight(guarded: Guarded) -> None:
    guarded.passes({"Origin": "http://localhost"}, "OPTIONS")
    guarded.passes({"Access-Control-Request-Method": "POST"}, "OPTIONS")


# --- host names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:4566",
        "127.0.0.1",
        "[::1]:4566",
        "10.1.2.3:4566",
        "localhost:4566",
        "LOCALHOST",
        "localhost.",
        "abc.lambda-url.us-east-1.localhost:4566",
        "fastlam:4566",
        "host.docker.internal:4566",
        "lambda.us-east-1.amazonaws.com",
        socket.gethostname(),
    ],
)
def test_names_that_are_ours(guarded: Guarded, host: str) -> None:
    guarded.passes(browser(host=host), "GET")


@pytest.mark.parametrize(
    "host",
    [
        "stranger.example:4566",
        "127.0.0.1.stranger.example",
        "localhost.stranger.example",
        "amazonaws.com.stranger.example",
        "stranger-amazonaws.com",
        "stranger.example.",
        "a:b:c",
        "[::1].stranger.example",
        "stranger.example:80:80",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_names_that_are_not(guarded: Guarded, host: str, method: str) -> None:
    """A page that was loaded from there is of one origin with the daemon: it can read all answers."""
    sentence = guarded.refuses(browser(host=host), method)
    assert host in sentence
    guarded.refuses(browser(f"http://{host}", host), method)
    guarded.refuses(browser("http://localhost", host), method)


def test_the_daemon_may_call_itself(guarded: Guarded) -> None:
    """A page that came from the daemon, at any address that is its own."""
    for host in ("10.1.2.3:4566", "fastlam:4566", "[fd00::1]:4566"):
        guarded.passes(browser(f"http://{host}", host))
        guarded.passes(browser(f"https://{host}", host))
        guarded.refuses(browser(f"http://other.{host}", host))


def test_names_that_are_given() -> None:
    with Guarded(origins=("http://lambda.example.com:4566",), host="box.example.com") as running:
        running.passes(browser("http://lambda.example.com:4566", "lambda.example.com:4566"))
        running.passes(browser(host="box.example.com:4566"), "GET")
        running.refuses(browser(host="example.com"), "GET")


# --- without an origin -------------------------------------------------------------------------------


def test_elements_of_foreign_pages(guarded: Guarded) -> None:
    guarded.refuses(browser(Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors"), "GET")
    guarded.passes(browser(Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate"), "GET")  # a link
    guarded.passes(browser(Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="no-cors"), "GET")
    guarded.passes(browser(Sec_Fetch_Site="none", Sec_Fetch_Mode="navigate"), "GET")


def test_requests_with_rules_of_their_own() -> None:
    with Guarded(has_own_rules=lambda request: request.path == b"/own") as running:
        for method in ("GET", "POST", "OPTIONS"):
            answer = running.ask(method, preflight("https://stranger.example", None, Host="stranger.example"), "/own")
            assert answer.status == 200 and "access-control-allow-origin" not in answer.headers
        assert running.passed == [b"/own"] * 3
        running.refuses(browser("https://stranger.example"))


def test_many_strangers(guarded: Guarded) -> None:
    """What is remembered of them is bounded."""
    cors: Any = guarded.running.answer
    for number in range(600):
        guarded.refuses({"Origin": f"https://{number}.example"})
    assert len(cors._verdicts) <= 256
    guarded.refuses({"Origin": "https://" + "a" * 2000})
    assert all(len(origin or b"") < 2000 for origin, _ in cors._verdicts)
    guarded.passes({"Origin": "http://localhost"})


# --- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "app.example",
        "http://",
        "http://a/",
        "http://a/b",
        "http://*.a",
        "http://a b",
        "http://a:x",
        "http://u@a",
        "**",
    ],
)
def test_an_origin_that_is_none(origin: str, tmp_path: Path) -> None:
    with pytest.raises(FastlamError) as caught:
        DaemonConfig(data_dir=tmp_path, cors_origins=("http://a", origin))
    sentence = str(caught.value)
    assert sentence.startswith(f"--cors-origin {origin!r} is no origin") and sentence.endswith(".")


@pytest.mark.parametrize("origin", ["*", "null", "http://a", "HTTPS://A.example:8443", "http://[::1]:1", "app+x://y"])
def test_an_origin_that_is_one(origin: str, tmp_path: Path) -> None:
    assert DaemonConfig(data_dir=tmp_path, cors_origins=(origin,)).cors_origins == (origin,)


def test_a_detached_daemon_is_told(tmp_path: Path) -> None:
    config = DaemonConfig(data_dir=tmp_path, cors_origins=("http://a", "http://b"))
    parsed = command.make_context("serve", _arguments(config, 1)).params
    assert parsed["cors_origins"] == ("http://a", "http://b")
