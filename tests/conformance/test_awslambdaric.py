"""Our worker against AWS's own Python client (package awslambdaric): the same values in, the same bytes and texts out."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import importlib.util
import io
import json
import logging
import os
import re
import sys
import time
import types
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import simplejson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastlam.worker import bootstrap, context, faults, logs, marshaller

ric = pytest.importorskip("awslambdaric.bootstrap")
ric_client = importlib.import_module("awslambdaric.lambda_runtime_client")
ric_context = importlib.import_module("awslambdaric.lambda_context")
ric_fault = importlib.import_module("awslambdaric.lambda_runtime_exception").FaultException
ric_marshaller = importlib.import_module("awslambdaric.lambda_runtime_marshaller")

ENVIRONMENTS = ("AWS_Lambda_python3.11", "AWS_Lambda_python3.13")
REQUEST_ID = "8f507cfc-xmpl-4697-b07a-ac58fc914c95"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:hello"


def generated(examples: int) -> settings:
    """Fresh random examples at every run; a failure prints the blob that reproduces it."""
    return settings(
        max_examples=examples,
        derandomize=False,
        print_blob=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def theirs_of(execution_env: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_EXECUTION_ENV", execution_env)
        return ric_marshaller.LambdaMarshaller()


OURS = {name: marshaller.Marshaller(name) for name in ENVIRONMENTS}
THEIRS = {name: theirs_of(name) for name in ENVIRONMENTS}

# Events ----------------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
JSON_TEXTS = st.builds(
    lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode(),
    JSON_VALUES,
    st.booleans(),
    st.sampled_from([None, 0, 1]),
)
DIGITS = st.text("0123456789", max_size=25)
NUMBERS = st.builds(
    lambda sign, whole, point, exponent: f"{sign}{whole}{point}{exponent}".encode(),
    st.sampled_from(["", "-", "+"]),
    DIGITS | st.just("0") | st.integers(4295, 4305).map("9".__mul__) | st.integers(300, 400).map("7".__mul__),
    st.just("") | DIGITS.map(".{}".format) | st.integers(300, 800).map(lambda count: f".{'0' * count}1"),
    st.just("") | st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), DIGITS),
)
STRINGS = st.lists(
    st.sampled_from([r"\ud83d", r"\ude00", r"\u0041", r"\uDFFF", r"\u12", "\\", '"', r"\n", r"\x", "\x00", "\x1f", "\x7f"])
    | st.sampled_from(["a", "\u2028", "é", "\U0001f600", r"\/", r"\u00e9", r"\u"]),
    max_size=6,
).map(lambda parts: f'"{"".join(parts)}"'.encode())
TOKENS = st.lists(
    st.sampled_from(
        [b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\t", b'"a"', b'"b"', b"1", b"-0", b"-0.0", b"01", b"1e400"]
        + [b"true", b"null", b"NaN", b"-Infinity", b"Infinity", b"\xef\xbb\xbf", b"\xff", b"\xed\xa0\x80", b"\x0b", b"'"]
    ),
    max_size=10,
).map(b"".join)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A JSON text with a few bytes changed, put in, or lost."""
    text = bytearray(draw(JSON_TEXTS))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        byte = draw(st.integers(0, 255) | st.sampled_from(b'{}[]",:\\ 0eE.-'))
        how = draw(st.integers(0, 2))
        text[at : at + (how > 0)] = b"" if how == 2 else bytes([byte])
    return bytes(text)


EVENTS = JSON_TEXTS | NUMBERS | STRINGS | TOKENS | damaged() | st.binary(max_size=12)


def unmarshalled_by_us(execution_env: str, payload: bytes) -> tuple[str, Any]:
    try:
        return "value", OURS[execution_env].unmarshal(memoryview(payload))
    except faults.Fault as fault:
        return fault.error_type, fault.message


