"""The layer operations over HTTP."""

from __future__ import annotations

from typing import Any

from fastlam.api.code import CodeLinks
from fastlam.api.support import Call, Entries, Reply, Supported
from fastlam.control.layers import Layers
from fastlam.control.steps import Steps
from fastlam.model.layer import LayerVersionRecord


def entries(layers: Layers, links: CodeLinks) -> Entries:
    def publish(call: Call) -> Steps[Reply]:
        record = yield from layers.publish_steps(call.caller, call.parameters)
        return whole(call, record)

    def get(call: Call) -> Reply:
        return whole(call, layers.get(call.caller, call.parameters))

    def get_by_arn(call: Call) -> Reply:
        return whole(call, layers.get_by_arn(call.caller, call.parameters))

    def whole(call: Call, record: LayerVersionRecord) -> Reply:
        location = None if record.s3_object is not None else links.location(call.request, record.artifact)
        content = {
            "Location": location,
            "CodeSha256": record.code_sha256,
            "CodeSize": record.code_bytes,
            "ResolvedS3Object": record.s3_object,
        }
        return Reply({"Content": content, "LayerArn": record.layer_arn, **layer_version(record)})

    def list_layers(call: Call) -> Reply:
        page = layers.list(call.caller, call.parameters)
        items = [
            {"LayerName": record.name, "LayerArn": record.layer_arn, "LatestMatchingVersion": layer_version(record)}
            for record in page.items
        ]
        return Reply({"Layers": items, "NextMarker": page.next_marker})

    def list_versions(call: Call) -> Reply:
        page = layers.list_versions(call.caller, call.parameters)
        return Reply({"LayerVersions": [layer_version(each) for each in page.items], "NextMarker": page.next_marker})

    def delete(call: Call) -> Reply:
        layers.delete(call.caller, call.parameters)
        return Reply(None)

    def add_permission(call: Call) -> Reply:
        added = layers.add_permission(call.caller, call.parameters)
        return Reply({"Statement": added.statement, "RevisionId": added.revision_id})

    def remove_permission(call: Call) -> Reply:
        layers.remove_permission(call.caller, call.parameters)
        return Reply(None)

    def get_policy(call: Call) -> Reply:
        policy = layers.policy(call.caller, call.parameters)
        return Reply({"Policy": policy.document, "RevisionId": policy.revision_id})

    return {
        "PublishLayerVersion": Supported(publish),
        "GetLayerVersion": Supported(get),
        "GetLayerVersionByArn": Supported(get_by_arn),
        "ListLayers": Supported(list_layers),
        "ListLayerVersions": Supported(list_versions),
        "DeleteLayerVersion": Supported(delete),
        "AddLayerVersionPermission": Supported(
            add_permission, "a statement with OrganizationId lets nobody in: no account here is in an organization"
        ),
        "RemoveLayerVersionPermission": Supported(remove_permission),
        "GetLayerVersionPolicy": Supported(get_policy),
    }


def layer_version(record: LayerVersionRecord) -> dict[str, Any]:
    """LayerVersionsListItem, and what GetLayerVersion has of it."""
    return {
        "LayerVersionArn": record.arn,
        "Description": record.description,
        "CreatedDate": record.created_date,
        "Version": record.version,
        "CompatibleRuntimes": record.compatible_runtimes,
        "CompatibleArchitectures": record.compatible_architectures,
        "LicenseInfo": record.license_info,
    }
