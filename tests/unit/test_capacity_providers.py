"""Capacity providers and managed functions without HTTP: states over a virtual clock, publications, bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastlam import limits
from fastlam.control.managed import ManagedFunctions
from fastlam.model.capacity_provider import CapacityProviderRecord
from fastlam.model.function import FunctionRecord
from fastlam.store.records import CAPACITY_PROVIDER, FUNCTION_SCALING, TAGS, VERSION
from memory_plane import ARN, CALLER, ROLE, MemoryPlane, package, refused, request

PROVIDER = "arn:aws:lambda:us-east-1:000000000000:capacity-provider"
PUBLISHED = "$LATEST.PUBLISHED"


def provider(name: str = "cp", **more: Any) -> dict[str, Any]:
    """CreateCapacityProvider's input."""
    return {
        "CapacityProviderName": name,
        "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        "PermissionsConfig": {"CapacityProviderOperatorRoleArn": ROLE},
    } | more


def named(name: str = "cp", **more: Any) -> dict[str, Any]:
    return {"CapacityProviderName": name, **more}


def config(name: str = "cp", **more: Any) -> dict[str, Any]:
    """CapacityProviderConfig of a function."""
    return {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": f"{PROVIDER}:{name}", **more}}


def managed(**more: Any) -> dict[str, Any]:
    return {"Runtime": "python3.13", "CapacityProviderConfig": config(), **more}


@pytest.fixture
def plane(tmp_path: Path) -> MemoryPlane:
    plane = MemoryPlane(tmp_path)
    plane.capacity_providers.create(CALLER, provider())
    plane.clock.advance(1)
    return plane


def find(plane: MemoryPlane, name: str = "cp") -> CapacityProviderRecord | None:
    return next((record for record in plane.store.all(CAPACITY_PROVIDER) if record.name == name), None)


def state(plane: MemoryPlane, name: str = "cp") -> str | None:
    record = find(plane, name)
    return None if record is None else record.state


def attached(plane: MemoryPlane) -> list[tuple[str, str]]:
    _, page = plane.capacity_providers.list_versions(CALLER, named())
    return [(f"{version.name}:{version.version}", version.state) for version in page.items]


# ---- providers -------------------------------------------------------------------------------------


def test_states(plane: MemoryPlane) -> None:
    providers = plane.capacity_providers
    assert providers.create(CALLER, provider("new", Tags={"a": "b"})).state == state(plane, "new") == "Pending"
    assert refused("ResourceConflictException", providers.update, CALLER, named("new")) == (
        "The operation cannot be performed at this time. The capacity provider is currently in the following state:"
        " Pending"
    )
    plane.clock.advance(1)
    assert state(plane, "new") == "Active"
    assert providers.delete(CALLER, named("new")).state == state(plane, "new") == "Deleting"
    assert providers.delete(CALLER, named("new")).state == "Deleting"
    refused("ResourceConflictException", providers.update, CALLER, named("new"))
    assert refused("ResourceConflictException", providers.create, CALLER, provider("new")) == (
        f"Capacity provider already exists: {PROVIDER}:new"
    )
    plane.clock.advance(1)
    assert find(plane, "new") is None
    assert plane.store.all(TAGS) == []
    assert refused("ResourceNotFoundException", providers.get, CALLER, named("new")) == (
        f"Capacity provider not found: {PROVIDER}:new"
    )


def test_settled_by_the_next_start(plane: MemoryPlane) -> None:
    plane.capacity_providers.create(CALLER, provider("new", Tags={"a": "b"}))
    plane.capacity_providers.delete(CALLER, named())
    plane.restart()
    assert (state(plane, "new"), state(plane)) == ("Active", None)


def test_deleted_before_it_is_active(plane: MemoryPlane) -> None:
    plane.capacity_providers.create(CALLER, provider("new"))
    plane.clock.advance(limits.STATE_CHANGE_SECONDS / 2)
    plane.capacity_providers.delete(CALLER, named("new"))
    plane.clock.advance(limits.STATE_CHANGE_SECONDS / 2)
    assert state(plane, "new") == "Deleting"
    plane.clock.advance(limits.STATE_CHANGE_SECONDS / 2)
    assert find(plane, "new") is None


def test_defaults_and_updates(plane: MemoryPlane) -> None:
    record = plane.capacity_providers.get(CALLER, named(f"{PROVIDER}:cp"))
    assert record.instance_requirements == {"Architectures": ["x86_64"]}
    assert record.scaling_config == {"MaxVCpuCount": 400, "ScalingMode": "Auto"}
    assert record.propagate_tags == {"Mode": "None"}
    logging = {"SystemLogLevel": "INFO", "LogGroup": "/aws/lambda/capacity-provider/cp"}
    assert record.telemetry_config == {"LoggingConfig": logging}
    policy = {"PredefinedMetricType": "LambdaCapacityProviderAverageCPUUtilization", "TargetValue": 50.0}
    update = plane.capacity_providers.update
    manual = {"ScalingMode": "Manual", "ScalingPolicies": [policy]}
    assert update(CALLER, named(CapacityProviderScalingConfig=manual)).scaling_config == manual | {"MaxVCpuCount": 400}
    fewer = {"MaxVCpuCount": 8}
    assert update(CALLER, named(CapacityProviderScalingConfig=fewer)).scaling_config == manual | fewer
    automatic = {"ScalingMode": "Auto"}
    assert update(CALLER, named(CapacityProviderScalingConfig=automatic)).scaling_config == automatic | fewer
    quiet = update(CALLER, named(TelemetryConfig={"LoggingConfig": {"SystemLogLevel": "WARN"}}))
    assert quiet.telemetry_config == {"LoggingConfig": logging | {"SystemLogLevel": "WARN"}}
    assert quiet.scaling_config == automatic | fewer
    tagging = {"Mode": "Explicit", "ExplicitTags": {"team": "a"}}
    assert update(CALLER, named(PropagateTags=tagging)).propagate_tags == tagging
    assert update(CALLER, named(PropagateTags={"Mode": "None"})).propagate_tags == {"Mode": "None"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"InstanceRequirements": {"AllowedInstanceTypes": ["m7g.*"], "ExcludedInstanceTypes": ["c7g.*"]}},
            "AllowedInstanceTypes and ExcludedInstanceTypes can't be specified together.",
        ),
        (
            {"CapacityProviderScalingConfig": {"ScalingMode": "Manual"}},
            "A scaling policy must be specified when the scalingMode is set to Manual",
        ),
        (
            {"CapacityProviderScalingConfig": {"ScalingPolicies": [{"TargetValue": 1.0}]}},
            "A scaling policy can't be specified when the scalingMode is set to Auto",
        ),
        (
            {"PropagateTags": {"Mode": "Explicit"}},
            "ExplicitTags must be specified when the PropagateTags mode is set to Explicit.",
        ),
        (
            {"PropagateTags": {"Mode": "None", "ExplicitTags": {"a": "b"}}},
            "ExplicitTags can't be specified when the PropagateTags mode is set to None.",
        ),
        ({"Tags": {"aws:a": "b"}}, None),
    ],
)
def test_refused_providers(plane: MemoryPlane, more: dict[str, Any], message: str | None) -> None:
    text = refused("InvalidParameterValueException", plane.capacity_providers.create, CALLER, provider("x", **more))
    assert message is None or text == message
    assert find(plane, "x") is None


