"""What an answer of the API has to be like, whatever was asked: held against the compiled service model, and read by
botocore's own parser.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from botocore.awsrequest import HeadersDict
from botocore.eventstream import EventStreamBuffer
from botocore.parsers import create_parser
from botocore.session import get_session

from daemon_running import Answer
from fastlam.api.service_model import Operation
from fastlam.errors import SHAPES
from model_requests import MODEL

# Invocations fail on our side where a runtime, or what it needs, is not here; the service has errors for that.
INVOKING: Final = frozenset({"Invoke", "InvokeAsync", "InvokeWithResponseStream"})
_STATUS: Final = {"DeleteFunction": {204}, "Invoke": {200, 202, 204}, "InvokeWithResponseStream": {200, 204}}
# Where the live service is not as its model says, and we are like the service.
_EMPTY: Final = frozenset({"GetFunctionCodeSigningConfig"})  # may answer {} in spite of required members
_FURTHER: Final = frozenset(  # members of GetAccountSettings that no model has
    {
        "AccountRuntimeConfig",
        "BlacklistedFeatures",
        "DeprecatedFeaturesAccess",
        "HasFunctionWithDeprecatedRuntime",
        "PreviewFeatures",
        "UnreservedConcurrentExecutionsMinimum",
    }
)
_UNLISTED: Final = frozenset({("LastUpdateStatusReasonCode", "Creating")})  # values that an enum does not have
_parser: Final = create_parser("rest-json")


@cache
def _service() -> Any:
    return get_session().get_service_model("lambda")


def faults(operation: Operation | None, answer: Answer) -> list[str]:
    """What is wrong with an answer to the operation, or to a request that goes to none."""
    if answer.status >= 400 or "x-amzn-errortype" in answer.headers:
        return list(_faults_of_refusal(operation, answer))
    if answer.status >= 300 or answer.status < 200:
        return [f"status {answer.status}"]
    if operation is None:
        return []
    return list(_faults_of_success(operation, answer))


def _faults_of_refusal(operation: Operation | None, answer: Answer) -> Iterator[str]:
    code = answer.headers.get("x-amzn-errortype", "")
    shape = SHAPES.get(code)
    if shape is None:
        yield f"an unmodelled error: {code!r}"
        return
    if answer.status != shape.status:
        yield f"status {answer.status} of {code}, which has {shape.status}"
    if answer.status >= 500 and not (answer.status == 502 and operation is not None and operation.name in INVOKING):
        yield f"a fault of ours: {answer.status} {code}"
    try:
        body = json.loads(answer.body)
    except ValueError:
        yield "a refusal without JSON"
        return
    if not isinstance(body, dict) or shape.message_key not in body:
        yield f"{shape.message_key!r} is not in {body}"
        return
    message = body[shape.message_key]
    if not isinstance(message, str | None):
        yield f"the message is {message!r}"
    further = body.keys() - {shape.message_key, "Type"}
    if further - set(_members_of_error(code)):
        yield f"{further} are no members of {code}"
    if body.get("Type") not in (None, "Service" if answer.status >= 500 else "User"):
        yield f"Type is {body['Type']}"
    if answer.headers.get("content-type") != "application/json":
        yield f"content type {answer.headers.get('content-type')}"


def _members_of_error(code: str) -> list[str]:
    try:
        return list(_service().shape_for(code).members)
    except Exception:  # noqa: BLE001 - the model does not have it
        return []


def _faults_of_success(operation: Operation, answer: Answer) -> Iterator[str]:
    expected = _STATUS.get(operation.name, {operation.status})
    if answer.status not in expected:
        yield f"status {answer.status}, not {expected}"
    if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer.headers.get("x-amzn-requestid", "")) is None:
        yield "no request id"
    if operation.name == "InvokeWithResponseStream":
        if answer.status == 200:
            yield from _faults_of_stream(answer.body)
        return
    try:
        parsed = _parser.parse(
            {"status_code": answer.status, "headers": HeadersDict(answer.headers), "body": answer.body},
            _service().operation_model(operation.name).output_shape,
        )
    except Exception as error:  # noqa: BLE001 - whatever botocore makes of it
        yield f"botocore cannot read it: {error!r}"
        return
    if not operation.output or operation.output_payload:
        return
    if answer.status == 204 and answer.body:
        yield "a body where there is none"
    if answer.body == b"{}" and operation.name in _EMPTY:
        return
    members = MODEL.shapes[operation.output].members
    required = {member.name for member in members if member.required}
    if required - parsed.keys():
        yield f"{required - parsed.keys()} are missing"
    if answer.body:
        in_body = {member.name for member in members if not member.location}
        body = json.loads(answer.body)
        if set(body) - in_body - _FURTHER:
            yield f"{set(body) - in_body} are no members of the output"
        yield from _differences(operation.output, body, operation.name)


def _faults_of_stream(body: bytes) -> Iterator[str]:
    buffer = EventStreamBuffer()
    try:
        buffer.add_data(body)
        kinds = [event.headers.get(":event-type") for event in buffer]
    except Exception as error:  # noqa: BLE001 - whatever botocore makes of it
        yield f"botocore cannot read the stream: {error!r}"
        return
    if not kinds or kinds[-1] != "InvokeComplete" or set(kinds[:-1]) - {"PayloadChunk"}:
        yield f"events {kinds}"


_JSON_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "double": (int, float),
    "boolean": (bool,),
    "timestamp": (int, float),
    "blob": (str,),
    "structure": (dict,),
    "list": (list,),
    "map": (dict,),
}


def _differences(shape_name: str, value: Any, path: str) -> Iterator[str]:
    """Where a value is not what its shape says: types, members, required ones, enums, patterns."""
    if value is None:
        return
    shape = MODEL.shapes[shape_name]
    accepted: Any = _JSON_TYPES[shape.type]
    if not isinstance(value, accepted) or (isinstance(value, bool) and shape.type != "boolean"):
        yield f"{path} is {value!r}, no {shape.type}"
    elif shape.type == "structure":
        members = {member.name: member for member in shape.members}
        for name in value.keys() - members.keys() - _FURTHER:
            yield f"{path}.{name} is not in the model"
        for name, member in members.items():
            if member.required and value.get(name) is None and not member.location:
                yield f"{path}.{name} is missing"
            yield from _differences(member.shape, value.get(name), f"{path}.{name}")
    elif shape.type == "list":
        for item in value:
            yield from _differences(shape.element, item, f"{path}[]")
    elif shape.type == "map":
        for item in value.values():
            yield from _differences(shape.element, item, f"{path}{{}}")
    elif shape.type == "string":
        if shape.enum and value not in shape.enum and (shape_name, value) not in _UNLISTED:
            yield f"{path} is {value!r}, not one of {shape.enum}"
        pattern = shape.python_pattern or shape.pattern
        if pattern and re.compile(pattern, re.ASCII if not shape.python_pattern else 0).fullmatch(value) is None:
            yield f"{path} is {value!r}, not {pattern}"
    elif shape.type == "blob":
        try:
            base64.b64decode(value, validate=True)
        except binascii.Error:
            yield f"{path} is no base64"
