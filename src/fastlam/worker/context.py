"""The context object that a handler receives.

The classes are seen by user code, so their names, their module name, attributes and texts are those of Lambda's own
client.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from fastlam.worker.faults import LAMBDA_CONTEXT_UNMARSHAL_ERROR, Fault
from fastlam.worker.streaming import ResponseStream, responses

_PUBLIC_MODULE: Final = "awslambdaric.lambda_context"
# In the order in which they are shown.
_CLIENT_FIELDS: Final = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")
_CLIENT_CONTEXT_FIELDS: Final = ("custom", "env", "client")
_W3C_FIELDS: Final = ("traceparent", "tracestate", "baggage")


class _Record:
    """Named slots filled from a JSON object; what it lacks is None."""

    __slots__: tuple[str, ...] = ()

    def __repr__(self) -> str:
        fields = ",".join(f"{name}={getattr(self, name)}" for name in self.__slots__)
        return f"{type(self).__name__}([{fields}])"


class CognitoIdentity(_Record):
    """Who called through Amazon Cognito; both attributes are None without it."""

    __module__ = _PUBLIC_MODULE
    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    cognito_identity_id: Any
    cognito_identity_pool_id: Any


class Client(_Record):
    """The mobile application that called."""

    __module__ = _PUBLIC_MODULE
    __slots__ = _CLIENT_FIELDS


class ClientContext(_Record):
    """What the caller sent along in X-Amz-Client-Context."""

    __module__ = _PUBLIC_MODULE
    __slots__ = _CLIENT_CONTEXT_FIELDS

    custom: Any
    env: Any
    client: Any


class LambdaContext:
    """One per invocation; made by ContextFactory."""

    __module__ = _PUBLIC_MODULE

    def __init__(
        self,
        aws_request_id: str,
        log_group_name: str | None,
        log_stream_name: str | None,
        function_name: str | None,
        memory_limit_in_mb: str | None,
        function_version: str | None,
        invoked_function_arn: str | None,
        tenant_id: str | None,
        w3c_fields: dict[str, str],
        client_context: ClientContext | None,
        identity: CognitoIdentity,
        deadline_epoch_ms: int,
    ) -> None:
        # The order is the one in which vars(context) shows them.
        self.aws_request_id = aws_request_id
        self.log_group_name = log_group_name
        self.log_stream_name = log_stream_name
        self.function_name = function_name
        self.memory_limit_in_mb = memory_limit_in_mb
        self.function_version = function_version
        self.invoked_function_arn = invoked_function_arn
        self.tenant_id = tenant_id
        self._w3c_fields = w3c_fields
        self.client_context = client_context
        self.identity = identity
        self._epoch_deadline_time_in_ms = deadline_epoch_ms

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation times out; never below zero."""
        remaining_ms = self._epoch_deadline_time_in_ms - int(time.time() * 1000)
        return max(0, remaining_ms)

    @property
    def response_stream(self) -> ResponseStream:
        """For a response in pieces; raises ValueError once the invocation is over. Lambda's own context has no such
        attribute.
        """
        return responses.open(self.aws_request_id)

    def w3c(self) -> dict[str, str]:
        """The W3C trace context of this invocation."""
        return dict(self._w3c_fields)

    def log(self, msg: object) -> None:
        """Writes the message to the function's log as it is, without a line end."""
        for handler in logging.getLogger().handlers:
            sink = getattr(handler, "log_sink", None)
            if sink is not None:
                sink.log(str(msg))
                return
        sys.stdout.write(str(msg))

    def __repr__(self) -> str:
        shown = (
            "aws_request_id",
            "log_group_name",
            "log_stream_name",
            "function_name",
            "memory_limit_in_mb",
            "function_version",
            "invoked_function_arn",
            "client_context",
            "identity",
            "tenant_id",
        )
        return f"{type(self).__name__}([{','.join(f'{name}={getattr(self, name)}' for name in shown)}])"


class ContextFactory:
    """Makes contexts; what is the same for all invocations is read from the environment once."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._log_group_name = environ.get("AWS_LAMBDA_LOG_GROUP_NAME")
        self._log_stream_name = environ.get("AWS_LAMBDA_LOG_STREAM_NAME")
        self._function_name = environ.get("AWS_LAMBDA_FUNCTION_NAME")
        self._memory_limit_in_mb = environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self._function_version = environ.get("AWS_LAMBDA_FUNCTION_VERSION")

    def make(
        self,
        request_id: str,
        deadline_epoch_ms: int,
        invoked_function_arn: str,
        client_context_json: str | None = None,
        cognito_identity_json: str | None = None,
        tenant_id: str | None = None,
    ) -> LambdaContext:
        """The context of one invocation; raises Fault for texts that are not JSON.

        JSON that is no object raises what its use raises (AttributeError), which counts as an error of the function.
        """
        w3c_fields: dict[str, str] = {}
        client_context = None
        identity = CognitoIdentity()
        identity.cognito_identity_id = identity.cognito_identity_pool_id = None
        if client_context_json or cognito_identity_json:
            client_fields = _parse(client_context_json, "Client Context")
            identity_fields = _parse(cognito_identity_json, "Cognito Identity")
            w3c_fields = _take_w3c(client_fields)
            if client_fields is not None:
                client_context = _client_context(client_fields)
            if identity_fields is not None:
                identity.cognito_identity_id = identity_fields.get("cognitoIdentityId")
                identity.cognito_identity_pool_id = identity_fields.get("cognitoIdentityPoolId")
        return LambdaContext(
            request_id,
            self._log_group_name,
            self._log_stream_name,
            self._function_name,
            self._memory_limit_in_mb,
            self._function_version,
            invoked_function_arn,
            tenant_id,
            w3c_fields,
            client_context,
            identity,
            deadline_epoch_ms,
        )


def _parse(text: str | None, name: str) -> Any:
    if not text:
        return None
    try:
        return json.loads(text)
    except Exception as error:
        raise Fault(LAMBDA_CONTEXT_UNMARSHAL_ERROR, f"Unable to parse {name} JSON: {error}") from error


def _take_w3c(client_fields: Any) -> dict[str, str]:
    """Takes the trace context out of the client context: user code sees it through w3c() alone."""
    if not isinstance(client_fields, dict):
        return {}
    fields = client_fields.pop("w3c", None)
    if not isinstance(fields, dict):
        return {}
    return {name: fields[name] for name in _W3C_FIELDS if isinstance(fields.get(name), str)}


def _client_context(fields: Any) -> ClientContext:
    context = ClientContext()
    _fill(context, fields)
    if context.client is not None:
        client = Client()
        _fill(client, context.client)
        context.client = client
    return context


def _fill(record: _Record, fields: Any) -> None:
    for name in record.__slots__:
        setattr(record, name, fields.get(name))