def unmarshalled_by_them(execution_env: str, payload: bytes) -> tuple[str, Any]:
    try:
        return "value", THEIRS[execution_env].unmarshal_request(payload)
    except ric_fault as fault:
        return fault.exception_type, fault.msg


def shape(value: Any) -> str:
    """Tells values apart that are equal: types, the sign of zero, the order of keys."""
    return repr(value)


@generated(8000)
@given(EVENTS)
def test_events(payload: bytes) -> None:
    kind, value = unmarshalled_by_us(ENVIRONMENTS[0], payload)
    expected_kind, expected = unmarshalled_by_them(ENVIRONMENTS[0], payload)
    assert (kind, shape(value)) == (expected_kind, shape(expected))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"\xef\xbb\xbf{}",
        b'{"a":1,"b":2,"a":3}',
        b"1" * 4300,
        b"1" * 4301,
        b"1e400",
        b"-1e400",
        b"1e-400",
        b"0e99999999999999999999",
        b"1e99999999999999999999",
        b"18446744073709551616",
        b'"\\ud800"',
        b"NaN",
        b'"\xed\xa0\x80"',
        b'{"a":1}' + b" " * 2000,
        json.dumps({"k" * 40: ["é" * 700, 1.5, None]}).encode(),
    ],
    ids=lambda payload: repr(payload[:24]),
)
def test_chosen_events(payload: bytes) -> None:
    kind, value = unmarshalled_by_us(ENVIRONMENTS[0], payload)
    expected_kind, expected = unmarshalled_by_them(ENVIRONMENTS[0], payload)
    assert (kind, shape(value)) == (expected_kind, shape(expected))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="C recursion has a limit of its own there")
@pytest.mark.parametrize(
    "nest",
    [
        lambda depth: b"[" * depth + b"]" * depth,
        lambda depth: b"[" * depth + b"1" + b"]" * depth,
        lambda depth: b'{"a":' * depth + b"1" + b"}" * depth,
        lambda depth: b'[{"a":' * (depth // 2) + b"1" + b"}]" * (depth // 2),
    ],
)
def test_deeply_nested_events(nest: Callable[[int], bytes]) -> None:
    kinds = []
    for depth in range(sys.getrecursionlimit() - 200, sys.getrecursionlimit() + 20):
        ours, theirs = unmarshalled_by_us("AWS_Lambda_python3.11", nest(depth)), unmarshalled_by_them(
            "AWS_Lambda_python3.11", nest(depth)
        )
        kinds.append(ours[0])
        assert ours[0] == theirs[0], depth
        if ours[0] != "value":
            assert ours[1] == theirs[1]
    assert set(kinds) == {"value", faults.UNMARSHAL_ERROR}


# Results ---------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Mask(enum.IntFlag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Order:
    number: int


class LoudText(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "loud"


class LoudInteger(int):
    def __str__(self) -> str:
        return "loud"

    __repr__ = __str__


class LoudFloat(float):
    def __repr__(self) -> str:
        return "loud"


class SpeaksJson:
    def for_json(self) -> dict[str, int]:
        return {"for_json": 1}


class WrongAsdict:
    def _asdict(self) -> int:
        return 1


class FailingAsdict:
    def _asdict(self) -> int:
        raise KeyError("no")


class BrokenAsdict:
    @property
    def _asdict(self) -> int:
        raise LookupError("broken")


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=6)
INTEGERS = st.integers() | st.integers(4290, 4310).map(lambda digits: 10**digits) | st.integers(-(2**70), 2**70)
ODD_VALUES = st.one_of(
    st.binary(max_size=6),
    st.decimals(),
    st.sampled_from([decimal.Decimal(t) for t in ("sNaN", "-NaN", "-Infinity", "1E+30", "-0", "0E-10", "NaN123", "1.10")]),
    st.datetimes() | st.dates() | st.times() | st.timedeltas(),
    st.uuids(),
    st.fractions() | st.complex_numbers(),
    st.sampled_from([Colour.RED, Level.LOW, Word.YES, Mask.A, Mask.A | Mask.B, int, Ellipsis, range(3), print]),
    st.builds(Order, st.integers()),
    st.builds(LoudText, ANY_TEXT) | st.builds(LoudInteger, st.integers()) | st.builds(LoudFloat, st.floats()),
    st.sampled_from([SpeaksJson, WrongAsdict, FailingAsdict, BrokenAsdict, object]).map(lambda kind: kind()),
    st.builds(simplejson.RawJSON, st.just('{"raw":1}')),
    st.builds(bytearray, st.binary(max_size=3)) | st.builds(memoryview, st.binary(max_size=3)),
    st.builds(lambda: (item for item in "ab")),
    st.sets(st.integers(), max_size=2) | st.frozensets(st.text(max_size=2), max_size=2),
)
PLAIN_VALUES = st.none() | st.booleans() | INTEGERS | st.floats() | ANY_TEXT
ODD_KEYS = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats(),
    st.binary(max_size=4),
    st.sampled_from([decimal.Decimal("1.5"), Level.LOW, Word.YES, Colour.RED, (1, 2), LoudInteger(7), LoudFloat(1.5)]),
    st.builds(LoudText, ANY_TEXT),
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(ANY_TEXT, inner, max_size=4),
        st.dictionaries(ANY_TEXT | ODD_KEYS, inner, max_size=3),
        st.tuples(inner, inner),
        st.builds(Point, inner, inner),
        st.builds(lambda items: collections.OrderedDict(items), st.lists(st.tuples(ANY_TEXT, inner), max_size=2)),
        st.builds(lambda value: collections.defaultdict(list, {"a": value}), inner),
        st.builds(lambda items: collections.deque(items), st.lists(inner, max_size=2)),
        st.builds(lambda value: types.MappingProxyType({"a": value}), inner),
    )


