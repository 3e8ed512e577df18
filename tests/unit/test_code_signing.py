"""Code signing without HTTP: which packages and layers a function takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastlam.control.authorize import Caller
from fastlam.errors import ApiError
from fastlam.store.records import CODE_SIGNING_CONFIG, FUNCTION, FUNCTION_CODE_SIGNING, TAGS
from memory_plane import CALLER, MemoryPlane, package, refused, request

PROFILE = "arn:aws:signer:us-east-1:000000000000:/signing-profiles/Trusted/abcdefghij"
BLOCKED = (
    "Lambda cannot deploy the function. The function or layer might be signed using a signature that the client is not"
    " configured to accept. Check the provided signature for hello."
)


@pytest.fixture
def plane(tmp_path: Path) -> MemoryPlane:
    return MemoryPlane(tmp_path)


def publishers(*arns: str) -> dict[str, Any]:
    return {"AllowedPublishers": {"SigningProfileVersionArns": list(arns or [PROFILE])}}


def configure(plane: MemoryPlane, policy: str | None = None, **more: Any) -> str:
    """A configuration's ARN."""
    policies = {} if policy is None else {"CodeSigningPolicies": {"UntrustedArtifactOnDeployment": policy}}
    return plane.code_signing.create(CALLER, publishers() | policies | more).arn


def attach(plane: MemoryPlane, arn: str, name: str = "hello") -> None:
    plane.code_signing.put_on_function(CALLER, {"FunctionName": name, "CodeSigningConfigArn": arn})


def test_a_configuration(plane: MemoryPlane) -> None:
    arn = configure(plane, Description="mine", Tags={"a": "b"})
    signing = plane.code_signing
    record = signing.get(CALLER, {"CodeSigningConfigArn": arn})
    assert (record.policy, record.description, record.publishers) == ("Warn", "mine", (PROFILE,))
    assert record.last_modified == "2026-01-01T00:00:00.000Z"
    plane.clock.advance(1.5)
    changed = signing.update(CALLER, {"CodeSigningConfigArn": arn, **publishers(PROFILE, PROFILE, f"{PROFILE}x")})
    assert (changed.policy, changed.description) == ("Warn", "mine")
    assert changed.publishers == (PROFILE, f"{PROFILE}x")
    assert changed.last_modified == "2026-01-01T00:00:01.500Z"
    enforced = {"CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Enforce"}, "Description": ""}
    changed = signing.update(CALLER, {"CodeSigningConfigArn": arn, **enforced})
    assert (changed.policy, changed.description, len(changed.publishers)) == ("Enforce", "", 2)
    signing.delete(CALLER, {"CodeSigningConfigArn": arn})
    assert plane.store.all(CODE_SIGNING_CONFIG) == []
    assert plane.store.all(TAGS) == []


@pytest.mark.parametrize(
    "arn", ["arn:aws:kms:us-east-1:000000000000:/signing-profiles/x", "arn:aws:signer:us-east-1:000000000000:job/x"]
)
def test_publishers_are_signing_profiles(plane: MemoryPlane, arn: str) -> None:
    refused("InvalidParameterValueException", plane.code_signing.create, CALLER, publishers(PROFILE, arn))
    assert plane.store.all(CODE_SIGNING_CONFIG) == []


def test_enforced_signatures_let_nothing_in(plane: MemoryPlane) -> None:
    arn = configure(plane, "Enforce")
    creation = request(CodeSigningConfigArn=arn)
    assert refused("CodeVerificationFailedException", plane.functions.create, CALLER, creation) == BLOCKED
    assert plane.store.all(FUNCTION) == []
    assert plane.store.all(FUNCTION_CODE_SIGNING) == []
    plane.create()
    attach(plane, arn)  # code that is there stays
    before = plane.record()
    for more in ({}, {"DryRun": True}):
        update = {"FunctionName": "hello", "ZipFile": package("new"), **more}
        assert refused("CodeVerificationFailedException", plane.functions.update_code, CALLER, update) == BLOCKED
    layer = plane.layers.publish(CALLER, {"LayerName": "base", "Content": {"ZipFile": package("layer")}})
    layered = {"FunctionName": "hello", "Layers": [layer.arn]}
    assert refused("CodeVerificationFailedException", plane.functions.update_configuration, CALLER, layered) == BLOCKED
    assert plane.record() == before
    plane.functions.update_configuration(CALLER, {"FunctionName": "hello", "Timeout": 9, "Layers": []})
    plane.clock.advance(1)
    assert plane.record().timeout_seconds == 9