def test_the_number_of_providers_is_bounded(plane: MemoryPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CAPACITY_PROVIDERS_MAX", 1)
    refused("CapacityProviderLimitExceededException", plane.capacity_providers.create, CALLER, provider("x"))


def test_names_of_other_accounts_and_regions(plane: MemoryPlane) -> None:
    for arn in (
        "arn:aws:lambda:us-east-1:111111111111:capacity-provider:cp",
        "arn:aws:lambda:eu-west-1:000000000000:capacity-provider:cp",
    ):
        for operation in (plane.capacity_providers.get, plane.capacity_providers.delete):
            assert refused("ResourceNotFoundException", operation, CALLER, named(arn)) == (
                f"Capacity provider not found: {arn}"
            )
    assert state(plane) == "Active"
    create = plane.capacity_providers.create
    refused(
        "AccessDeniedException", create, CALLER, provider("arn:aws:lambda:us-east-1:111111111111:capacity-provider:x")
    )
    refused(
        "InvalidParameterValueException",
        create,
        CALLER,
        provider("arn:aws:lambda:eu-west-1:000000000000:capacity-provider:x"),
    )
    assert create(CALLER, provider(f"{PROVIDER}:mine")).name == "mine"


# ---- managed functions -----------------------------------------------------------------------------


def test_a_managed_function(plane: MemoryPlane) -> None:
    created = plane.functions.create(CALLER, request(**managed()))
    assert created.state == "Pending"
    assert (created.memory_mb, created.log_format, created.application_log_level) == (2048, "JSON", "INFO")
    assert created.capacity_provider_config == config(
        PerExecutionEnvironmentMaxConcurrency=16, ExecutionEnvironmentMemoryGiBPerVCpu=2.0
    )
    plane.clock.advance(1)
    assert plane.record().state == "ActiveNonInvocable"
    updated = plane.functions.update_configuration(CALLER, {"FunctionName": "hello", "Timeout": 5400})
    assert (updated.state, updated.last_update_status) == ("ActiveNonInvocable", "InProgress")
    plane.clock.advance(1)
    assert (plane.record().state, plane.record().last_update_status) == ("ActiveNonInvocable", "Successful")
    version = plane.versions.publish(CALLER, {"FunctionName": "hello"})
    assert (version.version, version.state) == ("1", "Pending")
    plane.clock.advance(1)
    assert plane.record(version="1").state == "Active"
    assert attached(plane) == [("hello:$LATEST", "ActiveNonInvocable"), ("hello:1", "Active")]


def test_settled_functions_of_the_next_start(plane: MemoryPlane) -> None:
    plane.functions.create(CALLER, request(**managed(Publish=True)))
    plane.restart()
    assert attached(plane) == [("hello:$LATEST", "ActiveNonInvocable"), ("hello:1", "Active")]


@pytest.mark.parametrize(
    ("runtime", "memory_mb", "ratio", "calls"),
    [
        ("python3.14", 2048, 2.0, 16),
        ("python3.13", 8192, 2.0, 64),
        ("python3.13", 8192, 8.0, 16),
        ("python3.13", 2048, 8.0, 16),
        ("nodejs22.x", 4096, 2.0, 128),
        ("java25", 2048, 2.0, 32),
        ("dotnet8", 2048, 2.0, 32),
    ],
)
def test_calls_at_a_time(plane: MemoryPlane, runtime: str, memory_mb: int, ratio: float, calls: int) -> None:
    record = plane.create(
        Runtime=runtime,
        MemorySize=memory_mb,
        CapacityProviderConfig=config(ExecutionEnvironmentMemoryGiBPerVCpu=ratio),
    )
    assert record.capacity_provider_config == config(
        PerExecutionEnvironmentMaxConcurrency=calls, ExecutionEnvironmentMemoryGiBPerVCpu=ratio
    )


@pytest.mark.parametrize(
    "runtime", ["python3.12", "python3.10", "nodejs24.x", "java17", "java8.al2", "ruby3.4", "provided.al2023"]
)
def test_runtimes(plane: MemoryPlane, runtime: str) -> None:
    create = plane.functions.create
    if runtime == "nodejs24.x":
        create(CALLER, request(**managed(Runtime=runtime)))
        return
    assert refused("InvalidParameterValueException", create, CALLER, request(**managed(Runtime=runtime))) == (
        f"Runtime Enum {runtime} does not support specified feature: Lambda Managed Instances"
    )


TEXT = (
    'LogLevel is not supported when LogFormat is set to "Text". Remove LogLevel from your request or change the LogFormat'
    ' to "JSON" and try again.'
)
SMALL = "Lambda Managed Instance functions must have memory size greater than or equal to 2048"


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        ({"MemorySize": 2047}, "ValidationException", SMALL),
        ({"LoggingConfig": {"LogFormat": "Text"}}, "InvalidParameterValueException", TEXT),
        (
            {"SnapStart": {"ApplyOn": "PublishedVersions"}},
            "InvalidParameterValueException",
            "SnapStart isn't supported for Lambda Managed Instances functions.",
        ),
        (
            {"CapacityProviderConfig": config("none")},
            "ResourceNotFoundException",
            f"Capacity provider not found: {PROVIDER}:none",
        ),
    ],
)
def test_refused_functions(plane: MemoryPlane, more: dict[str, Any], code: str, message: str) -> None:
    assert refused(code, plane.functions.create, CALLER, request(**managed(**more))) == message
    before = plane.create(**managed())
    update = {"FunctionName": "hello", **more}
    assert refused(code, plane.functions.update_configuration, CALLER, update) == message
    assert plane.record() == before