PLAIN_RESULTS = st.recursive(
    PLAIN_VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=8,
)
ODD_RESULTS = st.recursive(PLAIN_VALUES | ODD_VALUES, containers, max_leaves=6)


def marshalled_by_us(execution_env: str, result: Any) -> tuple[Any, ...]:
    try:
        return "payload", *OURS[execution_env].marshal(result)
    except faults.Fault as fault:
        return fault.error_type, fault.message
    except faults.RuntimeCrash as crash:
        return "crash", type(crash.error).__name__, str(crash.error)


class Recorder:
    """Stands for the C half of AWS's client: it keeps what would have gone out."""

    def __init__(self) -> None:
        self.sent: tuple[Any, ...] = ()

    def post_invocation_result(self, request_id: str, payload: bytes, content_type: str, _: Any) -> None:
        self.sent = ("payload", payload, content_type)

    def post_error(self, request_id: str, payload: str, xray_fault: str, _: Any) -> None:
        # The C half takes texts as UTF-8.
        self.sent = ("error", payload.encode())


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder()
        patch.setattr(ric_client, "runtime_client", recorder)
        yield recorder


def marshalled_by_them(execution_env: str, result: Any, recorder: Recorder) -> tuple[Any, ...]:
    try:
        payload, content_type = THEIRS[execution_env].marshal_response(result)
    except ric_fault as fault:
        return fault.exception_type, fault.msg
    try:
        ric_client.LambdaRuntimeClient("").post_invocation_result(REQUEST_ID, payload, content_type)
    except Exception as error:
        return "crash", type(error).__name__, str(error)
    return recorder.sent


def assert_same_result(result: Any, recorder: Recorder) -> None:
    for execution_env in ENVIRONMENTS:
        assert marshalled_by_us(execution_env, result) == marshalled_by_them(execution_env, result, recorder)


@generated(7000)
@given(result=PLAIN_RESULTS)
def test_plain_results(recorder: Recorder, result: Any) -> None:
    assert_same_result(result, recorder)


@generated(5000)
@given(result=ODD_RESULTS)
def test_odd_results(recorder: Recorder, result: Any) -> None:
    assert_same_result(result, recorder)


