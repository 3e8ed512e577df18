"""The function's log: streams on descriptors 1 and 2, the `logging` set-up of a handler, and error events."""

from __future__ import annotations

import io
import json
import logging
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any, Final, TextIO

from fastlam.worker.faults import ErrorPayload, log_lines
from fastlam.worker.marshaller import Marshaller

_TEXT_FORMAT: Final = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n"
_TEXT_TIME: Final = "%Y-%m-%dT%H:%M:%S"
_JSON_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"

# One event may hold several lines of text: in a stream of lines a carriage return parts them.
_LINE_SEPARATOR: Final = "\r"

# Attributes of a log record that are not fields given by the caller through `extra`.
_RECORD_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {
    "aws_request_id",
    "tenant_id",
    "_frame_type",
}
# Attributes newer than Lambda's list pass as extra fields there, so they do here.
_PASSED_ATTRIBUTES: Final = frozenset({"taskName"})

_encode_record = json.JSONEncoder(ensure_ascii=False, default=str).encode

_request_id: str = ""
_tenant_id: str | None = None


def set_request(request_id: str, tenant_id: str | None = None) -> None:
    """Names the invocation to which the log records from now on belong; both stay until the next one."""
    global _request_id, _tenant_id
    _request_id = request_id
    _tenant_id = tenant_id


def open_streams() -> tuple[TextIO, TextIO]:
    """Text streams over descriptors 1 and 2, without any buffer: a write has reached the descriptor when it returns.

    The caller makes them sys.stdout and sys.stderr. `.buffer` is unbuffered too. Characters that UTF-8 cannot hold are
    written as escapes: a print never fails an invocation.
    """
    return _open_stream(1, "<stdout>"), _open_stream(2, "<stderr>")


def _open_stream(descriptor: int, name: str) -> TextIO:
    raw = io.FileIO(descriptor, "w", closefd=False)
    raw.name = name
    # A raw file below a write-through text layer is what `python -u` uses: both layers are C and nothing is held back.
    stream = io.TextIOWrapper(
        raw,
        encoding="utf-8",
        errors="backslashreplace",
        newline="\n",
        write_through=True,
    )
    stream.mode = "w"  # type: ignore[misc]
    return stream


class LogSink:
    """Where log events go: whatever sys.stdout is at that moment, as user code may replace it."""

    def log(self, msg: str) -> None:
        sys.stdout.write(msg)


class LambdaLoggerHandler(logging.Handler):
    """The handler of the root logger."""

    def __init__(self, log_sink: LogSink) -> None:
        super().__init__()
        self.log_sink = log_sink

    def emit(self, record: logging.LogRecord) -> None:
        self.log_sink.log(self.format(record))


class LambdaLoggerFilter(logging.Filter):
    """Stamps each record with the invocation it belongs to."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.aws_request_id = _request_id
        record.tenant_id = _tenant_id
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a record, for functions whose log format is JSON."""

    def __init__(self) -> None:
        super().__init__(datefmt=_JSON_TIME)

    def format(self, record: logging.LogRecord) -> str:
        # Levels of the user's own are rounded down to one of the five; later handlers see that too, as in Lambda.
        record.levelno = min(logging.CRITICAL, max(logging.NOTSET, record.levelno)) // 10 * 10
        record.levelname = logging.getLevelName(record.levelno)
        error_type, error, error_traceback = record.exc_info or (None, None, None)
        plain = isinstance(record.msg, dict) and not record.args
        fields: dict[str, Any] = {
            "timestamp": self.formatTime(record, self.datefmt),
            "level": record.levelname,
            "message": record.msg if plain else record.getMessage(),
            "logger": record.name,
            "stackTrace": None,
            "errorType": None,
            "errorMessage": None,
            "requestId": getattr(record, "aws_request_id", None),
            "location": None,
        }
        if record.exc_info:
            fields["stackTrace"] = traceback.format_tb(error_traceback)
            fields["errorType"] = error_type.__name__  # type: ignore[union-attr]
            fields["errorMessage"] = str(error)
            fields["location"] = f"{record.pathname}:{record.funcName}:{record.lineno}"
        if getattr(record, "tenant_id", None) is not None:
            fields["tenantId"] = record.tenant_id  # type: ignore[attr-defined]
        for name, value in vars(record).items():
            if name not in fields and (name not in _RECORD_ATTRIBUTES or name in _PASSED_ATTRIBUTES):
                fields[name] = value
        return _encode_record({name: value for name, value in fields.items() if value is not None}) + "\n"


def is_json(log_format: str | None) -> bool:
    """Whether a value of AWS_LAMBDA_LOG_FORMAT means JSON; anything else is text."""
    return (log_format or "").upper() == "JSON"


def setup_logging(log_format: str | None, log_level: str | None) -> None:
    """Prepares the root logger; the arguments are AWS_LAMBDA_LOG_FORMAT and AWS_LAMBDA_LOG_LEVEL as they stand.

    Without a level the root logger keeps Python's own, WARNING.
    """
    logging.Formatter.converter = time.gmtime
    handler = LambdaLoggerHandler(LogSink())
    handler.setFormatter(JsonFormatter() if is_json(log_format) else logging.Formatter(_TEXT_FORMAT, _TEXT_TIME))
    handler.addFilter(LambdaLoggerFilter())
    root = logging.getLogger()
    # Lambda's TRACE is no level of Python's.
    level = "DEBUG" if log_level == "TRACE" else (log_level or "").upper()
    if level in logging.getLevelNamesMapping():
        root.setLevel(level)
    root.addHandler(handler)


def rehearse() -> None:
    """Does once, without an effect, what every worker does at its start (worker.start.rehearse_function)."""
    root = logging.getLogger()
    handlers, converter = root.handlers[:], logging.Formatter.converter
    open_streams()
    setup_logging(None, None)
    root.handlers[:], logging.Formatter.converter = handlers, converter


def error_event(payload: ErrorPayload, log_format: str | None, marshaller: Marshaller) -> str:
    """The log event of a failed invocation or INIT, ready to be written to the log."""
    if not is_json(log_format):
        return _LINE_SEPARATOR.join(log_lines(payload)) + "\n"
    timestamp = time.strftime(_JSON_TIME, logging.Formatter.converter(time.time()))
    event: Mapping[str, object] = {"timestamp": timestamp, "level": "ERROR", **payload}
    return marshaller.encode_text(event) + "\n"


def warn_init_failure() -> None:
    """The warning that comes before the error event of a failed INIT."""
    logging.warning(
        "LAMBDA_WARNING: Unhandled exception. The function's code could not be initialised, see the error below.\r"
    )
