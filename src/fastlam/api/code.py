"""Links to deployment packages: what GetFunction's Code.Location points at, and the download behind it.

A link carries its own expiry and the name of the code under a signature whose key lives as long as the process: nothing
is stored, links of a stopped daemon are void. A link stays good when the code is replaced or the function deleted
meanwhile.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from typing import Final

from fastlam import limits
from fastlam.api.blocking import RunBlocking
from fastlam.api.errors import request_id, respond_fault
from fastlam.clock import Clock, SystemClock
from fastlam.http.server import Request
from fastlam.store.artifacts import ArtifactStore

PATH: Final = b"/_fastlam/code/"
_SIGNATURE_BYTES: Final = 16
_TOKEN_BYTES: Final = 8 + 32 + _SIGNATURE_BYTES  # expiry (elapsed ms, big-endian), SHA-256 of the zip, signature
_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?", re.ASCII)


class CodeLinks:
    """Makes and honours the links. `authority` (host:port) is used for requests that name no host."""

    def __init__(
        self,
        artifacts: ArtifactStore,
        run_blocking: RunBlocking,
        *,
        clock: Clock | None = None,
        authority: str = "127.0.0.1:4566",
    ) -> None:
        self.authority = authority
        self._artifacts = artifacts
        self._run_blocking = run_blocking
        self._clock = clock or SystemClock()
        self._key = secrets.token_bytes(32)

    def location(self, request: Request, sha256: str) -> str:
        """A link to the zip, under the name by which the client reached us."""
        host = (request.header(b"host") or b"").decode("latin-1")
        authority = host if _HOST.fullmatch(host) else self.authority
        expiry = self._clock.elapsed_ms() + limits.CODE_LINK_SECONDS * 1000
        payload = expiry.to_bytes(8, "big") + bytes.fromhex(sha256)
        token = base64.urlsafe_b64encode(payload + self._sign(payload)).rstrip(b"=")
        return f"http://{authority}{PATH.decode()}{token.decode()}"

    def download(self, request: Request) -> None:
        """Answer a request to a link; every other one is denied as S3 does it."""
        sha256 = self._read(request.path[len(PATH) :]) if request.method in (b"GET", b"HEAD") else None
        if sha256 is None:
            self._deny(request)
            return

        def read() -> bytes | None:
            artifact = self._artifacts.open(sha256)
            return artifact.zip_path.read_bytes() if artifact is not None else None

        def done(data: bytes | None, error: BaseException | None) -> None:
            if error is not None:
                respond_fault(request, error)
            elif data is None:
                self._deny(request)
            else:
                request.respond(200, b"Content-Type: application/zip\r\n", data)

        self._run_blocking(read, done)

    def _read(self, token: bytes) -> str | None:
        try:
            raw = base64.b64decode(token + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except binascii.Error:
            return None
        if base64.urlsafe_b64encode(raw).rstrip(b"=") != token:
            return None  # another spelling of the same bytes
        payload, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
        if len(raw) != _TOKEN_BYTES or not hmac.compare_digest(signature, self._sign(payload)):
            return None
        return payload[8:].hex() if int.from_bytes(payload[:8], "big") > self._clock.elapsed_ms() else None

    def _sign(self, payload: bytes) -> bytes:
        return hmac.digest(self._key, payload, hashlib.sha256)[:_SIGNATURE_BYTES]

    @staticmethod
    def _deny(request: Request) -> None:
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message>'
            f"<RequestId>{request_id()}</RequestId></Error>"
        )
        request.respond(403, b"Content-Type: application/xml\r\n", body.encode())