@generated(1500)
@given(value=st.floats() | st.floats(width=32) | st.integers(-(10**17), 10**17).map(float))
def test_floats(recorder: Recorder, value: float) -> None:
    assert_same_result([value, {"v": value}], recorder)


def circular() -> list[Any]:
    items: list[Any] = [1]
    items.append({"again": items})
    return items


@pytest.mark.parametrize(
    "result",
    [
        circular(),
        "".join(map(chr, range(0x100))),
        "\u2028\u2029\x7f\x80\ufeff\uffff\U0010ffff",
        "\ud800",
        {"\ud800": 1},
        b"\xff",
        [b"\xff"],
        {"statusCode": 200, "body": "é"},
        {1: "a", "1": "b", None: 0, True: 1, 1.5: 2},
        "x" * 100_000,
        {"big": ["é" * 1000] * 50},
        [shared := {"a": []}, shared, shared],
    ],
    ids=lambda result: repr(result)[:24].encode("ascii", "backslashreplace").decode(),
)
def test_chosen_results(recorder: Recorder, result: Any) -> None:
    assert_same_result(result, recorder)


@pytest.mark.parametrize("wrap", [lambda value: [value], lambda value: {"a": value}, lambda value: (value, 1)])
def test_deeply_nested_results(recorder: Recorder, wrap: Callable[[Any], Any]) -> None:
    result: Any = 1
    kinds = set()
    for depth in range(sys.getrecursionlimit() + 20):
        result = wrap(result)
        if depth > sys.getrecursionlimit() - 200:
            ours = marshalled_by_us(ENVIRONMENTS[1], result)
            assert ours == marshalled_by_them(ENVIRONMENTS[1], result, recorder), depth
            kinds.add(ours[0])
    assert "payload" in kinds
    assert sys.version_info >= (3, 12) or kinds == {"payload", faults.MARSHAL_ERROR}


# The context object ----------------------------------------------------------------------------

CLIENT_CONTEXTS = st.builds(
    json.dumps,
    st.fixed_dictionaries(
        {},
        optional={
            "client": st.none() | st.dictionaries(st.sampled_from(["installation_id", "app_title", "other"]), JSON_VALUES),
            "custom": JSON_VALUES,
            "env": JSON_VALUES,
            "w3c": JSON_VALUES | st.dictionaries(st.sampled_from(["traceparent", "tracestate", "x"]), st.text() | st.none()),
        },
    )
    | JSON_VALUES,
)
STATIC = {
    "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/hello",
    "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[$LATEST]0123456789abcdef",
    "AWS_LAMBDA_FUNCTION_NAME": "hello",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
}


def described(make: Callable[[], Any], fault: type[Exception]) -> Any:
    try:
        made = make()
    except fault as error:
        return getattr(error, "error_type", None) or error.exception_type, getattr(error, "message", None) or error.msg
    except AttributeError as error:
        return str(error)
    return repr(made), repr(vars(made)), made.w3c(), type(made).__module__, type(made.identity).__module__


@generated(1500)
@given(client=st.none() | CLIENT_CONTEXTS | st.text(max_size=5), identity=st.none() | CLIENT_CONTEXTS | st.just("{"))
def test_contexts(client: str | None, identity: str | None) -> None:
    factory = context.ContextFactory(STATIC)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in STATIC.items():
            patch.setenv(name, value)
        theirs = described(
            lambda: ric.create_lambda_context(client, identity, 1_700_000_000_000, REQUEST_ID, ARN, "tenant"), ric_fault
        )
    ours = described(
        lambda: factory.make(REQUEST_ID, 1_700_000_000_000, ARN, client, identity, "tenant"), faults.Fault
    )
    assert ours == theirs


# Handlers, failures and their log events -------------------------------------------------------

