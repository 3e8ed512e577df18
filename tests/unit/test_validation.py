"""Routing, decoding and validation by the service model: against botocore's serializer, and the texts of the live
service.
"""

from __future__ import annotations

import base64
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from botocore.awsrequest import prepare_request_dict
from botocore.model import OperationModel, Shape
from botocore.serialize import create_serializer
from botocore.session import get_session
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlam.api import decoding, service_model, validation
from fastlam.api.caller import Defaults
from fastlam.api.router import Api
from fastlam.errors import MODELLED, SHAPES, UNMODELLED, ApiError, FastlamError

BOTOCORE = get_session().get_service_model("lambda")
MODEL = service_model.load()
OPERATIONS = {operation.name: operation for operation in MODEL.operations}
MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


class FakeRequest:
    """The part of an HTTP request that routing and decoding read."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method.encode()
        path, _, query = target.partition("?")
        self.path, self.query, self.body = path.encode(), query.encode(), body
        self._headers = {name.lower().encode(): str(value).encode() for name, value in headers.items()}

    def header(self, name: bytes) -> bytes | None:
        return self._headers.get(name)


def api() -> Api:
    def never(*arguments: Any) -> None:
        raise AssertionError(arguments)

    return Api(
        {}, defaults=Defaults("0", "r"), run_blocking=never, invoke_route=never, admin_route=never, code_route=never
    )


API = api()


# Against botocore --------------------------------------------------------------------------------


def values(shape: Shape, seen: tuple[str, ...] = ()) -> st.SearchStrategy[Any]:
    """Anything botocore's serializer takes for the shape."""
    kind = shape.type_name
    if kind == "structure":
        members = {
            name: values(member, (*seen, shape.name))
            for name, member in shape.members.items()
            if member.name not in seen and not member.serialization.get("eventstream")
        }
        return st.fixed_dictionaries({}, optional=members)
    if kind == "list":
        return st.lists(values(shape.member, seen), min_size=1, max_size=3)
    if kind == "map":
        return st.dictionaries(text, values(shape.value, seen), max_size=3)
    return {
        "string": text,
        "integer": st.integers(-(2**31), 2**31 - 1),
        "long": st.integers(-(2**63), 2**63 - 1),
        "double": st.floats(allow_nan=False, allow_infinity=False),
        "boolean": st.booleans(),
        "blob": st.binary(max_size=30),
        "timestamp": st.just(MOMENT),
    }[kind]


text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=10)
header_text = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=10)


def parameters_for(operation: OperationModel) -> st.SearchStrategy[dict[str, Any]]:
    if operation.input_shape is None:
        return st.just({})
    required, optional = {}, {}
    for name, member in operation.input_shape.members.items():
        location = member.serialization.get("location")
        strategy = header_text if location == "header" and member.type_name == "string" else values(member)
        (required if location == "uri" else optional)[name] = strategy
    return st.fixed_dictionaries(required, optional=optional)


