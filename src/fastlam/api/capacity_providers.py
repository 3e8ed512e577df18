"""The capacity provider operations over HTTP."""

from __future__ import annotations

from typing import Any, Final

from fastlam.api.support import Call, Entries, Reply, Stored
from fastlam.control.capacity_providers import CapacityProviders
from fastlam.model.capacity_provider import CapacityProviderRecord

_MISSING: Final = (
    "there are no instances; a function on a capacity provider runs as any other, with one invocation at a time in each"
    " environment"
)


def entries(providers: CapacityProviders) -> Entries:
    def create(call: Call) -> Reply:
        return _reply(providers.create(call.caller, call.parameters))

    def get(call: Call) -> Reply:
        return _reply(providers.get(call.caller, call.parameters))

    def update(call: Call) -> Reply:
        return _reply(providers.update(call.caller, call.parameters))

    def delete(call: Call) -> Reply:
        return _reply(providers.delete(call.caller, call.parameters))

    def list_providers(call: Call) -> Reply:
        page = providers.list(call.caller, call.parameters)
        return Reply({"CapacityProviders": [_provider(each) for each in page.items], "NextMarker": page.next_marker})

    def list_versions(call: Call) -> Reply:
        provider, page = providers.list_versions(call.caller, call.parameters)
        items = [{"FunctionArn": version.qualified_arn, "State": version.state} for version in page.items]
        return Reply({"CapacityProviderArn": provider.arn, "FunctionVersions": items, "NextMarker": page.next_marker})

    return {
        "CreateCapacityProvider": Stored(create, _MISSING),
        "GetCapacityProvider": Stored(get, _MISSING),
        "UpdateCapacityProvider": Stored(update, _MISSING),
        "DeleteCapacityProvider": Stored(delete, _MISSING),
        "ListCapacityProviders": Stored(list_providers, _MISSING),
        "ListFunctionVersionsByCapacityProvider": Stored(list_versions, _MISSING),
    }


def _reply(record: CapacityProviderRecord) -> Reply:
    return Reply({"CapacityProvider": _provider(record)})


def _provider(record: CapacityProviderRecord) -> dict[str, Any]:
    return {
        "CapacityProviderArn": record.arn,
        "State": record.state,
        "VpcConfig": record.vpc_config,
        "PermissionsConfig": record.permissions_config,
        "InstanceRequirements": record.instance_requirements,
        "CapacityProviderScalingConfig": record.scaling_config,
        "KmsKeyArn": record.kms_key_arn or None,
        "LastModified": record.last_modified,
        "PropagateTags": record.propagate_tags,
        "TelemetryConfig": record.telemetry_config,
    }