def test_a_plain_function_does_not_become_managed(plane: MemoryPlane) -> None:
    before = plane.create()
    update = plane.functions.update_configuration
    more = {"FunctionName": "hello", "CapacityProviderConfig": config()}
    assert refused("InvalidParameterValueException", update, CALLER, more) == (
        "CapacityProviderConfig isn't supported for Lambda Default functions."
    )
    publish = {"FunctionName": "hello", "PublishTo": "LATEST_PUBLISHED"}
    text = "PublishTo isn't supported for Lambda Default functions."
    assert refused("InvalidParameterValueException", plane.versions.publish, CALLER, publish) == text
    assert refused(
        "InvalidParameterValueException", plane.functions.update_code, CALLER, publish | {"ZipFile": package("2")}
    ) == text  # fmt: skip
    assert refused(
        "InvalidParameterValueException", plane.functions.create, CALLER, request("x", PublishTo="LATEST_PUBLISHED")
    ) == text  # fmt: skip
    assert plane.record() == before


def test_bounds_of_plain_functions(plane: MemoryPlane) -> None:
    plane.create()
    plane.create("big", **managed())
    wide = {"Timeout": 5400, "MemorySize": 32768, "EphemeralStorage": {"Size": 32768}}
    plane.functions.update_configuration(CALLER, {"FunctionName": "big", **wide})
    bound = "failed to satisfy constraint: Member must have value less than or equal to"
    assert refused(
        "ValidationException", plane.functions.update_configuration, CALLER, {"FunctionName": "hello", **wide}
    ) == (
        f"3 validation errors detected: Value '5400' at 'timeout' {bound} 900; Value '32768' at 'memorySize' {bound} 10240;"
        f" Value '32768' at 'ephemeralStorage.size' {bound} 10240"
    )


