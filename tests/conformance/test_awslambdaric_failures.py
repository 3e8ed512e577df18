"""Our worker against AWS's own Python client, package awslambdaric: the context, handlers, failures and log events."""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import re
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlam.worker import bootstrap, context, faults, logs
from lambda_client import (
    ARN,
    ENVIRONMENTS,
    JSON_VALUES,
    OURS,
    REQUEST_ID,
    THEIRS,
    Recorder,
    generated,
    recording,
    ric,
    ric_client,
    ric_fault,
)

PLAIN_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    with recording() as own:
        yield own


# The context object ----------------------------------------------------------------------------

CLIENT_CONTEXTS = st.builds(
    json.dumps,
    st.fixed_dictionaries(
        {},
        optional={
            "client": st.none()
            | st.dictionaries(st.sampled_from(["installation_id", "app_title", "other"]), JSON_VALUES),
            "custom": JSON_VALUES,
            "env": JSON_VALUES,
            "w3c": JSON_VALUES
            | st.dictionaries(st.sampled_from(["traceparent", "tracestate", "x"]), st.text() | st.none()),
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


def described(make: Callable[[], Any], fault: Any) -> Any:
    try:
        made = make()
    except fault as error:
        return getattr(error, "error_type", None) or error.exception_type, getattr(error, "message", None) or error.msg
    except AttributeError as error:
        return str(error)
    return repr(made), repr(vars(made)), made.w3c(), type(made).__module__, type(made.identity).__module__


@generated(1000)
@given(client=st.none() | CLIENT_CONTEXTS | st.text(max_size=5), identity=st.none() | CLIENT_CONTEXTS | st.just("{"))
def test_contexts(client: str | None, identity: str | None) -> None:
    factory = context.ContextFactory(STATIC)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in STATIC.items():
            patch.setenv(name, value)
        theirs = described(
            lambda: ric.create_lambda_context(client, identity, 1_700_000_000_000, REQUEST_ID, ARN, "tenant"), ric_fault
        )
    ours = described(lambda: factory.make(REQUEST_ID, 1_700_000_000_000, ARN, client, identity, "tenant"), faults.Fault)
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
        file.write_bytes(
            "\n".join(line.removeprefix(indent) for line in lines).encode("latin-1" if name == "latin.py" else "utf-8")
        )
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
        for name in [
            name for name, module in sys.modules.items() if str(task_root) in str(vars(module).get("__file__"))
        ]:
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
            # Where in which text the character stands differs: the client encodes a second document first.
            assert type(caught.value.error) is type(error)
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
    # From Python 3.12 on every record has this one, and refuses to be given it.
    more = {name: value for name, value in extra.items() if name != "taskName"}
    record = logging.getLogger("some.logger").makeRecord(
        "some.logger", level, "/var/task/app.py", 7, message, args, error, "handler", more
    )
    vars(record).update(extra)
    record.created, record.msecs = FROZEN_TIME, 123.0
    return record


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_log_records(bare_logging: logging.Logger, log_format: str) -> None:
    theirs = Lines()
    CLIENTS[log_format]._setup_logging(ric.LogFormat.from_str(log_format), "", theirs)
    logs.setup_logging(log_format, None)
    their_handler, our_handler = bare_logging.handlers[-2:]  # pytest adds its own

    @generated(600)
    @given(
        message=st.text() | st.sampled_from(["%s", "%d and %s"]) | JSON_VALUES,
        args=st.just(()) | st.tuples(st.text()) | st.tuples(st.integers(), st.floats()),
        level=st.sampled_from([0, 5, 10, 20, 25, 30, 40, 50, 60]),
        extra=st.dictionaries(
            st.sampled_from(["order", "requestId", "level", "tenantId", "taskName", "_frame_type"]), PLAIN_VALUES
        ),
        with_error=st.booleans(),
        tenant=st.none() | st.text(),
    )
    def compare(message: Any, args: Any, level: int, extra: Any, with_error: bool, tenant: str | None) -> None:
        outcomes: list[tuple[Any, ...]] = []
        vars(CLIENTS[log_format]).update(_GLOBAL_AWS_REQUEST_ID=REQUEST_ID, _GLOBAL_TENANT_ID=tenant)
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
