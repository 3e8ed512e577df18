"""The ARN that a permission to do something has to name."""

from __future__ import annotations

from typing import Any

import pytest

from fastlam.api.resources import resource_of
from fastlam.control.authorize import Caller

CALLER = Caller("000000000000", "arn:aws:iam::000000000000:root", "us-east-1")
OURS = "arn:aws:lambda:us-east-1:000000000000:"
CONFIG = f"{OURS}code-signing-config:csc-0123456789abcdefg"


@pytest.mark.parametrize(
    ("operation", "parameters", "expected"),
    [
        ("GetFunction", {"FunctionName": "hello"}, f"{OURS}function:hello"),
        ("GetFunction", {"FunctionName": "hello", "Qualifier": "live"}, f"{OURS}function:hello:live"),
        ("Invoke", {"FunctionName": "hello:$LATEST"}, f"{OURS}function:hello:$LATEST"),
        ("CreateFunction", {"FunctionName": "hello", "CodeSigningConfigArn": CONFIG}, f"{OURS}function:hello"),
        ("ListAliases", {"FunctionName": "hello"}, f"{OURS}function:hello"),
        ("ListFunctions", {}, "*"),
        ("ListEventSourceMappings", {"FunctionName": "hello"}, "*"),
        ("CreateEventSourceMapping", {"FunctionName": "hello"}, "*"),
        ("GetAccountSettings", {}, "*"),
        ("GetEventSourceMapping", {"UUID": "u"}, f"{OURS}event-source-mapping:u"),
        ("GetLayerVersion", {"LayerName": "tools", "VersionNumber": 3}, f"{OURS}layer:tools:3"),
        ("PublishLayerVersion", {"LayerName": f"{OURS}layer:tools"}, f"{OURS}layer:tools"),
        ("GetLayerVersionByArn", {"Arn": f"{OURS}layer:tools:3"}, f"{OURS}layer:tools:3"),
        ("UpdateCapacityProvider", {"CapacityProviderName": "own"}, f"{OURS}capacity-provider:own"),
        ("GetCodeSigningConfig", {"CodeSigningConfigArn": CONFIG}, CONFIG),
        ("TagResource", {"Resource": f"{OURS}layer:tools"}, f"{OURS}layer:tools"),
        ("TagResource", {"Resource": f"{OURS}function:hello"}, f"{OURS}function:hello"),
        ("GetResourcePolicy", {"ResourceArn": f"{OURS}function:hello:1"}, f"{OURS}function:hello:1"),
    ],
)
def test_resource_of(operation: str, parameters: dict[str, Any], expected: str) -> None:
    assert resource_of(CALLER, operation, parameters) == expected
