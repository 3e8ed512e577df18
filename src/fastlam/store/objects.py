"""Code in S3: objects read from AWS or from any server that speaks its protocol.

    --aws-endpoint                              there, with path-style addresses
    $AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL     likewise
    neither                                     AWS itself

Credentials are those that AWS's SDKs would find. An endpoint that is not AWS's may not need any: the account id and a
stand-in sign for it then. Reading runs on a worker thread, is bounded in size and time, and fails in the service's
words.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from fastlam import limits
from fastlam.config import DEFAULT_ACCOUNT
from fastlam.errors import ApiError, access_denied, invalid_parameter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from botocore.exceptions import ClientError

_DENIED: Final = frozenset(
    {
        "AccessDenied",
        "AllAccessDisabled",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "403",
    }
)
_ELSEWHERE: Final = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301", "400"}
)


class S3Object(NamedTuple):
    """One object as it was read."""

    data: bytes
    version: str | None  # of the object, where its bucket has versions


class ObjectReader:
    """Reads objects; called with (region, bucket, key, version), on any thread. botocore is loaded by the first call.

    An object larger than `bytes_max` is refused unread.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        account: str = DEFAULT_ACCOUNT,
        bytes_max: int = limits.UNZIPPED_BYTES_MAX,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._endpoint = endpoint or environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or None
        self._account = account
        self._bytes_max = bytes_max
        self._mutex = threading.Lock()  # guards _clients, and botocore while it makes one
        self._clients: dict[str, Any] = {}
        self._closed = False

    def __call__(self, region: str, bucket: str, key: str, version: str | None) -> S3Object:
        from botocore.exceptions import BotoCoreError, ClientError

        request = {"Bucket": bucket, "Key": key}
        if version is not None:
            request["VersionId"] = version
        deadline = time.monotonic() + limits.S3_READ_SECONDS_MAX
        try:
            answer = self._client(region).get_object(**request)
            with contextlib.closing(answer["Body"]) as body:
                data = self._read(body, answer.get("ContentLength"), deadline)
        except ClientError as error:
            raise _refusal(error, region, bucket, key) from None
        except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint or a key that is no text for a URL
            raise self._failure(error) from None
        found = answer.get("VersionId")
        return S3Object(data, None if found in (None, "null") else found)

    def close(self) -> None:
        """What is being read is given up at its next piece."""
        self._closed = True
        with self._mutex:
            clients = list(self._clients.values())
            self._clients.clear()
        for client in clients:
            client.close()

    def _read(self, body: Any, size: int | None, deadline: float) -> bytes:
        if size is not None and size > self._bytes_max:
            raise self._too_large()
        pieces: list[bytes] = []
        left = self._bytes_max
        while piece := body.read(limits.S3_PIECE_BYTES):
            left -= len(piece)
            if left < 0:
                raise self._too_large()
            if self._closed or time.monotonic() > deadline:
                raise _unreadable("The object did not arrive in time")
            pieces.append(piece)
        return b"".join(pieces)

    def _too_large(self) -> ApiError:
        # A zip may be larger here than in a request: what counts is its content, which is not smaller in practice.
        return invalid_parameter(f"Unzipped size must be smaller than {self._bytes_max} bytes")

    def _client(self, region: str) -> Any:
        with self._mutex:
            client = self._clients.get(region)
            if client is None:
                client = self._clients[region] = self._make_client(region)
            return client

    def _make_client(self, region: str) -> Any:
        from botocore.config import Config
        from botocore.session import Session

        session = Session()
        options: dict[str, Any] = {
            "connect_timeout": limits.S3_CONNECT_SECONDS,
            "read_timeout": limits.S3_SILENCE_SECONDS,
            "retries": {"mode": "standard", "total_max_attempts": limits.S3_ATTEMPTS_MAX},
        }
        credentials: dict[str, Any] = {}
        if self._endpoint is not None and not _is_aws(self._endpoint):
            # Not every server has AWS's checksums, nor a host name for each bucket.
            options |= {"s3": {"addressing_style": "path"}, "response_checksum_validation": "when_required"}
            for method in ("container-role", "iam-role"):  # these ask AWS's own machines
                session.get_component("credential_provider").remove(method)
            if session.get_credentials() is None:
                credentials = {"aws_access_key_id": self._account, "aws_secret_access_key": "fastlam"}
        client = session.create_client(
            "s3", region_name=region, endpoint_url=self._endpoint, config=Config(**options), **credentials
        )
        client.meta.events.register("before-call.s3.GetObject", _stay_in_region)
        return client

    def _failure(self, error: Exception) -> ApiError:
        """What went wrong before an answer of S3, or in the middle of it."""
        from botocore.exceptions import NoCredentialsError

        if isinstance(error, NoCredentialsError):
            return _unreadable("There are no AWS credentials to read it with, nor another S3 endpoint (--aws-endpoint)")
        where = "S3" if self._endpoint is None else f"The S3 endpoint {self._endpoint}"
        return _unreadable(f"{where} did not answer: {' '.join(str(error).split())}")


def _is_aws(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


def _stay_in_region(context: dict[str, Any], **_: Any) -> None:
    """The service does not follow a bucket into another region, which botocore would do by itself."""
    context.get("s3_redirect", {})["redirected"] = True


def _unreadable(reason: str) -> ApiError:
    return invalid_parameter(f"Error occurred while GetObject. {reason.rstrip('.')}.")


def _refusal(error: ClientError, region: str, bucket: str, key: str) -> ApiError:
    """S3's own answer, as the service passes it on."""
    details = error.response.get("Error", {})
    answer = error.response.get("ResponseMetadata", {})
    code, message = str(details.get("Code", "")), str(details.get("Message", ""))
    home = answer.get("HTTPHeaders", {}).get("x-amz-bucket-region") or details.get("Region")
    if code in _ELSEWHERE and home and home != region:
        code = "PermanentRedirect"
        message = f"The bucket is in this region: {home}. Please use this region to retry the request"
    elif code in _DENIED:
        code = "AccessDenied" if code == "403" else code
        return access_denied(
            "Your access has been denied by S3, please make sure your request credentials have permission to GetObject"
            f" for {bucket}/{key}. S3 Error Code: {code}. S3 Error Message: {message}"
        )
    elif code.isdecimal():  # an error without S3's document in it: some other server
        return _unreadable(f"What answers for S3 (--aws-endpoint) said {code} {message}")
    return invalid_parameter(f"Error occurred while GetObject. S3 Error Code: {code}. S3 Error Message: {message}")
