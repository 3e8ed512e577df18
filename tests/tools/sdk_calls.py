"""What the programs in the languages' SDKs call, and what each of them must have seen.

Every program lists the functions in pages of one, waits for one and gets it, invokes it (once it fails, once it is to
stream its response), asks for one that does not exist, and prints what it saw as one JSON object.
"""

from __future__ import annotations

import base64
import json
import urllib.request
from typing import Any, Final

from daemon_running import RunningDaemon

CODE: Final = """
def handler(event, context):
    print("asked by", event.get("name"))
    if "fail" in event:
        raise ValueError(event["fail"])
    return {"hello": event["name"], "function": context.function_name}
"""
NAME: Final = "greeting"
OTHERS: Final = ("another", "zebra")


def deploy(daemon: RunningDaemon) -> None:
    for name in (NAME, *OTHERS):
        daemon.deploy(name, CODE, MemorySize=256, environment={"GREETING": "hello, wörld"})


def check(output: str, language: str, *, streams: bool = True) -> None:
    """The output of a program that called the daemon; `streams` says that the SDK's client takes a streamed response."""
    saw: dict[str, Any] = json.loads(output)
    assert "error" not in saw, saw
    assert set(saw.pop("listed")) >= {NAME, *OTHERS}
    location = saw.pop("location")
    with urllib.request.urlopen(location) as package:
        assert package.read(2) == b"PK"
    log = base64.b64decode(saw.pop("log_base64")).decode()
    assert f"asked by {language}" in log and "REPORT RequestId" in log
    if streams:
        assert saw.pop("streamed") == {"hello": language, "function": NAME}
    failure = saw.pop("failure")
    assert (failure["errorMessage"], failure["errorType"]) == ("as asked", "ValueError")
    message = saw["missing"].pop("message")
    assert message.startswith("Function not found: arn:aws:lambda:us-east-1:") and ":function:missing" in message
    assert saw == {
        "handler": "app.handler",
        "memory_mb": 256,
        "variables": {"GREETING": "hello, wörld"},
        "status": 200,
        "version": "$LATEST",
        "result": {"hello": language, "function": NAME},
        "function_error": "Unhandled",
        "missing": {"typed": True, "status": 404, "code": "ResourceNotFoundException"},
    }