def test_concurrency_of_the_account_is_not_for_managed_functions(plane: MemoryPlane) -> None:
    plane.create(**managed())
    plane.publish()
    refused(
        "InvalidParameterValueException",
        plane.reserved_concurrency.put,
        CALLER,
        {"FunctionName": "hello", "ReservedConcurrentExecutions": 1},
    )
    refused(
        "InvalidParameterValueException",
        plane.provisioned_concurrency.put,
        CALLER,
        {"FunctionName": "hello", "Qualifier": "1", "ProvisionedConcurrentExecutions": 1},
    )


def test_a_provider_in_use_stays(plane: MemoryPlane) -> None:
    plane.create(**managed(PublishTo="LATEST_PUBLISHED"))
    assert refused("ResourceConflictException", plane.capacity_providers.delete, CALLER, named()) == (
        f"The capacity provider {PROVIDER}:cp cannot be deleted because function versions are attached to it:"
        f" [{ARN}:hello:$LATEST, {ARN}:hello:$LATEST.PUBLISHED]"
    )
    assert state(plane) == "Active"
    plane.functions.delete(CALLER, {"FunctionName": "hello"})
    assert plane.capacity_providers.delete(CALLER, named()).state == "Deleting"
    assert refused("ResourceConflictException", plane.functions.create, CALLER, request(**managed())) == (
        "The operation cannot be performed at this time. The capacity provider is currently in the following state:"
        " Deleting"
    )


def test_versions_of_a_provider_are_bounded(plane: MemoryPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "VERSIONS_PER_CAPACITY_PROVIDER_MAX", 2)
    plane.create(**managed(Publish=True))
    plane.publish(PublishTo="LATEST_PUBLISHED")
    code = "FunctionVersionsPerCapacityProviderLimitExceededException"
    plane.create("other", **managed())
    refused(code, plane.versions.publish, CALLER, {"FunctionName": "other"})
    refused(code, plane.functions.create, CALLER, request("third", **managed(Publish=True)))
    plane.publish(content="new", PublishTo="LATEST_PUBLISHED")  # replaces, and adds none
    assert len(plane.store.all(VERSION)) == 2


# ---- $LATEST.PUBLISHED -----------------------------------------------------------------------------


def published(plane: MemoryPlane) -> FunctionRecord:
    return plane.record(version=PUBLISHED)


