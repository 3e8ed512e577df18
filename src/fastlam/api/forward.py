"""One door to AWS: requests for other services that functions send to their AWS_ENDPOINT_URL, which is this daemon.

They are told apart by the service in the signature's scope, and passed on to --aws-endpoint, or refused in one clear
sentence.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from fastlam import limits
from fastlam.api.errors import respond
from fastlam.http.server import Request

if TYPE_CHECKING:
    import urllib3

_SCOPE: Final = re.compile(rb"Credential=[^/,\s]+/\d{8}/[^/,\s]+/([a-z0-9-]+)/aws4_request")
# Of this connection only; the rest is passed on.
_HOP_HEADERS: Final = frozenset(
    b"connection keep-alive transfer-encoding te upgrade proxy-connection expect content-length".split()
)
_OURS: Final = frozenset({b"lambda"})

_CORS: Final = b"access-control-"  # which pages may read an answer is this daemon's to say

Loop = Callable[..., Any]


def foreign_service(request: Request) -> str | None:
    """The service that a request is for when it is not ours; None for ours and for unsigned ones."""
    authorization = request.header(b"authorization")
    found = _SCOPE.search(authorization[:4096]) if authorization else None
    if found is None or found[1] in _OURS:
        return None
    return found[1].decode("ascii")


class Forwarder:
    """Passes requests on, in threads of its own, so that a slow service holds nothing up but its own callers."""

    def __init__(self, endpoint: str | None, call_soon_threadsafe: Loop) -> None:
        self._endpoint = None if endpoint is None else endpoint.rstrip("/")
        self._call_soon_threadsafe = call_soon_threadsafe
        self._threads: ThreadPoolExecutor | None = None
        self._pool: urllib3.PoolManager | None = None
        self.forwarded = 0
        self.failed = 0

    def __call__(self, request: Request, service: str) -> None:
        if self._endpoint is None:
            respond(
                request,
                501,
                {
                    "message": f"fastlam answers for Lambda only and this request is for {service}: start it with"
                    " --aws-endpoint URL to have requests for other services passed on to that address."
                },
                (("x-amzn-ErrorType", "NotImplementedException"),),
            )
            return
        if self._threads is None:
            import urllib3

            self._threads = ThreadPoolExecutor(limits.FORWARD_THREADS_MAX, thread_name_prefix="fastlam-forward")
            self._pool = urllib3.PoolManager(maxsize=limits.FORWARD_THREADS_MAX, retries=False)
        self.forwarded += 1
        self._threads.submit(self._forward, request)

    def _forward(self, request: Request) -> None:
        """In a thread: the request as it came, host header included, since it is signed."""
        assert self._pool is not None
        try:
            headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in request.headers
                if name not in _HOP_HEADERS
            ]
            import urllib3

            fields = urllib3.HTTPHeaderDict()
            for name, value in headers:
                fields.add(name, value)
            answer = self._pool.urlopen(
                request.method.decode("latin-1"),
                f"{self._endpoint}{request.target.decode('latin-1')}",
                body=request.body or None,
                headers=fields,
                redirect=False,
                decode_content=False,
                preload_content=True,
                timeout=urllib3.Timeout(connect=5.0, read=120.0),
            )
            block = b"".join(
                b"%s: %s\r\n" % (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in answer.headers.items()
                if _is_passed_back(name.lower().encode("latin-1"))
            )
            self._call_soon_threadsafe(self._answer, request, answer.status, block, answer.data)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller hears of it
            self._call_soon_threadsafe(self._refuse, request, f"{type(error).__name__}: {error}")

    def _answer(self, request: Request, status: int, block: bytes, body: bytes) -> None:
        if not request.closed:
            request.respond(status, block, body)

    def _refuse(self, request: Request, reason: str) -> None:
        self.failed += 1
        if not request.closed:
            respond(
                request,
                502,
                {"message": f"The AWS endpoint {self._endpoint} did not answer: {reason}"},
                (("x-amzn-ErrorType", "ServiceUnavailableException"),),
            )

    def close(self) -> None:
        """Waits for what is under way, at most as long as its own timeouts."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def _is_passed_back(name: bytes) -> bool:
    """Of the headers of an answer."""
    return name not in _HOP_HEADERS and name != b"date" and not name.startswith(_CORS)
