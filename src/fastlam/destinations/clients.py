"""botocore's clients, by service, region and role; made when they are first needed.

    --aws-endpoint                              there
    $AWS_ENDPOINT_URL_SQS ..., $AWS_ENDPOINT_URL    likewise
    none of them                                AWS itself

A delivery to the role's own account is made as that role, where the endpoint's STS lets us assume it; else, and to
other accounts, with the credentials that AWS's SDKs would find. An endpoint that is not AWS's may not need any: the
account id and a stand-in sign for it then.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from fastlam import limits
from fastlam.destinations.parcel import IMPOSSIBLE, REFUSED, UNREACHABLE, DeliveryError, Parcel, account_of, region_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROLE_SECONDS: Final = 3600
_ROLE_AHEAD_SECONDS: Final = 300  # before its end, credentials are not used any more
_ROLE_AGAIN_SECONDS: Final = 60  # after it could not be assumed
_THROTTLES: Final = ("Throttl", "TooManyRequests", "RequestLimitExceeded", "SlowDown", "KMSThrottled", "OverLimit")

_TOO_LARGE: Final = ("EntityTooLarge", "InvalidMessageContents", "BatchRequestTooLong")
_TOO_LONG: Final = ("too long", "must be shorter")  # in the words of codes that mean other things as well


class _Credentials(NamedTuple):
    key: str
    secret: str
    token: str


class Clients:
    """Usable from any number of threads."""

    def __init__(self, endpoint: str | None, *, account: str, environ: Mapping[str, str] = os.environ) -> None:
        self._endpoint = endpoint
        self._account = account
        self._environ = environ
        self._mutex = threading.Lock()  # guards the tables, and botocore while it makes a client
        self._clients: dict[tuple[str, str, str], Any] = {}
        self._roles: dict[str, tuple[float, _Credentials | None]] = {}  # by ARN: until when (monotonic)
        self._session: Any = None

    def client(self, service: str, parcel: Parcel) -> Any:
        """Of the target's region, in the name of the function's role."""
        role = parcel.role_arn
        known_account = account_of(parcel.target_arn)
        if not role or (known_account and account_of(role) != known_account):
            role = ""
        credentials = self._assumed(role, parcel) if role else None
        return self._client(service, region_of(parcel), credentials)

    def close(self) -> None:
        with self._mutex:
            clients = list(self._clients.values())
            self._clients.clear()
        for client in clients:
            client.close()

    def endpoint_of(self, service: str) -> str | None:
        return (
            self._endpoint
            or self._environ.get(f"AWS_ENDPOINT_URL_{service.upper()}")
            or self._environ.get("AWS_ENDPOINT_URL")
            or None
        )

    def _client(self, service: str, region: str, credentials: _Credentials | None) -> Any:
        key = (service, region, "" if credentials is None else credentials.key)
        with self._mutex:
            client = self._clients.get(key)
            if client is None:
                client = self._clients[key] = self._make(service, region, credentials)
            return client

    def _make(self, service: str, region: str, credentials: _Credentials | None) -> Any:
        from botocore.config import Config
        from botocore.session import Session

        endpoint = self.endpoint_of(service)
        foreign = endpoint is not None and not _is_aws(endpoint)
        if self._session is None:
            self._session = Session()
            if foreign:
                for method in ("container-role", "iam-role"):  # these ask AWS's own machines
                    self._session.get_component("credential_provider").remove(method)
        given: dict[str, Any] = {}
        if credentials is not None:
            given = {
                "aws_access_key_id": credentials.key,
                "aws_secret_access_key": credentials.secret,
                "aws_session_token": credentials.token,
            }
        elif foreign and self._session.get_credentials() is None:
            given = {"aws_access_key_id": self._account, "aws_secret_access_key": "fastlam"}
        options: dict[str, Any] = {
            "connect_timeout": limits.DELIVERY_CONNECT_SECONDS,
            "read_timeout": limits.DELIVERY_READ_SECONDS,
            "retries": {"total_max_attempts": 1},  # deliveries have their own
            "max_pool_connections": limits.DELIVERY_THREADS_MAX,
        }
        if foreign and service == "s3":
            options |= {"s3": {"addressing_style": "path"}, "request_checksum_calculation": "when_required"}
        return self._session.create_client(
            service, region_name=region, endpoint_url=endpoint, config=Config(**options), **given
        )

    def _assumed(self, role: str, parcel: Parcel) -> _Credentials | None:
        """The role's credentials; None where nobody gives us any."""
        from botocore.exceptions import BotoCoreError, ClientError

        with self._mutex:
            until, found = self._roles.get(role, (0.0, None))
        now = time.monotonic()
        if now < until:
            return found
        try:
            sts = self._client("sts", parcel.region, None)
            answer = sts.assume_role(RoleArn=role, RoleSessionName=_session_name(parcel), DurationSeconds=_ROLE_SECONDS)
            given = answer["Credentials"]
            found = _Credentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
            until = now + _ROLE_SECONDS - _ROLE_AHEAD_SECONDS
        except (BotoCoreError, ClientError, KeyError, ValueError):
            found, until = None, now + _ROLE_AGAIN_SECONDS
        with self._mutex:
            self._roles[role] = (until, found)
        return found


def delivery_error(error: Exception, endpoint: str | None) -> DeliveryError:
    """What botocore raises, in our words."""
    from botocore.exceptions import ClientError, NoCredentialsError

    if isinstance(error, DeliveryError):
        return error
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        code, message = str(details.get("Code", "")), str(details.get("Message", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = f"{code}: {' '.join(message.split())}"
        if status >= 500 or status == 429 or any(word in code for word in _THROTTLES):
            return DeliveryError(UNREACHABLE, said)
        if code in _TOO_LARGE or any(word in message for word in _TOO_LONG):
            return DeliveryError(IMPOSSIBLE, said)
        return DeliveryError(REFUSED, said)
    if isinstance(error, NoCredentialsError):
        return DeliveryError(UNREACHABLE, "there are no AWS credentials, nor another endpoint (--aws-endpoint)")
    where = "AWS" if endpoint is None else endpoint
    return DeliveryError(UNREACHABLE, f"{where} did not answer: {' '.join(str(error).split())}")


def _session_name(parcel: Parcel) -> str:
    return parcel.function_arn.split(":")[6][:64].ljust(2, "-")


def _is_aws(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))
