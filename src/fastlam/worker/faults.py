"""What the runtime says when something fails: fault types, error payloads and their log lines.

Two kinds of failure exist. A `Fault` is the runtime's own word on a handler that cannot be found or an event that
cannot be read; any other exception is the function's. Both become the error document that the caller of a function
sees. Failures that Lambda's Python client does not survive itself are a `RuntimeCrash`.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, TypedDict

MALFORMED_HANDLER_NAME: Final = "Runtime.MalformedHandlerName"
BUILT_IN_MODULE_CONFLICT: Final = "Runtime.BuiltInModuleConflict"
IMPORT_MODULE_ERROR: Final = "Runtime.ImportModuleError"
USER_CODE_SYNTAX_ERROR: Final = "Runtime.UserCodeSyntaxError"
HANDLER_NOT_FOUND: Final = "Runtime.HandlerNotFound"
UNMARSHAL_ERROR: Final = "Runtime.UnmarshalError"
MARSHAL_ERROR: Final = "Runtime.MarshalError"
LAMBDA_CONTEXT_UNMARSHAL_ERROR: Final = "Runtime.LambdaContextUnmarshalError"
BEFORE_SNAPSHOT_ERROR: Final = "Runtime.BeforeSnapshotError"
AFTER_RESTORE_ERROR: Final = "Runtime.AfterRestoreError"

FAULT_TYPES: Final = frozenset(
    {
        MALFORMED_HANDLER_NAME,
        BUILT_IN_MODULE_CONFLICT,
        IMPORT_MODULE_ERROR,
        USER_CODE_SYNTAX_ERROR,
        HANDLER_NOT_FOUND,
        UNMARSHAL_ERROR,
        MARSHAL_ERROR,
        LAMBDA_CONTEXT_UNMARSHAL_ERROR,
        BEFORE_SNAPSHOT_ERROR,
        AFTER_RESTORE_ERROR,
    }
)

TASK_ROOT: Final = "/var/task"
LAYER_ROOT: Final = "/opt"
LANGUAGE_ROOT: Final = f"/var/lang/lib/python{sys.version_info.major}.{sys.version_info.minor}"

# File name, line, function and source text.
_Frame = tuple[str, int | None, str, str | None]

# Where Lambda's own client calls the handler: the only frame of a call that fails before the handler's first line
# (wrong number of parameters, a handler that is no function). File, line and text are those of release 4.2.2.
_CALL_OF_THE_HANDLER: Final[_Frame] = (
    f"{LANGUAGE_ROOT}/site-packages/awslambdaric/bootstrap.py",
    178,
    "handle_event_request",
    "response = request_handler(event, lambda_context)",
)
_BOOTSTRAP_FILE: Final = "/bootstrap.py"

_WORKER_DIRECTORY: Final = Path(__file__).parent
# The last four are how compiled modules name their sources in tracebacks.
RUNTIME_DIRECTORIES: Final = (
    f"{_WORKER_DIRECTORY}/",
    f"{_WORKER_DIRECTORY.parent / 'core'}/",
    "src/fastlam/worker/",
    "src/fastlam/core/",
    "fastlam/worker/",
    "fastlam/core/",
)

_NO_BREAK_SPACE: Final = "\u00a0"


class ErrorPayload(TypedDict):
    """The error document, its keys in the order in which they are written."""

    errorMessage: str
    errorType: str
    requestId: str
    stackTrace: list[str]


class Fault(Exception):
    """A failure that the runtime itself reports; `error_type` is one of `FAULT_TYPES`."""

    def __init__(self, error_type: str, message: str, stack_trace: Sequence[str] = ()) -> None:
        super().__init__(error_type, message)
        self.error_type = error_type
        self.message = message
        self.stack_trace = list(stack_trace)


class RuntimeCrash(BaseException):
    """Lambda's client dies here with exit status 1 and `error`'s traceback on stderr; no payload is sent.

    Not an `Exception`, so that code which turns exceptions into payloads lets it pass.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class PathView:
    """Shows the paths of this machine as they are inside Lambda.

    `text` does so for paths anywhere in a text, `path` for one whole path.
    """

    def __init__(self, directories: Sequence[tuple[str, str]]) -> None:
        shown_of = {real.rstrip("/"): shown for real, shown in directories}
        self._shown = {real: shown for real, shown in shown_of.items() if real not in ("", shown)}
        longest_first = sorted(self._shown, key=len, reverse=True)
        self._prefixes = [(f"{real}/", f"{self._shown[real]}/") for real in longest_first]
        # A longer name that merely contains a directory's is another directory.
        names = "|".join(re.escape(real) for real in longest_first)
        self._pattern = re.compile(rf"(?<![\w.-])(?:{names})(?![\w.-])") if names else None

    def path(self, path: str) -> str:
        for real, shown in self._prefixes:
            if path.startswith(real):
                return shown + path[len(real) :]
        return path

    def text(self, text: str) -> str:
        if self._pattern is None or "/" not in text:
            return text
        return self._pattern.sub(lambda match: self._shown[match.group()], text)