def test_publishing_to_latest_published(plane: MemoryPlane) -> None:
    plane.create(**managed())
    publish = {"FunctionName": "hello", "PublishTo": "LATEST_PUBLISHED"}
    first = plane.versions.publish(CALLER, publish | {"Description": "first"})
    assert (first.version, first.state, first.description) == (PUBLISHED, "Pending", "first")
    assert first.qualified_arn == f"{ARN}:hello:$LATEST.PUBLISHED"
    plane.clock.advance(1)
    assert published(plane).state == "Active"
    assert plane.versions.publish(CALLER, publish) == published(plane)  # nothing has changed
    plane.publish()  # version 1, which is none the later for it
    plane.functions.update_code(CALLER, {"FunctionName": "hello", "ZipFile": package("second")})
    plane.clock.advance(1)
    second = plane.versions.publish(CALLER, publish)
    assert (second.state, second.last_update_status) == ("Active", "InProgress")  # the first goes on being invoked
    assert second.code_sha256 == plane.record().code_sha256 != first.code_sha256
    plane.clock.advance(1)
    assert (published(plane).state, published(plane).last_update_status) == ("Active", "Successful")
    listed = plane.versions.list(CALLER, {"FunctionName": "hello"}).items
    assert [version.version for version in listed] == ["$LATEST", PUBLISHED, "1"]


def test_pages_of_versions(plane: MemoryPlane) -> None:
    plane.create(**managed(PublishTo="LATEST_PUBLISHED"))
    for number in range(1, 12):
        plane.publish(content=str(number))
    seen, marker = [], None
    while True:
        page = plane.versions.list(CALLER, {"FunctionName": "hello", "MaxItems": 1, "Marker": marker})
        seen += [version.version for version in page.items]
        marker = page.next_marker
        if marker is None:
            break
    assert seen == ["$LATEST", PUBLISHED, *map(str, range(1, 12))]
    everything = plane.functions.list(CALLER, {"FunctionVersion": "ALL"}).items
    assert [version.version for version in everything] == seen
    assert [name for name, _ in attached(plane)] == [f"hello:{version}" for version in seen]


def test_publishing_with_a_change_of_code(plane: MemoryPlane) -> None:
    answer = plane.functions.create(CALLER, request(**managed(PublishTo="LATEST_PUBLISHED")))
    assert (answer.version, answer.state) == (PUBLISHED, "Pending")
    plane.clock.advance(1)
    update = {"FunctionName": "hello", "ZipFile": package("new"), "Publish": True, "PublishTo": "LATEST_PUBLISHED"}
    answer = plane.functions.update_code(CALLER, update)
    assert (answer.version, answer.state, answer.last_update_status) == (PUBLISHED, "Active", "InProgress")
    plane.clock.advance(1)
    assert published(plane).code_sha256 == plane.record().code_sha256
    assert [version.version for version in plane.store.all(VERSION)] == [PUBLISHED]
    update = {"FunctionName": "hello", "Qualifier": PUBLISHED}
    plane.functions.delete(CALLER, update)
    assert plane.store.all(VERSION) == []


def test_an_alias_of_latest_published_keeps_it(plane: MemoryPlane) -> None:
    plane.create(**managed(PublishTo="LATEST_PUBLISHED"))
    plane.alias("live", PUBLISHED)
    assert refused(
        "ResourceConflictException", plane.functions.delete, CALLER, {"FunctionName": "hello", "Qualifier": PUBLISHED}
    ) == "Unable to delete version because the following aliases reference it: [live]"  # fmt: skip


# ---- scaling ---------------------------------------------------------------------------------------


def scale(qualifier: str = PUBLISHED, **bounds: int) -> dict[str, Any]:
    return {"FunctionName": "hello", "Qualifier": qualifier, "FunctionScalingConfig": bounds}


