"""Every operation of the service model reaches its own answer in a real daemon."""

from __future__ import annotations

import re

import pytest

from daemon_running import ACCOUNT, REGION, RunningDaemon
from fastlam.api import service_model
from fastlam.api.service_model import Operation

ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:"
LABELS = {
    "Resource": f"{ARN}function:nobody",
    "ResourceArn": f"{ARN}function:nobody",
    "CodeSigningConfigArn": f"{ARN}code-signing-config:csc-0123456789abcdef0",
    "DurableExecutionArn": f"{ARN}function:nobody:1/durable-execution/a/b",
    "UUID": "12345678-1234-1234-1234-123456789012",
    "VersionNumber": "1",
}


@pytest.mark.parametrize("operation", service_model.load().operations, ids=lambda operation: operation.name)
def test_is_answered(operation: Operation, daemon: RunningDaemon) -> None:
    def filled(match: re.Match[str]) -> str:
        return LABELS.get(match[1], "nobody").replace("/", "%2F").replace(":", "%3A")

    path = re.sub(r"\{(\w+)\}", filled, operation.path)
    query = "&".join(f"{name}={value}" for name, value in operation.query)
    answer = daemon.send(operation.method, f"{path}?{query}" if query else path, b"{}")
    code = answer.headers.get("x-amzn-errortype", "")
    assert answer.status < 500, (answer.status, answer.body)
    assert code != "UnknownOperationException"
    if answer.status == 404:
        # Of what is asked for, not of the path: a function, a layer, a mapping that is not there.
        assert code in (
            "ResourceNotFoundException",
            "ProvisionedConcurrencyConfigNotFoundException",
            "CodeSigningConfigNotFoundException",
        )
