"""What is told of an event when it is over: the invocation record, and the message to a dead-letter queue."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import uuid4

import msgspec

from fastlam import limits
from fastlam.arn import FunctionAddress
from fastlam.core.scan import scan_json
from fastlam.destinations.parcel import Parcel, service_of
from fastlam.invoke.settings import EventSettings

SUCCESS: Final = "Success"
RETRIES_EXHAUSTED: Final = "RetriesExhausted"
EVENT_AGE_EXCEEDED: Final = "EventAgeExceeded"
ZERO_CONCURRENCY: Final = "ZeroReservedConcurrency"
RECURSIVE: Final = "RecursiveInvocation"

# As the service writes it.
_ZERO_CONCURRENCY_MESSAGE: Final = (
    "Function not invoked. Function isconfigured with zero reserved concurrent executions"
)
_encode: Final = msgspec.json.Encoder().encode


class Response(NamedTuple):
    """What the last attempt came to. `status` 0: there was none."""

    status: int = 0
    version: str = ""  # that was executed; "" when nothing was
    failed: bool = False  # the function
    payload: bytes | None = None
    content_type: str = ""  # of a payload that is no JSON
    message: str = ""  # of a refusal of ours


NO_RESPONSE: Final = Response()


class Over(NamedTuple):
    """An event that is over."""

    request_id: str
    address: FunctionAddress
    condition: str
    attempts: int
    event: bytes
    response: Response
    trace: str

    @property
    def succeeded(self) -> bool:
        return self.condition == SUCCESS

    @property
    def function_arn(self) -> str:
        return self.address.arn_with_version


def invocation_record(over: Over, wall_ms: int) -> bytes:
    """The document that destinations get."""
    response = over.response
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": f"{_moment(wall_ms):%Y-%m-%dT%H:%M:%S}.{wall_ms % 1000:03}Z",
        "requestContext": {
            "requestId": over.request_id,
            "functionArn": over.function_arn,
            "condition": over.condition,
            "approximateInvokeCount": 1 if over.succeeded else over.attempts,
        },
        "requestPayload": msgspec.Raw(over.event),
    }
    if response.status:
        context: dict[str, Any] = {"statusCode": response.status}
        if response.version:
            context["executedVersion"] = response.version
        if response.failed:
            context["functionError"] = "Unhandled"
        record["responseContext"] = context
    if response.payload is not None:
        if response.content_type or scan_json(response.payload) is not None:
            record["deliveryError"] = {"statusCode": 400, "errorCode": "InvalidRequestContentException"}
        else:
            record["responsePayload"] = msgspec.Raw(response.payload)
    return _encode(record)


def parcels(over: Over, settings: EventSettings, wall_ms: int) -> list[Parcel]:
    """What there is to deliver."""
    found = []
    destination = settings.on_success_arn if over.succeeded else settings.on_failure_arn
    if destination:
        moment = _moment(wall_ms)
        found.append(
            Parcel(
                target_arn=destination,
                body=invocation_record(over, wall_ms),
                account=over.address.account,
                region=over.address.region,
                function_arn=over.function_arn,
                role_arn=settings.role_arn,
                succeeded=over.succeeded,
                # A function gets it in any case: its loops are looked for in there.
                trace=over.trace if settings.traced or service_of(destination) == "lambda" else "",
                object_key=(
                    f"aws/lambda/async/{over.address.name}/{moment:%Y/%m/%d/%Y-%m-%dT%H.%M.%S}-{uuid4()}"
                    if service_of(destination) == "s3"
                    else ""
                ),
            )
        )
    if settings.dead_letter_arn and not over.succeeded:
        found.append(
            Parcel(
                target_arn=settings.dead_letter_arn,
                body=over.event,
                account=over.address.account,
                region=over.address.region,
                function_arn=over.function_arn,
                role_arn=settings.role_arn,
                attributes=_attributes(over),
                trace=over.trace if settings.traced else "",
            )
        )
    return found


def _attributes(over: Over) -> dict[str, tuple[str, str]]:
    """Of a message to a dead-letter queue."""
    response = over.response
    message = response.message
    if over.condition == ZERO_CONCURRENCY:
        message = _ZERO_CONCURRENCY_MESSAGE
    elif response.status == 429:
        message = "Rate Exceeded."
    elif response.status == 404:
        message = f"Function not found: {over.function_arn}"
    elif response.payload is not None:
        message = _error_message(response.payload)
    attributes = {"RequestID": ("String", over.request_id)}
    if response.status:
        attributes["ErrorCode"] = ("Number", f"{response.status:03}")
    if message:
        cut = message.encode()[: limits.DEAD_LETTER_MESSAGE_BYTES_MAX].decode("utf-8", "ignore")
        attributes["ErrorMessage"] = ("String", cut)
    return attributes


def _error_message(payload: bytes) -> str:
    try:
        document = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    message = document.get("errorMessage") if isinstance(document, dict) else None
    return message if isinstance(message, str) else ""


def _moment(wall_ms: int) -> datetime:
    return datetime.fromtimestamp(wall_ms // 1000, UTC)