def test_scaling(plane: MemoryPlane) -> None:
    plane.create(**managed(PublishTo="LATEST_PUBLISHED"))
    scaling = plane.scaling

    def bounds() -> list[tuple[int, int | None]]:
        _, record = scaling.get(CALLER, {"FunctionName": "hello", "Qualifier": PUBLISHED})
        return [(each.min_environments, each.max_environments) for each in (record.requested, record.applied)]

    assert bounds() == [(3, None), (3, None)]
    assert scaling.put(CALLER, scale(MinExecutionEnvironments=1, MaxExecutionEnvironments=2)) == "Active"
    assert bounds() == [(1, 2), (3, None)]
    plane.clock.advance(1)
    assert bounds() == [(1, 2), (1, 2)]
    scaling.put(CALLER, scale(MaxExecutionEnvironments=5))
    plane.clock.advance(1)
    assert bounds() == [(3, 5), (3, 5)]
    plane.publish(content="next", PublishTo="LATEST_PUBLISHED")
    assert bounds() == [(3, 5), (3, 5)]  # carried on
    scaling.put(CALLER, {"FunctionName": "hello", "Qualifier": PUBLISHED})
    plane.clock.advance(1)
    assert bounds() == [(3, None), (3, None)]


def test_switching_off_and_on(plane: MemoryPlane) -> None:
    plane.create(**managed(PublishTo="LATEST_PUBLISHED"))
    off = scale(MinExecutionEnvironments=0, MaxExecutionEnvironments=0)
    before = published(plane).revision_id
    assert plane.scaling.put(CALLER, off) == "Deactivating"
    assert published(plane).revision_id != before
    refused("ResourceConflictException", plane.scaling.put, CALLER, scale(MinExecutionEnvironments=1))
    plane.clock.advance(1)
    assert published(plane).state == "Deactivated"
    assert plane.scaling.put(CALLER, off) == "Deactivated"
    plane.publish(content="next", PublishTo="LATEST_PUBLISHED")
    assert published(plane).state == "Deactivated"  # no new code wakes it
    assert plane.scaling.put(CALLER, scale(MinExecutionEnvironments=1)) == "Pending"
    plane.clock.advance(1)
    assert published(plane).state == "Active"


def test_settled_scaling_of_the_next_start(plane: MemoryPlane) -> None:
    plane.create(**managed(PublishTo="LATEST_PUBLISHED"))
    plane.scaling.put(CALLER, scale(MinExecutionEnvironments=0, MaxExecutionEnvironments=0))
    plane.restart()
    assert published(plane).state == "Deactivated"
    plane.scaling.put(CALLER, scale(MinExecutionEnvironments=1))
    plane.restart()
    assert published(plane).state == "Active"
    (record,) = plane.store.all(FUNCTION_SCALING)
    assert record.applied == record.requested
    plane.functions.delete(CALLER, {"FunctionName": "hello", "Qualifier": PUBLISHED})
    assert plane.store.all(FUNCTION_SCALING) == []


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        (
            {"MinExecutionEnvironments": 5, "MaxExecutionEnvironments": 4},
            "MinExecutionEnvironments must be less than or equal to MaxExecutionEnvironments.",
        ),
        (
            {"MaxExecutionEnvironments": 2},  # the minimum is 3 unless given
            "MinExecutionEnvironments must be less than or equal to MaxExecutionEnvironments.",
        ),
        (
            {"MinExecutionEnvironments": 0, "MaxExecutionEnvironments": 1},
            "MinExecutionEnvironments can be 0 only when MaxExecutionEnvironments is 0, which deactivates the function"
            " version.",
        ),
    ],
)
def test_refused_scaling(plane: MemoryPlane, bounds: dict[str, Any], message: str) -> None:
    plane.create(**managed(PublishTo="LATEST_PUBLISHED"))
    assert refused("InvalidParameterValueException", plane.scaling.put, CALLER, scale(**bounds)) == message
    assert plane.store.all(FUNCTION_SCALING) == []


def test_scaling_is_for_versions_of_managed_functions(plane: MemoryPlane) -> None:
    plane.create()
    plane.publish()
    assert refused("InvalidParameterValueException", plane.scaling.put, CALLER, scale("1")) == (
        "FunctionScalingConfig isn't supported for Lambda Default functions."
    )
    for qualifier in ("2", PUBLISHED):
        assert refused("ResourceNotFoundException", plane.scaling.get, CALLER, scale(qualifier)) == (
            f"Function not found: {ARN}:hello:{qualifier}"
        )


def test_other_requests_keep_their_defaults() -> None:
    plain = request(MemorySize=256)
    assert ManagedFunctions.with_defaults(plain) is plain
    assert ManagedFunctions.with_defaults(plain | managed())["MemorySize"] == 256  # and is refused for it