def comparable(value: Any, in_query: bool = False) -> Any:
    if isinstance(value, datetime.datetime):
        return "2026-01-02T03:04:05Z" if in_query else MOMENT.timestamp()
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    return [comparable(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", [name for name in BOTOCORE.operation_names if "Stream" not in name])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_reads_what_botocore_writes(name: str, data: st.DataObject) -> None:
    operation = BOTOCORE.operation_model(name)
    given_parameters = data.draw(parameters_for(operation))
    written = create_serializer("rest-json", include_validation=False).serialize_to_request(given_parameters, operation)
    prepare_request_dict(written, "http://127.0.0.1")
    split = urlsplit(written["url"])
    target = split.path + ("?" + split.query if split.query else "")
    if isinstance(written["query_string"], dict) and not split.query and written["query_string"]:
        target += "?" + urlencode(written["query_string"], doseq=True)
    body = written["body"] if isinstance(written["body"], bytes) else written["body"].encode()
    request: Any = FakeRequest(written["method"], target, written["headers"], body)
    query = decoding.query_of(request.query)
    found = API._match(request, query)
    assert found is not None
    assert found[0].name == name
    decoded = decoding.decode(MODEL, found[0], request, found[1], query)
    payload = operation.input_shape.serialization.get("payload") if operation.input_shape else None
    expected = {}
    for key, value in given_parameters.items():
        location = operation.input_shape.members[key].serialization.get("location")
        expected[key] = comparable(value, location == "querystring")
    if payload and operation.input_shape.members[payload].type_name == "blob":
        expected.setdefault(payload, b"")
    elif payload:
        expected.setdefault(payload, {})
    assert decoded == expected


def test_every_operation_of_the_model_is_there() -> None:
    assert set(OPERATIONS) == set(BOTOCORE.operation_names)
    for name, operation in OPERATIONS.items():
        theirs = BOTOCORE.operation_model(name)
        assert operation.method == theirs.http["method"]
        assert operation.status == theirs.http.get("responseCode", 200)
        if theirs.input_shape is not None:
            shape = MODEL.shapes[operation.input]
            assert {member.name for member in shape.members if member.required} == set(
                theirs.input_shape.required_members
            )


def test_error_table_is_the_models() -> None:
    modelled = {error.name: (error.status, error.message_key) for error in MODEL.errors}
    ours = {code: (shape.status, shape.message_key) for code, shape in MODELLED.items()}
    assert ours.items() <= modelled.items()  # a newer model may know more
    assert all(shape.typed for shape in MODELLED.values())
    assert not MODELLED.keys() & UNMODELLED.keys()
    for code in SHAPES:
        error = ApiError(code, "text", fields={"Reason": "r"})
        assert next(iter(error.body())) == "Reason"
        assert error.body()[error.message_key] == "text"


def test_a_copy_that_was_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "service_model.msgpack"
    monkeypatch.setattr(service_model, "__file__", str(tmp_path / "service_model.py"))
    with pytest.raises(FastlamError, match="was not built: its compiled Lambda service model is missing"):
        service_model.load.__wrapped__()
    file.write_bytes(b"\x95\x01")
    with pytest.raises(FastlamError, match="does not fit this version of fastlam"):
        service_model.load.__wrapped__()
    file.write_bytes(b"\x95\x01\xa1v\x90\x80\x90")
    with pytest.raises(FastlamError, match="is of another version of fastlam"):
        service_model.load.__wrapped__()


def test_needs_no_botocore_at_run_time() -> None:
    script = (
        "import sys; from fastlam.api import functions, concurrency, router, service_model; service_model.load();"
        "heavy = {'botocore', 'boto3', 'rich', 'click', 'cloudpickle'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": ":".join(sys.path)})


# Texts -------------------------------------------------------------------------------------------

NAME = BOTOCORE.shape_for("FunctionName").metadata["pattern"]
NAMESPACED = BOTOCORE.shape_for("NamespacedFunctionName").metadata["pattern"]
CREATE = {"FunctionName": "f", "Role": "arn:aws:iam::000000000000:role/r", "Code": {}}


def found(operation: str, parameters: dict[str, Any]) -> list[str]:
    return list(validation.findings(MODEL, OPERATIONS[operation], parameters))


@pytest.mark.parametrize(
    ("operation", "parameters", "items"),
    [
        ("CreateFunction", CREATE, []),
        (
            "CreateFunction",
            {},
            [
                f"Value null at '{name}' failed to satisfy constraint: Member must not be null"
                for name in ("functionName", "role", "code")
            ],
        ),
        (
            "CreateFunction",
            CREATE | {"FunctionName": "f$" * 71},
            [
                (f"Value '{'f$' * 71}' at 'functionName' failed to satisfy constraint: Member must have length less than or"
                " equal to 140"),
                (f"Value '{'f$' * 71}' at 'functionName' failed to satisfy constraint: Member must satisfy regular expression"
                f" pattern: {NAME}"),
            ],
        ),
        ("CreateFunction", CREATE | {"FunctionName": "f" * 65}, []),
        (
            "GetFunction",
            {"FunctionName": "f!" * 200, "Qualifier": "q" * 129},
            [
                (f"Value '{'q' * 129}' at 'qualifier' failed to satisfy constraint: Member must have length less than or equal"
                " to 128"),
                (f"Value '{'f!' * 200}' at 'functionName' failed to satisfy constraint: Member must satisfy regular expression"
                f" pattern: {NAMESPACED}"),
            ],
        ),
        (
            "GetFunction",
            {"FunctionName": "arn:aws:lambda:us-east-1:000000000000:function:f:$LATEST:1"},
            [
                ("Value 'arn:aws:lambda:us-east-1:000000000000:function:f:$LATEST:1' at 'functionName' failed to satisfy"
                f" constraint: Member must satisfy regular expression pattern: {NAMESPACED}")
            ],
        ),
        (
            "CreateFunction",
            CREATE | {"Architectures": ["x86_64", "arm64"]},
            [
                ("Value '[x86_64, arm64]' at 'architectures' failed to satisfy constraint: Member must have length less than or"
                " equal to 1")
            ],
        ),
        (
            "CreateFunction",
            CREATE | {"Architectures": ["X86_64"]},
            [
                ("Value '[X86_64]' at 'architectures' failed to satisfy constraint: Member must satisfy constraint: [Member"
                " must satisfy enum value set: [x86_64, arm64], Member must not be null]")
            ],
        ),
        ("CreateFunction", CREATE | {"Architectures": []}, []),
        (
            "CreateFunction",
            CREATE | {"Timeout": 901, "MemorySize": 10241, "EphemeralStorage": {"Size": 511}},
            [
                "Value '901' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 900",
                ("Value '10241' at 'memorySize' failed to satisfy constraint: Member must have value less than or equal to"
                " 10240"),
                ("Value '511' at 'ephemeralStorage.size' failed to satisfy constraint: Member must have value greater than or"
                " equal to 512"),
            ],
        ),
        (
            "CreateFunction",
            CREATE | {"EphemeralStorage": {}, "SnapStart": {"ApplyOn": "x"}},
            [
                "Value null at 'ephemeralStorage.size' failed to satisfy constraint: Member must not be null",
                ("Value 'x' at 'snapStart.applyOn' failed to satisfy constraint: Member must satisfy enum value set:"
                " [PublishedVersions, None]"),
            ],
        ),
        (
            "CreateFunction",
            CREATE | {"Environment": {"Variables": {"A": "secret"}}},
            [
                ("Value at 'environment.variables' failed to satisfy constraint: Map keys must satisfy constraint: [Member"
                " must satisfy regular expression pattern: [a-zA-Z]([a-zA-Z0-9_])+]")
            ],
        ),
        ("CreateFunction", CREATE | {"Runtime": "nonsense"}, []),
        (
            "UpdateAlias",
            {"FunctionName": "f", "Name": "a", "RoutingConfig": {"AdditionalVersionWeights": {"2": 2.0}}},
            [
                ("Value '{2=2.0}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map value must"
                " satisfy constraint: [Member must have value less than or equal to 1.0, Member must have value greater than"
                " or equal to 0.0, Member must not be null]")
            ],
        ),
        (
            "UpdateAlias",
            {"FunctionName": "f", "Name": "a", "RoutingConfig": {"AdditionalVersionWeights": {"$LATEST": 0.5}}},
            [
                ("Value '{$LATEST=0.5}' at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map keys must"
                " satisfy constraint: [Member must have length less than or equal to 1024, Member must have length greater"
                " than or equal to 1, Member must satisfy regular expression pattern: [0-9]+]")
            ],
        ),
        (
            "UntagResource",
            {"Resource": "arn:aws:lambda:us-east-1:000000000000:function:f"},
            ["Value null at 'tagKeys' failed to satisfy constraint: Member must not be null"],
        ),
        (
            "ListFunctions",
            {"FunctionVersion": "x", "MaxItems": 0},
            [
                "Value 'x' at 'functionVersion' failed to satisfy constraint: Member must satisfy enum value set: [ALL]",
                "Value '0' at 'maxItems' failed to satisfy constraint: Member must have value greater than or equal to 1",
            ],
        ),
        (
            "PutProvisionedConcurrencyConfig",
            {"FunctionName": "f", "Qualifier": "1", "ProvisionedConcurrentExecutions": 0},
            [
                ("Value '0' at 'provisionedConcurrentExecutions' failed to satisfy constraint: Member must have value greater"
                " than or equal to 1")
            ],
        ),
        (
            "CreateEventSourceMapping",
            {"FunctionName": "f", "StartingPosition": "x"},
            [
                ("Value 'x' at 'startingPosition' failed to satisfy constraint: Member must satisfy enum value set: [LATEST,"
                " AT_TIMESTAMP, TRIM_HORIZON]")
            ],
        ),
        ("TagResource", {"Resource": "arn:aws:lambda:us-east-1:000000000000:function:f", "Tags": {"schlüssel 1": "ä=@"}}, []),
    ],
)  # fmt: skip
def test_texts(operation: str, parameters: dict[str, Any], items: list[str]) -> None:
    assert found(operation, parameters) == items


def test_all_findings_make_one_error() -> None:
    with pytest.raises(ApiError) as caught:
        validation.check(MODEL, OPERATIONS["CreateFunction"], CREATE | {"Timeout": 0, "MemorySize": 1})
    assert (caught.value.code, caught.value.status) == ("ValidationException", 400)
    assert str(caught.value).startswith("2 validation errors detected: Value '0' at 'timeout' failed")
    assert caught.value.body().keys() == {"message"}


def test_long_values_are_not_matched() -> None:
    items = found("CreateFunction", CREATE | {"Handler": "x" * 2_000_000})
    assert len(items) == 2
    assert items[0].endswith("Member must have length less than or equal to 128")
    assert items[1].endswith("Member must satisfy regular expression pattern: [^\\s]+")


# Conversion --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "value", "converted"),
    [
        ("Timeout", 3.99, 3),
        ("Timeout", -3.99, -3),
        ("Timeout", 1e300, 2**31 - 1),
        ("Timeout", -(2**70), -(2**31)),
        ("Weight", 1, 1.0),
        ("Boolean", True, True),
        ("Blob", "aGVsbG8=", b"hello"),
        ("TracingConfig", {"Mode": None, "Unknown": 1}, {}),
        ("StringList", ["a", None], ["a", None]),
    ],
)
def test_conversions(shape: str, value: Any, converted: Any) -> None:
    assert decoding.convert(MODEL, shape, value, "x") == converted


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        ("Timeout", "3"),
        ("Timeout", True),
        ("Timeout", []),
        ("Description", 1),
        ("Boolean", "true"),
        ("Boolean", 1),
        ("Blob", "no base64"),
        ("Blob", "aGVsbG8"),
        ("Blob", 1),
        ("TracingConfig", []),
        ("StringList", {}),
        ("Tags", []),
        ("Weight", "1"),
    ],
)
def test_wrong_types(shape: str, value: Any) -> None:
    with pytest.raises(ApiError) as caught:
        decoding.convert(MODEL, shape, value, "x")
    assert (caught.value.code, caught.value.status) == ("SerializationException", 400)