MODULES = {
    "app.py": """
        import json

        NUMBER = 5

        class Broken(Exception):
            def __str__(self):
                raise ValueError("no message")

        def fails(event, context):
            raise Exception("Handler fails")

        def fails_below(event, context):
            def inner():
                return json.loads("[") + \\
                    1
            return inner()

        def one_parameter(event):
            return event

        def groups(event, context):
            raise ExceptionGroup("several", [ValueError(1), KeyError("k")])

        def chained(event, context):
            try:
                1 / 0
            except ZeroDivisionError as error:
                raise RuntimeError("second\\nline") from error

        def recursive(event, context):
            return recursive(event, context)

        def executes(event, context):
            exec("raise KeyError('from exec')")

        def no_message(event, context):
            raise ValueError

        def broken(event, context):
            raise Broken

        def lone_surrogate(event, context):
            raise ValueError("\\ud800")

        def syntax(event, context):
            compile("a b", "thing", "exec")

        def names_its_file(event, context):
            raise OSError(__file__)

        def noted(event, context):
            error = ValueError("é")
            error.add_note("a note")
            raise error

        def echo(event, context):
            return event

        def unserialisable(event, context):
            return {"a": object()}
    """,
    "pkg/deep/mod.py": "def handler(event, context):\n    return 1\n",
    "syntax_error.py": "def handler(event, context):\n    return (\n",
    "indentation.py": "def a():\nreturn 1\n",
    "null_byte.py": "a = 1\0\n",
    "raises.py": "def f():\n    raise KeyError('at import')\n\nf()\n",
    "raises_import_error.py": "raise ImportError('by hand')\n",
    "missing_import.py": "import no_such_module_at_all\n",
    "missing_name.py": "from app import no_such_name\n",
    "imports_bad.py": "import syntax_error\n",
    "dynamic.py": "def __getattr__(name):\n    raise LookupError(name)\n",
    "latin.py": "# \xe9\n",
    "odd/bootstrap.py": "def handler(event, context):\n    return helper()\n\ndef helper():\n    return {}['x']\n",
}
HANDLERS = [
    "",
    "handler",
    "app.",
    ".handler",
    "..handler",
    "app.fails",
    "app.missing",
    "app.fails.deeper",
    "nothing.handler",
    "no/such/path.handler",
    "sys.exit",
    "sys.path.append",
    "builtins.print",
    "pkg/deep/mod.handler",
    "pkg.deep.mod.handler",
    "pkg/deep.mod.handler",
    "/app.handler",
    "syntax_error.handler",
    "indentation.handler",
    "null_byte.handler",
    "raises.handler",
    "raises_import_error.handler",
    "missing_import.handler",
    "missing_name.handler",
    "imports_bad.handler",
    "dynamic.handler",
    "latin.handler",
    "json.loads",
    "app.NUMBER",
]


