"""Whatever is sent to the API: an answer, soon, and never a 5xx of ours (501 says that an operation is not there
yet).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_from_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api_server import ROLE, ApiServer, api_server, make_zip
from fastlam.api import service_model

MODEL = service_model.load()
NAMES = (
    "CreateFunction GetFunction GetFunctionConfiguration ListFunctions UpdateFunctionCode UpdateFunctionConfiguration"
    " DeleteFunction PutFunctionConcurrency GetFunctionConcurrency DeleteFunctionConcurrency"
)
IMPLEMENTED = [operation for operation in MODEL.operations if operation.name in NAMES.split()]

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    data = tmp_path_factory.mktemp("fuzz") / "data"
    with api_server(data) as running:
        running.client().create_function(
            FunctionName="hello", Runtime="python3.11", Role=ROLE, Handler="a.b", Code={"ZipFile": make_zip()}
        )
        yield running
        assert running.send("GET", "/2015-03-31/functions/hello").status in (200, 404)
    assert {path.name for path in data.parent.iterdir()} == {"data"}
    assert {path.name.split(".")[0] for path in data.iterdir()} <= {"lock", "records", "code", "keys", "opt"}


def answered(server: ApiServer, method: str, path: str, body: bytes | None = None, headers: Any = None) -> int:
    answer = server.send(method, path, body, headers, timeout=10)
    assert answer.status < 500 or answer.status == 501, (answer.status, answer.body)
    if method == "HEAD":
        assert answer.body == b""
    elif answer.status >= 400 and "x-amzn-errortype" in answer.headers:
        error = json.loads(answer.body)
        assert error.keys() <= {"message", "Message", "Type", "Reason"}
        assert isinstance(error.get("message", error.get("Message")), str | None)
    elif answer.status == 204:
        assert answer.body == b""
    elif answer.headers.get("content-type") == "application/json":
        json.loads(answer.body)
    return answer.status


anything = st.text(st.characters(codec="utf-8"), max_size=30)
pieces = st.lists(
    st.sampled_from(
        ["arn", ":", "aws", "lambda", "us-east-1", "eu-west-1", "000000000000", "111122223333", "function", "hello", "$LATEST",
         "$LATEST.PUBLISHED", "1", "live", "/", "..", "%", "\0", "\n", " ", "é", "x" * 70, "y" * 200, "$", "\\", "?", "#"]
    ),
    max_size=10,
).map("".join)  # fmt: skip
locators = st.one_of(
    anything, pieces, st.from_regex(r"(arn:aws:lambda:)?(us-east-1:)?(\d{12}:)?(function:)?\w{1,80}(:\w+)?")
)
encoded = st.one_of(
    locators.map(lambda text: quote(text, safe="")),
    locators.map(quote),
    st.binary(max_size=20).map(lambda raw: quote_from_bytes(raw, safe="")),
)


@pytest.mark.parametrize("operation", IMPLEMENTED, ids=lambda operation: operation.name)
@given(name=encoded, qualifier=st.none() | encoded, data=st.data())
@relaxed
def test_names(
    server: ApiServer, operation: service_model.Operation, name: str, qualifier: str | None, data: Any
) -> None:
    path = operation.path.replace("{FunctionName}", name)
    if qualifier is not None:
        path += f"?Qualifier={qualifier}"
    body = None
    if operation.method in ("PUT", "POST"):
        body = json.dumps(
            {"FunctionName": data.draw(locators), "ReservedConcurrentExecutions": 1, "ZipFile": ""}
        ).encode()
    answered(server, operation.method, path, body)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | anything
    | st.sampled_from(["$LATEST", "python3.11", ROLE, "="]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(anything, inner, max_size=4),
    max_leaves=12,
)


def members(shape_name: str, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values near to what the shape wants: mostly of its type, sometimes of any other."""
    shape = MODEL.shapes[shape_name]
    if shape.type == "structure" and depth < 4:
        near: st.SearchStrategy[Any] = st.fixed_dictionaries(
            {},
            optional={
                member.wire_name: members(member.shape, depth + 1) for member in shape.members if not member.location
            },
        )
    elif shape.type == "list" and depth < 4:
        near = st.lists(members(shape.element, depth + 1), max_size=3)
    elif shape.type == "map" and depth < 4:
        near = st.dictionaries(anything, members(shape.element, depth + 1), max_size=3)
    elif shape.type == "string":
        near = st.sampled_from(shape.enum) if shape.enum else anything
        if shape.pattern and "\\p{" not in shape.pattern:
            near |= st.from_regex(shape.pattern, fullmatch=True)
    elif shape.type == "blob":
        near = st.sampled_from(["", "UEsFBgAAAAAAAAAAAAAAAAAAAAAAAA==", "aGVsbG8="])
    else:
        near = st.booleans() if shape.type == "boolean" else st.integers(-5, 20_000)
    return st.one_of(near, near, near, json_values)


BODIES = {operation.name: members(operation.input) for operation in IMPLEMENTED if operation.method in ("PUT", "POST")}


@pytest.mark.parametrize(
    "operation", [o for o in IMPLEMENTED if o.name in BODIES], ids=lambda operation: operation.name
)
@given(data=st.data())
@relaxed
def test_bodies(server: ApiServer, operation: service_model.Operation, data: Any) -> None:
    body = data.draw(BODIES[operation.name])
    answered(server, operation.method, operation.path.replace("{FunctionName}", "hello"), json.dumps(body).encode())


@given(body=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()), data=st.data())
@relaxed
def test_bodies_of_no_shape(server: ApiServer, body: bytes, data: Any) -> None:
    operation = data.draw(st.sampled_from([operation for operation in MODEL.operations if operation.method != "GET"]))
    path = operation.path
    for member in MODEL.shapes[operation.input].members if operation.input else ():
        path = path.replace("{" + member.wire_name + "}", quote(data.draw(locators), safe=""))
    answered(server, operation.method, path, body)


@given(
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS"]),
    path=st.lists(
        st.sampled_from(
            ["2015-03-31", "functions", "2017-10-31", "concurrency", "_fastlam", "code", "layers", "invocations", ""]
        )
        | encoded,
        max_size=6,
    ).map("/".join),
    query=st.lists(st.tuples(encoded, encoded).map("=".join) | encoded, max_size=4).map("&".join),
    authorization=st.one_of(
        st.none(),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
        encoded.map(
            lambda scope: f"AWS4-HMAC-SHA256 Credential={scope}/20260101/us-east-1/lambda/aws4_request, Signature=0"
        ),
        encoded.map(
            lambda scope: f"AWS4-HMAC-SHA256 Credential=AKID/20260101/{scope}/lambda/aws4_request, Signature=0"
        ),
    ),
)
@relaxed
def test_paths(server: ApiServer, method: str, path: str, query: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answered(server, method, f"/{path}?{query}", None, headers)


@given(marker=anything, size=anything, version=anything)
@relaxed
def test_lists(server: ApiServer, marker: str, size: str, version: str) -> None:
    target = f"/2015-03-31/functions?Marker={quote(marker)}&MaxItems={quote(size)}&FunctionVersion={quote(version)}"
    answered(server, "GET", target)


@given(data=st.binary(max_size=400), token=encoded)
@relaxed
def test_uploads_and_links(server: ApiServer, data: bytes, token: str) -> None:
    body = {"ZipFile": base64.b64encode(data + b"PK\5\6" + data).decode()}
    answered(server, "PUT", "/2015-03-31/functions/hello/code", json.dumps(body).encode())
    assert answered(server, "GET", f"/_fastlam/code/{token}") == 403
