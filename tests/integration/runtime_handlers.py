"""Handlers of the runtime tests, in a module that imports next to nothing: each environment imports it."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from fastlam import limits


def echo(event: Any, context: Any) -> Any:
    return event


def whoami(event: Any, context: Any) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "name": context.function_name,
        "memory": context.memory_limit_in_mb,
        "arn": context.invoked_function_arn,
        "request": context.aws_request_id,
        "remaining": context.get_remaining_time_in_millis(),
        "variable": os.environ.get("COLOUR"),
        "region": os.environ["AWS_REGION"],
    }


def fail(event: Any, context: Any) -> Any:
    raise LookupError("no such thing")


def speak(event: Any, context: Any) -> None:
    print("spoken", event)


def stand(event: Any, context: Any) -> int:
    for path in event:
        with open(path, "rb") as pipe:
            pipe.read()
    return os.getpid()


def deed(event: Any, context: Any) -> Any:
    if event == "exit":
        os._exit(3)
    if event == "sys.exit":
        sys.exit(4)
    if event == "hang":
        threading.Event().wait()
    if event == "set":
        return {1, 2}
    if event == "large":
        return "x" * (limits.RESPONSE_BYTES_MAX + 1)
    if event == "bytes":
        return b"\x00\xff"
    return event


def arrive_and_stand(event: Any, context: Any) -> int:
    """Says that it runs, then stands at a gate until everybody is let go."""
    descriptor = os.open(event[0], os.O_WRONLY)
    os.write(descriptor, b"x")
    os.close(descriptor)
    os.close(os.open(event[1], os.O_RDONLY))  # waits until somebody has opened it for writing, and keeps it open
    return os.getpid()


def no_number(event: Any, context: Any) -> Any:
    return [float(event), 10**40]