@lru_cache(maxsize=8)
def path_view(task_root: str, layer_root: str = "") -> PathView:
    """The view for a function whose code lies in `task_root` and whose layers lie in `layer_root`."""
    standard_library = str(Path(os.__file__).parent)
    directories = [(standard_library, LANGUAGE_ROOT), (os.path.realpath(standard_library), LANGUAGE_ROOT)]
    for finder in sys.meta_path:
        # The finder of imports.py: what it serves lies in Lambda's own site-packages.
        for directory in getattr(finder, "package_directories", ()):
            directories.append((directory, f"{LANGUAGE_ROOT}/site-packages"))
    for real, shown in ((layer_root, LAYER_ROOT), (task_root, TASK_ROOT)):
        if real:
            directories += [(os.path.realpath(real), shown), (real, shown)]
    return PathView(directories)


def error_payload(
    message: str, error_type: str, stack_trace: Sequence[str] | None, request_id: str | None = None
) -> ErrorPayload:
    """The error document of an invocation, or of INIT when there is no request id."""
    return {
        "errorMessage": message or "",
        "errorType": error_type or "",
        "requestId": request_id if request_id is not None else "",
        "stackTrace": list(stack_trace) if stack_trace else [],
    }


def payload_from_fault(
    fault: Fault, request_id: str | None, *, task_root: str = "", layer_root: str = ""
) -> ErrorPayload:
    """The error document of a fault; paths in its texts are shown as Lambda's."""
    view = path_view(task_root, layer_root)
    stack_trace = [view.text(entry) for entry in fault.stack_trace]
    return error_payload(view.text(fault.message), fault.error_type, stack_trace, request_id)


def payload_from_exception(
    error: BaseException,
    request_id: str | None,
    *,
    skip_prefixes: Sequence[str] = RUNTIME_DIRECTORIES,
    task_root: str = "",
    layer_root: str = "",
) -> ErrorPayload:
    """The error document of an exception that left the function's code (or its import, without a request id).

    Only for `Exception`s: what is merely a `BaseException` (SystemExit, KeyboardInterrupt, CancelledError, ...) ends
    the process instead. Causes, contexts and notes are not part of the document. Raises RuntimeCrash when the exception
    cannot say its message.
    """
    view = path_view(task_root, layer_root)
    frames: list[_Frame] = [
        (view.path(frame.filename), frame.lineno, frame.name, frame.line)
        for frame in _without_leading(traceback.extract_tb(error.__traceback__), tuple(skip_prefixes))
    ]
    try:
        message = str(error)
    except Exception as failure:
        raise RuntimeCrash(failure) from failure
    # Four-tuples, so that no markers are drawn below the source lines.
    stack_trace = traceback.format_list(_as_dropped_by_aws(frames))  # type: ignore[arg-type]
    return error_payload(view.text(message), type(error).__name__, stack_trace, request_id)


def _without_leading(
    frames: Sequence[traceback.FrameSummary], prefixes: tuple[str, ...]
) -> Sequence[traceback.FrameSummary]:
    for position, frame in enumerate(frames):
        if not frame.filename.startswith(prefixes):
            return frames[position:]
    return []


def _as_dropped_by_aws(frames: list[_Frame]) -> list[_Frame]:
    """AWS's client drops leading frames of files named bootstrap.py, a function's too, unless none is left."""
    for position, frame in enumerate(frames):
        if _BOOTSTRAP_FILE not in frame[0]:
            return frames[position:]
    return [_CALL_OF_THE_HANDLER, *frames]


def log_lines(payload: ErrorPayload) -> list[str]:
    """The lines of the one log event that an error makes in the text format; logs.py joins them."""
    head = "[ERROR]"
    if payload["errorType"]:
        head += f" {payload['errorType']}"
    if payload["errorMessage"]:
        head += f"{':' if payload['errorType'] else ''} {payload['errorMessage']}"
    lines = [head, "Traceback (most recent call last):"]
    for entry in payload["stackTrace"]:
        # An entry without text is an empty line of the event.
        lines += [_visible_indentation(line) for line in entry.splitlines()] if entry else [""]
    return lines


def _visible_indentation(line: str) -> str:
    """Leading spaces as no-break spaces: log viewers would drop them."""
    text = line.lstrip(" ")
    return _NO_BREAK_SPACE * (len(line) - len(text)) + text