LARGE = base64.b64encode(bytes(range(256)) * 4096).decode()


@pytest.mark.parametrize(
    "body",
    [
        {"Code": {"ZipFile": LARGE}},
        {"Description": '"ZipFile": "', "Code": {"ZipFile": LARGE}},
        {"Description": 'x"ZipFile', '\\"ZipFile': LARGE, "Code": {"ZipFile": "aGVsbG8="}},
        {"Unknown": {"ZipFile": LARGE}, "Code": {"ZipFile": "aGVsbG8="}},
        {"Code": {"ZipFile": "aGVsbG8="}, "Unknown": {"ZipFile": LARGE}},
        {"Description": LARGE, "Code": {"ZipFile": "aGVsbG8="}},
        {"Unknown": LARGE},
        {"Environment": {"Variables": {"ZipFile": LARGE}}, "Code": {"ZipFile": "aGVsbG8="}},
        {"ZipFile": LARGE, "Description": "ä"},
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (" ,\n", " : ")])
def test_large_bodies_mean_what_small_ones_do(body: dict[str, Any], separators: tuple[str, str]) -> None:
    text = json.dumps(body, separators=separators, ensure_ascii=False).encode()
    request: Any = FakeRequest("POST", "/2015-03-31/functions", {}, text)
    decoded = decoding.decode(MODEL, OPERATIONS["CreateFunction"], request, {}, {})
    expected = {name: value for name, value in body.items() if name in ("Description", "Code", "Environment")}
    if "Code" in expected:
        expected["Code"] = {"ZipFile": base64.b64decode(body["Code"]["ZipFile"])}
    assert decoded == expected
    direct: Any = FakeRequest("PUT", "/2015-03-31/functions/f/code", {}, text)
    decoded = decoding.decode(MODEL, OPERATIONS["UpdateFunctionCode"], direct, {"FunctionName": "f"}, {})
    assert decoded.get("ZipFile") == (base64.b64decode(LARGE) if "ZipFile" in body else None)


