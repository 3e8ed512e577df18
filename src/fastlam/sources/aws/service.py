"""Clients of AWS services for the event loop, each as the role of the function that the records are for.

    --aws-endpoint                                    there
    $AWS_ENDPOINT_URL_<SERVICE>, $AWS_ENDPOINT_URL    likewise
    none of them                                      AWS itself

Credentials are those that AWS's SDKs would find; an endpoint that is not AWS's may not need any. They assume the
function's role (STS AssumeRole) where that is possible: AWS must allow it; anything else is used as it is when it has
no such role.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from fastlam import limits
from fastlam.config import DEFAULT_ACCOUNT
from fastlam.errors import FastlamError
from fastlam.sources.aws.http import HttpClient, NoAnswer
from fastlam.sources.aws.signing import sign

_DENIED: Final = frozenset(
    {"AccessDenied", "AccessDeniedException", "AuthorizationError", "ExpiredToken", "ExpiredTokenException"}
    | {"InvalidClientTokenId", "UnrecognizedClientException", "InvalidSignatureException", "SignatureDoesNotMatch"}
)
_BUSY: Final = frozenset(
    {"ThrottlingException", "Throttling", "RequestThrottled", "RequestLimitExceeded", "TooManyRequestsException"}
    | {"ProvisionedThroughputExceededException", "LimitExceededException", "ServiceUnavailable", "InternalFailure"}
    | {"InternalError", "InternalServerError", "KMSThrottlingException"}
)


class AwsError(FastlamError):
    """What a service has refused."""

    def __init__(self, service: str, operation: str, code: str, message: str, status: int) -> None:
        super().__init__(f"{operation}: {code}: {message}" if message else f"{operation}: {code}")
        self.service = service
        self.operation = operation
        self.code = code.rpartition("#")[2]
        self.message = message
        self.status = status

    @property
    def denied(self) -> bool:
        return self.code in _DENIED or self.status == 403

    @property
    def busy(self) -> bool:
        """It may do the same a little later."""
        return self.code in _BUSY or self.status >= 500 or self.status == 429


class NoCredentials(FastlamError):
    """There is nobody to call as."""


class Keys(NamedTuple):
    """What signs requests."""

    access_key: str
    secret_key: str
    token: str | None
    until: float  # monotonic seconds; then they are asked for again


class AwsClients:
    """The clients of one daemon. botocore is loaded by the first call, in a thread."""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        account: str = DEFAULT_ACCOUNT,
        environ: Mapping[str, str] = os.environ,
        ours: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._endpoint = endpoint
        self._account = account
        self._environ = environ
        self._ours = ours  # the daemon's own address: what points there would come back to it
        self.http = HttpClient()
        self._session: Any = None
        self._loading: asyncio.Lock | None = None
        self._services: dict[tuple[str, str], _Model] = {}
        self._plain: dict[bool, Keys] = {}  # for AWS, and for anything else
        self._roles: dict[tuple[str, str], Keys | None] = {}

    def endpoint_of(self, service: str) -> str | None:
        """Where requests go; None: to AWS."""
        name = f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}"
        found = self._endpoint or self._environ.get(name) or self._environ.get("AWS_ENDPOINT_URL") or None
        return None if found is None or found.rstrip("/") == self._ours() else found.rstrip("/")

    def is_aws(self, service: str) -> bool:
        endpoint = self.endpoint_of(service)
        host = (urlsplit(endpoint).hostname or "") if endpoint is not None else ".amazonaws.com"
        return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))

    async def client(self, service: str, region: str, role: str = "", session_name: str = "") -> AwsService:
        """A client that calls as `role`, or with the plain credentials without one."""
        model = await self._model(service, region)
        if not self.is_aws(service) and self.is_aws("sts"):
            role = ""  # AWS is not asked for a role with which to call something else
        keys = await self._keys(service, region, role, session_name)
        return AwsService(self, model, keys, lambda: self._keys(service, region, role, session_name))

    def close(self) -> None:
        self.http.close()

    # Inside

    async def _model(self, service: str, region: str) -> _Model:
        model = self._services.get((service, region))
        if model is None:
            if self._loading is None:
                self._loading = asyncio.Lock()
            async with self._loading:
                model = self._services.get((service, region))
                if model is None:
                    loop = asyncio.get_running_loop()
                    model = await loop.run_in_executor(None, self._load, service, region)
                    self._services[service, region] = model
        return model

    def _load(self, service: str, region: str) -> _Model:
        """In a thread: botocore reads files of a megabyte."""
        from botocore.parsers import ResponseParserFactory
        from botocore.serialize import create_serializer

        session = self._made_session()
        model = session.get_service_model(service)
        protocol = model.resolved_protocol
        parsers = ResponseParserFactory()
        # As they come: functions get blobs as base64 and times as numbers, too.
        parsers.set_parser_defaults(blob_parser=lambda text: text, timestamp_parser=lambda value: value)
        endpoint = self.endpoint_of(service)
        if endpoint is None:
            endpoint = session.create_client(service, region_name=region).meta.endpoint_url
        speaks_json = protocol == "json"
        parts = urlsplit(endpoint)
        return _Model(
            service,
            region,
            endpoint,
            model,
            create_serializer(protocol, include_validation=False),
            parsers.create_parser(protocol),
            model.signing_name,
            model.metadata["targetPrefix"] if speaks_json else None,
            f"application/x-amz-json-{model.metadata.get('jsonVersion', '1.0')}",
            parts.netloc.rpartition("@")[2],
            parts.path or "/",
        )

    def _made_session(self) -> Any:
        if self._session is None:
            from botocore.session import Session

            session = Session()
            if not self.is_aws("sts"):
                for method in ("container-role", "iam-role"):  # these ask AWS's own machines
                    session.get_component("credential_provider").remove(method)
            self._session = session
        return self._session

    async def _keys(self, service: str, region: str, role: str, session_name: str) -> Keys:
        now = time.monotonic()
        for_aws = self.is_aws(service)
        plain = self._plain.get(for_aws)
        if plain is None or plain.until <= now:
            loop = asyncio.get_running_loop()
            plain = self._plain[for_aws] = await loop.run_in_executor(None, self._found_keys, for_aws)
        if not role:
            return plain
        if (role, session_name) in self._roles:
            known = self._roles[role, session_name]
            if known is None:
                return plain
            if known.until > now:
                return known
        try:
            taken = await self._assumed(region, role, session_name)
        except NoAnswer:
            if for_aws:
                raise
            return plain  # the service is likely to be away as well, and has a better word on it
        self._roles[role, session_name] = taken
        return taken or plain

    def _found_keys(self, for_aws: bool) -> Keys:
        """In a thread: whatever the SDKs would find, which may be the answer of a program."""
        until = time.monotonic() + limits.SOURCE_CREDENTIALS_SECONDS
        credentials = self._made_session().get_credentials()
        if credentials is None:
            if for_aws:
                raise NoCredentials(
                    "There are no AWS credentials to read it with, nor another endpoint (--aws-endpoint)"
                )
            return Keys(self._account, "fastlam", None, until)
        frozen = credentials.get_frozen_credentials()
        return Keys(frozen.access_key, frozen.secret_key, frozen.token, until)

    async def _assumed(self, region: str, role: str, session_name: str) -> Keys | None:
        """The role's keys; None where what answers has no such role, and is not AWS."""
        sts = await self.client("sts", region)
        try:
            answer = await sts.call("AssumeRole", RoleArn=role, RoleSessionName=session_name or "fastlam")
            found = answer["Credentials"]
        except (AwsError, KeyError):
            if self.is_aws("sts"):
                raise
            return None
        lifetime = limits.SOURCE_CREDENTIALS_SECONDS
        return Keys(
            found["AccessKeyId"], found["SecretAccessKey"], found.get("SessionToken"), time.monotonic() + lifetime
        )


