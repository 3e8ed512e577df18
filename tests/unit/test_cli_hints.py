"""The usual fix for each kind of function error."""

from __future__ import annotations

from typing import Any

import pytest

from fastlam.cli.hints import hint


def error(kind: str, message: str) -> dict[str, Any]:
    return {"errorType": kind, "errorMessage": message, "stackTrace": []}


@pytest.mark.parametrize(
    ("payload", "fix"),
    [
        (error("Sandbox.Timedout", "RequestId: 1 Error: Task timed out after 3.00 seconds"), "--timeout"),
        (error("Runtime.ExitError", "RequestId: 1 Error: Runtime exited with error: signal: killed"), "--memory"),
        (error("Runtime.OutOfMemory", "RequestId: 1 Error: …"), "--memory"),
        (error("MemoryError", ""), "--memory"),
        (
            error("Runtime.ImportModuleError", "Unable to import module 'app': No module named 'requests'"),
            "requirements.txt",
        ),
        (error("Runtime.ImportModuleError", "Unable to import module 'app': No module named 'app'"), "--handler"),
        (error("Runtime.ImportModuleError", "Unable to import module 'pkg/app': No module named 'pkg'"), "--handler"),
        (error("Runtime.ImportModuleError", "Unable to import module 'app': cannot import name 'x'"), "log"),
        (error("Runtime.HandlerNotFound", "Handler 'h' missing on module 'app'"), "--handler"),
        (error("Runtime.MalformedHandlerName", "Bad handler 'x'"), "--handler"),
        (error("ClientError", "An error occurred (AccessDenied) when calling the PutObject operation"), "--role"),
        (error("ClientError", "User: x is not authorized to perform: s3:GetObject"), "--role"),
        (error("OSError", "[Errno 30] Read-only file system: '/var/task/x'"), "/tmp"),
        (error("PermissionError", "[Errno 13] Permission denied: '/var/task/x'"), "/tmp"),
        (error("EndpointConnectionError", 'Could not connect to the endpoint URL: "http://x"'), "--aws-endpoint"),
        (error("Runtime.MarshalError", "Unable to marshal response"), "JSON"),
        (error("Function.ResponseSizeTooLarge", "Response payload size exceeded"), "6 MB"),
    ],
)
def test_a_usual_error_has_its_fix(payload: dict[str, Any], fix: str) -> None:
    line = hint("hello", payload)
    assert line is not None and fix in line and "\n" not in line
    if line.count("fastlam deploy"):
        assert "--name hello" in line


@pytest.mark.parametrize("payload", [error("ValueError", "boom"), {}, [], None, "text", {"errorMessage": None}])
def test_what_is_not_usual_has_none(payload: Any) -> None:
    assert hint("hello", payload) is None