@pytest.mark.parametrize("damage", [b"", b"=", b"!", b'"', b"\\", b"\\u00", "ü".encode(), b"\xff"])
def test_large_bodies_that_are_damaged(damage: bytes) -> None:
    text = b'{"Code":{"ZipFile":"' + LARGE[:600_000].encode() + damage + LARGE[600_000:-1].encode() + b'"}}'
    request: Any = FakeRequest("POST", "/2015-03-31/functions", {}, text)
    with pytest.raises(ApiError) as caught:
        decoding.decode(MODEL, OPERATIONS["CreateFunction"], request, {}, {})
    assert caught.value.code == "SerializationException"


@pytest.mark.parametrize("query", ["MaxItems=x", "MaxItems=", "MaxItems=" + "9" * 5000, "MaxItems=%ff", "MaxItems=1e3"])
def test_wrong_types_in_the_query(query: str) -> None:
    request: Any = FakeRequest("GET", f"/2015-03-31/functions?{query}", {}, b"")
    with pytest.raises(ApiError) as caught:
        decoding.decode(MODEL, OPERATIONS["ListFunctions"], request, {}, decoding.query_of(request.query))
    assert caught.value.code == "SerializationException"


def test_an_operation_without_a_handler_says_so() -> None:
    request: Any = FakeRequest("GET", "/2015-03-31/functions", {}, b"")
    with pytest.raises(ApiError) as caught:
        API._route(request)
    assert (caught.value.code, caught.value.status) == ("NotImplementedException", 501)
    assert str(caught.value) == "fastlam does not implement ListFunctions yet."


def test_two_operations_on_one_path() -> None:
    for target, name in (
        ("/2018-10-31/layers", "ListLayers"),
        ("/2018-10-31/layers?find=LayerVersion&Arn=x", "GetLayerVersionByArn"),
        ("/2019-09-30/functions/f/provisioned-concurrency?List=ALL", "ListProvisionedConcurrencyConfigs"),
        ("/2019-09-30/functions/f/provisioned-concurrency?Qualifier=1", "GetProvisionedConcurrencyConfig"),
    ):
        request: Any = FakeRequest("GET", target, {}, b"")
        match = API._match(request, decoding.query_of(request.query))
        assert match is not None
        assert match[0].name == name
