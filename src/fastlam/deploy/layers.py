"""AWS::Lambda::LayerVersion and the permission to use one."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Final

from fastlam.deploy.made import Context, Made, check_properties
from fastlam.deploy.packages import layer_content
from fastlam.deploy.statements import grant
from fastlam.deploy.template import TemplateError

_LAYER: Final = frozenset(
    {"CompatibleArchitectures", "CompatibleRuntimes", "Content", "Description", "LayerName", "LicenseInfo"}
)
_PERMISSION: Final = frozenset({"Action", "LayerVersionArn", "OrganizationId", "Principal"})


def make_layer_version(context: Context, where: str, given: dict[str, Any]) -> Made:
    """Publishes, unless the newest version is the same."""
    check_properties(where, given, _LAYER, ("Content",))
    service, name = context.service, str(given.get("LayerName") or where)
    content = layer_content(context, where, given["Content"])
    wanted = {key: given[key] for key in _LAYER - {"Content", "LayerName"} if given.get(key) is not None}
    for newest in service.all("ListLayerVersions", "LayerVersions", LayerName=name)[:1]:
        version = newest["Version"]
        found = service.find("GetLayerVersion", LayerName=name, VersionNumber=version)
        if found is not None and _same(found, content, wanted):
            arn = found["LayerVersionArn"]
            return Made(arn, {"LayerVersionArn": arn}, [])
    made = service.call("PublishLayerVersion", LayerName=name, Content=content, **wanted)
    arn = made["LayerVersionArn"]
    return Made(arn, {"LayerVersionArn": arn}, [f"published layer {name}:{made['Version']}"])


def _same(found: dict[str, Any], content: dict[str, Any], wanted: dict[str, Any]) -> bool:
    if "ZipFile" not in content:
        return False  # what S3 holds is known only once it is read
    digest = base64.b64encode(hashlib.sha256(content["ZipFile"]).digest()).decode()
    described = all((found.get(key) or None) == (wanted.get(key) or None) for key in _LAYER - {"Content", "LayerName"})
    return digest == found["Content"]["CodeSha256"] and described


def make_layer_permission(context: Context, where: str, given: dict[str, Any]) -> Made:
    check_properties(where, given, _PERMISSION, ("Action", "LayerVersionArn", "Principal"))
    layer, _, version = str(given["LayerVersionArn"]).rpartition(":")
    if not version.isdecimal():
        raise TemplateError(f"{where}: {given['LayerVersionArn']} is no ARN of a layer version.")
    resource = {"LayerName": layer, "VersionNumber": version}
    wanted = {key: value for key, value in given.items() if key != "LayerVersionArn"}
    changes = grant(context.service, "LayerVersion", resource, where, wanted)
    return Made(where, {"Id": where}, changes)