class _Model(NamedTuple):
    service: str
    region: str
    endpoint: str
    model: Any
    serializer: Any
    parser: Any
    signing_name: str
    target: str | None  # before the names of operations, of services that speak JSON; None: of the others
    content_type: str
    host: str
    path: str


class AwsService:
    """One service in one region, as one identity."""

    def __init__(self, clients: AwsClients, model: _Model, keys: Keys, renew: Callable[[], Any]) -> None:
        self._clients = clients
        self._model = model
        self._keys = keys
        self._renew = renew

    @property
    def endpoint(self) -> str:
        return self._model.endpoint

    @property
    def region(self) -> str:
        return self._model.region

    async def call(
        self, operation: str, timeout_seconds: float = limits.SOURCE_ANSWER_SECONDS, **parameters: Any
    ) -> Any:
        """The parsed answer. Raises AwsError, or NoAnswer."""
        if self._keys.until <= time.monotonic():
            self._keys = await self._renew()
        if self._model.target is not None:
            return await self._call_json(operation, parameters, timeout_seconds)
        model = self._model.model.operation_model(operation)
        method, url, headers, body = self._signed(model, parameters)
        answer = await self._clients.http.request(method, url, headers, body, timeout_seconds)
        return self._parsed(model, answer.status, answer.headers, answer.body)

    async def _call_json(self, operation: str, parameters: Mapping[str, Any], timeout_seconds: float) -> Any:
        """The short way of services that take JSON and give it: blobs are base64, times are numbers in both."""
        headers = {"Content-Type": self._model.content_type, "X-Amz-Target": f"{self._model.target}.{operation}"}
        body = msgspec.json.encode(parameters)
        sign(
            headers,
            body,
            host=self._model.host,
            path=self._model.path,
            access_key=self._keys.access_key,
            secret_key=self._keys.secret_key,
            token=self._keys.token,
            region=self._model.region,
            service=self._model.signing_name,
        )
        url = self._model.endpoint + self._model.path if self._model.path == "/" else self._model.endpoint
        answer = await self._clients.http.request("POST", url, headers, body, timeout_seconds)
        try:
            found = msgspec.json.decode(answer.body) if answer.body else {}
        except msgspec.DecodeError:
            found = None
        if answer.status < 300 and isinstance(found, dict):
            return found
        service = self._model.service
        if not isinstance(found, dict):
            text = answer.body[:200].decode("utf-8", "replace")
            said = f"the answer is no JSON object: {text}"
            raise AwsError(service, operation, str(answer.status), said, answer.status)
        # Queues have kept the codes of their older protocol beside the new ones.
        code = answer.headers.get("x-amzn-query-error", "").partition(";")[0] or str(
            found.get("__type") or answer.status
        )
        message = str(found.get("message") or found.get("Message") or "")
        raise AwsError(service, operation, code, message, answer.status)

    def _signed(self, model: Any, parameters: Mapping[str, Any]) -> tuple[str, str, dict[str, str], bytes]:
        from botocore.auth import S3SigV4Auth, SigV4Auth
        from botocore.awsrequest import AWSRequest, prepare_request_dict
        from botocore.credentials import Credentials

        given = self._model.serializer.serialize_to_request(dict(parameters), model)
        prepare_request_dict(given, self._model.endpoint, user_agent="fastlam")
        request = AWSRequest(given["method"], given["url"], dict(given["headers"]), given["body"])
        signer = S3SigV4Auth if self._model.service == "s3" else SigV4Auth
        credentials = Credentials(self._keys.access_key, self._keys.secret_key, self._keys.token)
        signer(credentials, self._model.model.signing_name, self._model.region).add_auth(request)
        prepared = request.prepare()
        body = prepared.body or b""
        headers = {
            name: value.decode("latin-1") if isinstance(value, bytes) else str(value)
            for name, value in prepared.headers.items()
        }
        return prepared.method, prepared.url, headers, body.encode() if isinstance(body, str) else bytes(body)

    def _parsed(self, model: Any, status: int, headers: dict[str, str], body: bytes) -> Any:
        from botocore.awsrequest import HeadersDict
        from botocore.parsers import ResponseParserError

        name, service = model.name, self._model.service
        try:
            given = {"status_code": status, "headers": HeadersDict(headers), "body": body}
            parsed = self._model.parser.parse(given, model.output_shape)
        except (ResponseParserError, ValueError, KeyError) as error:
            text = body[:200].decode("utf-8", "replace")
            raise AwsError(service, name, str(status), f"the answer cannot be read ({error}): {text}", status) from None
        if status >= 300:
            details = parsed.get("Error", {})
            raise AwsError(service, name, str(details.get("Code") or status), str(details.get("Message") or ""), status)
        return parsed
