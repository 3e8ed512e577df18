"""Which pages may call from a browser: CORS for those that are allowed, one clear refusal for all others.

A browser on the developer's machine runs pages of strangers, and each of them can send requests to 127.0.0.1. Two
things are refused before anything else is done with a request:

- a page of an origin that is not allowed. Browsers state the origin of every request that is not a plain GET, and of
  every GET whose answer the page may read; "simple" POSTs, which ask nobody first, are among them;
- a host name that is not ours. A page at http://stranger.example:4566 whose name is turned to 127.0.0.1 after it has
  been loaded (DNS rebinding) is of one origin with the daemon: only the name in Host tells.

Both concern browsers alone, which are known by headers that pages cannot take away. Without these a request passes
unseen, whatever its Host says.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Final

from fastlam.api.errors import respond_error
from fastlam.errors import ApiError
from fastlam.http.server import Handler, Request

ANY: Final = "*"

# Any of these shows a browser. Accept-Language goes with all requests of most; the Sec-Fetch headers only where the
# browser trusts the address, which a name turned to 127.0.0.1 is not.
BROWSER_MARKS: Final = frozenset({b"origin", b"accept-language", b"sec-fetch-site"})

_LOCAL_ORIGIN: Final = re.compile(r"https?://(?:(?:[a-z0-9_-]+\.)*localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?")
_DEFAULT_PORT: Final = re.compile(r"^(?:(http://[^/]*):80|(https://[^/]*):443)$")
_ORIGIN_CHARACTERS: Final = re.compile(rb"[!-~]{1,512}")
_HOST: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:]*))(?::\d*)?")
_TOKENS: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_REQUESTED_HEADERS_BYTES_MAX: Final = 4096
_VERDICTS_MAX: Final = 256
_VERDICT_KEY_BYTES_MAX: Final = 1024
# Names below these belong to nobody on the internet (internal: docker's host.docker.internal), or to AWS, whose
# endpoints' names people point to the daemon.
_OWN_SUFFIXES: Final = (".localhost", ".internal", ".amazonaws.com", ".amazonaws.com.cn")

_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_MAX_AGE_SECONDS: Final = 7200  # browsers keep an answer to a preflight at most that long
# The star covers whatever else an answer has, such as those of other services; not every browser takes it.
_EXPOSED: Final = (
    b"Content-Type, Date, Location, Retry-After, x-amzn-RequestId, x-amzn-ErrorType, X-Amz-Function-Error,"
    b" X-Amz-Log-Result, X-Amz-Executed-Version, X-Amz-Durable-Execution-Arn, x-amzn-remapped-content-type,"
    b" x-amzn-Remapped-Content-Length, X-Amzn-Trace-Id, *"
)

Verdict = bytes | str  # the header block of the answer, or why there is none


def _not_here(request: Request) -> bool:
    return False


class Cors:
    """The handler of the HTTP server, in front of another one.

    `origins` are allowed beside those of this machine; "*" allows all pages, at any host name. `host` is the name that
    the daemon was told to listen on. `has_own_rules` says of requests of browsers which ones are none of our business,
    such as those for functions' URLs, whose configurations have CORS of their own.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        origins: Iterable[str] = (),
        host: str = "",
        has_own_rules: Callable[[Request], bool] = _not_here,
    ) -> None:
        self._handler = handler
        self._has_own_rules = has_own_rules
        self._origins = {_without_default_port(origin.lower()) for origin in origins}
        self._any = ANY in self._origins
        named = {name for origin in self._origins if (name := _name_of(origin.rpartition("//")[2])) is not None}
        self._names = {host.lower(), socket.gethostname().lower()} | named
        self._verdicts: dict[tuple[bytes | None, bytes | None], Verdict] = {}

    def __call__(self, request: Request) -> None:
        for name, _ in request.headers:
            if name in BROWSER_MARKS:
                self._from_browser(request)
                return
        self._handler(request)

    def _from_browser(self, request: Request) -> None:
        if self._has_own_rules(request):
            self._handler(request)
            return
        stated = [value for name, value in request.headers if name == b"origin"]
        origin = b", ".join(stated) if stated else None  # two make none that could be allowed
        verdict = self._verdict(origin, request.header(b"host"))
        if origin is None and not self._any and _is_foreign_element(request):
            verdict = "A page of another site may not have parts of this one."
        if isinstance(verdict, str):
            respond_error(request, ApiError("AccessDeniedException", verdict))
            return
        asked = request.header(b"access-control-request-method") if request.method == b"OPTIONS" else None
        if asked is None or origin is None:
            request.extra_headers = verdict
            self._handler(request)
            return
        lines = [verdict, b"Access-Control-Allow-Methods: %b\r\n" % _METHODS]
        headers = request.header(b"access-control-request-headers")
        if headers and len(headers) <= _REQUESTED_HEADERS_BYTES_MAX and _TOKENS.fullmatch(headers):
            lines.append(b"Access-Control-Allow-Headers: %b\r\n" % headers)
        if request.header(b"access-control-request-private-network") == b"true":
            lines.append(b"Access-Control-Allow-Private-Network: true\r\n")
        lines.append(b"Access-Control-Max-Age: %d\r\n" % _MAX_AGE_SECONDS)
        request.respond(204, b"".join(lines), b"")

    def _verdict(self, origin: bytes | None, host: bytes | None) -> Verdict:
        """The judgement, made once for each origin and host; the header block is empty for a request without origin."""
        key = (origin, host)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._judge(origin, host)
            if len(origin or b"") + len(host or b"") > _VERDICT_KEY_BYTES_MAX:
                return verdict
            if len(self._verdicts) >= _VERDICTS_MAX:
                self._verdicts.clear()
            self._verdicts[key] = verdict
        return verdict

    def _judge(self, origin: bytes | None, host: bytes | None) -> Verdict:
        address = None if host is None else host.decode("latin-1").lower()
        if not self._any and address is not None and not self._is_ours(address):
            return (
                f"This daemon does not answer browsers at the host name {_quoted(address)}: use 127.0.0.1 or localhost,"
                f" or start it with --cors-origin http://{_quoted(address)}."
            )
        if origin is None:
            return b""
        if _ORIGIN_CHARACTERS.fullmatch(origin) is None:
            return "The Origin header of this request is not valid."
        text = origin.decode("ascii").lower()
        if (
            self._any
            or text in self._origins
            or _LOCAL_ORIGIN.fullmatch(text)
            or (address is not None and text in (f"http://{address}", f"https://{address}"))
        ):
            return b"Access-Control-Allow-Origin: %b\r\nVary: Origin\r\nAccess-Control-Expose-Headers: %b\r\n" % (
                origin,
                _EXPOSED,
            )
        page = "without an origin (null)" if text == "null" else f"of {_quoted(text)}"
        return f"Pages {page} may not call this daemon: start it with --cors-origin {_quoted(text)} to allow them."

    def _is_ours(self, address: str) -> bool:
        """Whether strangers cannot make a page of theirs appear under this value of Host."""
        name = _name_of(address)
        if name is None:
            return False
        if "." not in name or name in self._names or name.endswith(_OWN_SUFFIXES):
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True


def _without_default_port(origin: str) -> str:
    found = _DEFAULT_PORT.match(origin)
    return origin if found is None else found[1] or found[2]


def _name_of(address: str) -> str | None:
    """The name or address in `name:port`, without the brackets of an IPv6 address and the dot at a name's end."""
    found = _HOST.fullmatch(address)
    return None if found is None else (found[1] or found[2]).removesuffix(".")


def _is_foreign_element(request: Request) -> bool:
    """Whether a page of another site has this as its picture, script or style, which no one does with an API."""
    return request.header(b"sec-fetch-site") == b"cross-site" and request.header(b"sec-fetch-mode") == b"no-cors"


def _quoted(text: str) -> str:
    return "".join(character if "!" <= character <= "~" else "?" for character in text[:200])