@pytest.fixture
def task_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in MODULES.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = text.split("\n")
        indent = "        " if lines[0] == "" else ""
        file.write_bytes("\n".join(line.removeprefix(indent) for line in lines).encode("latin-1" if name == "latin.py" else "utf-8"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def as_in_lambda(text: str, task_root: Path) -> str:
    """AWS's client ran here: what it says of paths is put as it would say it in Lambda."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    language_root = f"/var/lang/lib/python{version}"
    client_directory = str(Path(ric.__file__).parent)
    text = text.replace(client_directory, f"{language_root}/site-packages/awslambdaric")
    return text.replace(str(task_root), "/var/task").replace(str(Path(os.__file__).parent), language_root)


@pytest.mark.parametrize("handler", HANDLERS)
def test_handler_resolution(task_root: Path, handler: str) -> None:
    def forget() -> None:
        for name in [name for name, module in sys.modules.items() if str(task_root) in str(vars(module).get("__file__"))]:
            del sys.modules[name]

    try:
        expected = ("found", str(ric._get_handler(handler)).split(" at ")[0])
    except ric_fault as fault:
        expected = ("failed", json.dumps(ric.make_error(fault.msg, fault.exception_type, fault.trace)))
    except Exception:
        kind, error, trace = sys.exc_info()
        assert trace is not None  # its first frame is this function
        expected = ("failed", json.dumps(ric.build_fault_result((kind, error, trace.tb_next), None)))
    forget()
    try:
        found = ("found", str(bootstrap.resolve_handler(handler)).split(" at ")[0])
    except faults.Fault as fault:
        assert fault.error_type in faults.FAULT_TYPES
        found = ("failed", json.dumps(faults.payload_from_fault(fault, None, task_root=str(task_root))))
    except Exception as error:
        payload = faults.payload_from_exception(error, None, skip_prefixes=SKIPPED, task_root=str(task_root))
        found = ("failed", json.dumps(payload))
    assert found == (expected[0], as_in_lambda(expected[1], task_root))


# Here the client's own process ends: the message cannot be had, or cannot be sent.
CRASHES = {"app.broken", "app.lone_surrogate"}
SKIPPED = (*faults.RUNTIME_DIRECTORIES, __file__)
INVOKED = [f"app.{name}" for name in re.findall(r"def (\w+)\(event", MODULES["app.py"])]
INVOKED += ["app.NUMBER", "odd/bootstrap.handler"]
FROZEN_TIME = 1_764_026_480.123


def invoked_by_us(handler: str, event: bytes, execution_env: str, log_format: str, task_root: Path) -> tuple[Any, ...]:
    """An invocation as the worker's loop does it: (what is sent, what is logged)."""
    ours = OURS[execution_env]
    function = bootstrap.resolve_handler(handler)
    try:
        lambda_context = context.ContextFactory(STATIC).make(REQUEST_ID, 0, ARN)
        return "payload", *ours.marshal(function(ours.unmarshal(event), lambda_context)), ""
    except faults.Fault as fault:
        payload = faults.payload_from_fault(fault, REQUEST_ID, task_root=str(task_root))
    except Exception as error:
        payload = faults.payload_from_exception(error, REQUEST_ID, skip_prefixes=SKIPPED, task_root=str(task_root))
    return "error", ours.encode_error(payload), logs.error_event(payload, log_format, ours)


def client_with(log_format: str) -> types.ModuleType:
    """AWS's bootstrap module as it comes up with this log format."""
    spec = importlib.util.spec_from_file_location("awslambdaric.bootstrap_again", ric.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_LAMBDA_LOG_FORMAT", log_format)
        spec.loader.exec_module(module)
    return module


CLIENTS = {log_format: client_with(log_format) for log_format in ("Text", "JSON")}


def invoked_by_them(
    handler: str, event: bytes, execution_env: str, log_format: str, recorder: Recorder
) -> tuple[Any, ...]:
    module = CLIENTS[log_format]
    client = ric_client.LambdaRuntimeClient("")
    client.marshaller = THEIRS[execution_env]
    log = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_EXECUTION_ENV", execution_env)
        patch.setattr(sys, "stdout", log)
        module.handle_event_request(
            client,
            module._get_handler(handler),
            REQUEST_ID,
            event,
            "application/json",
            None,
            None,
            ARN,
            0,
            None,
            module.StandardLogSink(),
        )
    return *recorder.sent, log.getvalue()


def text_of(sent: str | bytes) -> str:
    text = sent if isinstance(sent, str) else sent.decode()
    # How far a recursion came depends on what called the handler.
    return re.sub(r"repeated \d+ more", "repeated some more", text)


@pytest.mark.parametrize("execution_env", ENVIRONMENTS)
@pytest.mark.parametrize("log_format", ["Text", "JSON"])
@pytest.mark.parametrize("handler", INVOKED)
def test_invocations(
    task_root: Path,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    handler: str,
    log_format: str,
    execution_env: str,
) -> None:
    monkeypatch.setattr(time, "time", lambda: FROZEN_TIME)
    for event in (b'{"a": "\xc3\xa9"}', b"{"):
        try:
            expected = invoked_by_them(handler, event, execution_env, log_format, recorder)
        except Exception as error:
            assert handler in CRASHES
            with pytest.raises(faults.RuntimeCrash) as caught:
                invoked_by_us(handler, event, execution_env, log_format, task_root)
            assert (type(caught.value.error), str(caught.value.error)) == (type(error), str(error))
            continue
        shown = [as_in_lambda(text_of(part), task_root) for part in expected]
        found = invoked_by_us(handler, event, execution_env, log_format, task_root)
        assert [text_of(part) for part in found] == shown


# logging ---------------------------------------------------------------------------------------


class Lines(list[str]):
    """A log sink of AWS's client."""

    def log(self, message: str, frame_type: bytes | None = None) -> None:
        self.append(message)


@pytest.fixture
def bare_logging(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    root = logging.getLogger()
    monkeypatch.setattr(logging.Formatter, "converter", logging.Formatter.converter)
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.WARNING)
    return root


def record_of(message: Any, args: Any, level: int, extra: dict[str, Any], with_error: bool) -> logging.LogRecord:
    error = None
    if with_error:
        try:
            raise ValueError("in the log")
        except ValueError:
            error = sys.exc_info()
    record = logging.getLogger("some.logger").makeRecord(
        "some.logger", level, "/var/task/app.py", 7, message, args, error, "handler", extra
    )
    record.created, record.msecs = FROZEN_TIME, 123.0
    return record


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_log_records(bare_logging: logging.Logger, log_format: str) -> None:
    theirs = Lines()
    CLIENTS[log_format]._setup_logging(ric.LogFormat.from_str(log_format), "", theirs)
    logs.setup_logging(log_format, None)
    their_handler, our_handler = bare_logging.handlers[-2:]  # pytest adds its own

    @generated(1500)
    @given(
        message=st.text() | st.sampled_from(["%s", "%d and %s"]) | JSON_VALUES,
        args=st.just(()) | st.tuples(st.text()) | st.tuples(st.integers(), st.floats()),
        level=st.sampled_from([0, 5, 10, 20, 25, 30, 40, 50, 60]),
        extra=st.dictionaries(st.sampled_from(["order", "requestId", "level", "tenantId", "taskName", "_frame_type"]), PLAIN_VALUES),
        with_error=st.booleans(),
        tenant=st.none() | st.text(),
    )
    def compare(message: Any, args: Any, level: int, extra: Any, with_error: bool, tenant: str | None) -> None:
        outcomes = []
        CLIENTS[log_format]._GLOBAL_AWS_REQUEST_ID = REQUEST_ID
        CLIENTS[log_format]._GLOBAL_TENANT_ID = tenant
        logs.set_request(REQUEST_ID, tenant)
        for handler in (their_handler, our_handler):
            record = record_of(message, args, level, dict(extra), with_error)
            try:
                handler.filter(record)
                outcomes.append((handler.format(record), record.levelno, record.levelname))
            except Exception as error:
                outcomes.append((type(error), str(error)))
        assert outcomes[0] == outcomes[1]

    compare()


@pytest.mark.parametrize("level", [None, "", "TRACE", "DEBUG", "debug", "INFO", "WARN", "FATAL", "trace", "LOUD"])
def test_log_levels(bare_logging: logging.Logger, level: str | None) -> None:
    ric._setup_logging(ric.LogFormat.TEXT, ric._get_log_level_from_env_var(level), Lines())
    expected = bare_logging.level
    bare_logging.level = logging.WARNING
    logs.setup_logging("Text", level)
    assert bare_logging.level == expected


def test_context_log(bare_logging: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    lambda_context = context.ContextFactory(STATIC).make(REQUEST_ID, 0, ARN)
    lambda_context.log({"without": "set-up"})
    logs.setup_logging("Text", None)
    lambda_context.log(5)
    assert out.getvalue() == "{'without': 'set-up'}5"