def test_layers_that_are_there_stay(plane: MemoryPlane) -> None:
    layer = plane.layers.publish(CALLER, {"LayerName": "base", "Content": {"ZipFile": package("layer")}})
    layers: dict[str, Any] = {"Layers": [layer.arn]}
    plane.create(**layers)
    attach(plane, configure(plane, "Enforce"))
    plane.functions.update_configuration(CALLER, {"FunctionName": "hello", "Timeout": 9, **layers})


def test_warnings_let_everything_in(plane: MemoryPlane) -> None:
    arn = configure(plane, "Warn")
    plane.create(CodeSigningConfigArn=arn)
    plane.functions.update_code(CALLER, {"FunctionName": "hello", "ZipFile": package("new")})
    plane.clock.advance(1)
    enforce = {"CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Enforce"}}
    plane.code_signing.update(CALLER, {"CodeSigningConfigArn": arn, **enforce})
    update = {"FunctionName": "hello", "ZipFile": package("newer")}
    refused("CodeVerificationFailedException", plane.functions.update_code, CALLER, update)
    plane.code_signing.delete_from_function(CALLER, {"FunctionName": "hello"})
    plane.functions.update_code(CALLER, update)


def test_a_configuration_in_use_stays(plane: MemoryPlane) -> None:
    arn = configure(plane)
    plane.create(CodeSigningConfigArn=arn)
    plane.create("other")
    attach(plane, arn, "other")
    users = plane.code_signing.list_functions(CALLER, {"CodeSigningConfigArn": arn}).items
    assert [user.function for user in users] == ["hello", "other"]
    delete = {"CodeSigningConfigArn": arn}
    refused("ResourceConflictException", plane.code_signing.delete, CALLER, delete)
    plane.functions.delete(CALLER, {"FunctionName": "hello"})
    refused("ResourceConflictException", plane.code_signing.delete, CALLER, delete)
    plane.functions.delete(CALLER, {"FunctionName": "other"})
    plane.code_signing.delete(CALLER, delete)


def test_configurations_of_others(plane: MemoryPlane) -> None:
    arn = configure(plane)
    plane.create()
    message = (
        "The code signing configuration cannot be found. Check that the provided configuration is not deleted: {}."
    )
    for place in (("us-east-1", "111111111111"), ("eu-west-1", "000000000000")):
        other = "arn:aws:lambda:{}:{}:code-signing-config:".format(*place) + arn.rpartition(":")[2]
        text = f"The Lambda code signing configuration {other} can not be found."
        assert refused(
            "ResourceNotFoundException", plane.code_signing.get, CALLER, {"CodeSigningConfigArn": other}
        ) == (text)
        with pytest.raises(ApiError) as caught:
            attach(plane, other)
        assert (caught.value.code, str(caught.value)) == ("CodeSigningConfigNotFoundException", message.format(other))
    stranger = Caller("111111111111", "arn:aws:iam::111111111111:root", "us-east-1")
    assert plane.code_signing.list(stranger, {}).items == []


def test_only_functions_of_packages_have_one(plane: MemoryPlane) -> None:
    arn = configure(plane)
    image = {
        "FunctionName": "image",
        "Role": request()["Role"],
        "Code": {"ImageUri": "000000000000.dkr.ecr.us-east-1.amazonaws.com/image:1"},
    }
    text = "Code signing is not supported for functions with packageType Image."
    create = plane.functions.create
    assert refused(
        "InvalidParameterValueException", create, CALLER, image | {"PackageType": "Image", "CodeSigningConfigArn": arn}
    ) == text  # fmt: skip
    create(CALLER, image | {"PackageType": "Image"})
    plane.clock.advance(1)
    put = {"FunctionName": "image", "CodeSigningConfigArn": arn}
    assert refused("InvalidParameterValueException", plane.code_signing.put_on_function, CALLER, put) == text
    plane.create()
    for operation in ("put_on_function", "get_of_function", "delete_from_function"):
        qualified = {"FunctionName": "hello:$LATEST", "CodeSigningConfigArn": arn}
        assert refused(
            "InvalidParameterValueException", getattr(plane.code_signing, operation), CALLER, qualified
        ).startswith("This operation is permitted on Lambda functions only.")
