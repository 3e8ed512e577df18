"""A function as a SAM template and the files that it names: what deploys it again, here or in AWS.

A template describes one state of a function. Versions whose code or configuration is another one cannot be in it, nor
can aliases that lead to them; such things are listed in `notes`, which also stand at the head of the template.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from fastlam.arn import LATEST
from fastlam.deploy.documents import write_document
from fastlam.deploy.expansion import (
    ALIAS,
    EVENT_INVOKE_CONFIG,
    EVENT_SOURCE_MAPPING,
    LAYER_PERMISSION,
    PERMISSION,
    SAM_FUNCTION,
    SAM_LAYER_VERSION,
    URL,
    VERSION,
)
from fastlam.deploy.service import Refused, Service
from fastlam.deploy.statements import properties_of, statements

# Of a configuration: what two equal versions may differ in.
_VOLATILE: Final = frozenset(
    {
        "ConfigSha256",
        "Description",
        "FunctionArn",
        "LastModified",
        "LastUpdateStatus",
        "LastUpdateStatusReason",
        "LastUpdateStatusReasonCode",
        "RevisionId",
        "RuntimeVersionConfig",
        "SnapStart",
        "State",
        "StateReason",
        "StateReasonCode",
        "Version",
    }
)
_MAPPING_MEMBERS: Final = (
    "AmazonManagedKafkaEventSourceConfig",
    "BatchSize",
    "BisectBatchOnFunctionError",
    "DestinationConfig",
    "DocumentDBEventSourceConfig",
    "FilterCriteria",
    "FunctionResponseTypes",
    "LoggingConfig",
    "MaximumBatchingWindowInSeconds",
    "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts",
    "MetricsConfig",
    "ParallelizationFactor",
    "ProvisionedPollerConfig",
    "Queues",
    "ScalingConfig",
    "SelfManagedEventSource",
    "SelfManagedKafkaEventSourceConfig",
    "SourceAccessConfigurations",
    "StartingPosition",
    "Topics",
    "TumblingWindowInSeconds",
)
_ROLE: Final = "ExecutionRole"  # SAM gives <function>Role to a role that it makes itself
_NOT_IN_SAM: Final = ("AcceleratorConfig", "RuntimeConfig")


class Exported(NamedTuple):
    """What is to be written."""

    name: str  # of the function
    template: str  # YAML
    files: dict[str, bytes]  # by path, beside the template
    notes: list[str]  # what could not be expressed, a sentence each


def export_function(
    service: Service, name: str, qualifier: str | None = None, *, with_environment: bool = False
) -> Exported:
    """The function as `$LATEST` has it, or as a version or an alias has it."""
    exporter = _Exporter(service, name, qualifier, with_environment)
    exporter.collect()
    header = f"The Lambda function {exporter.name}, as `fastlam export` wrote it."
    if exporter.notes:
        header += "\n\nNot in this template:\n" + "\n".join(f"- {note}" for note in exporter.notes)
    return Exported(exporter.name, write_document(exporter.document(), header), exporter.files, exporter.notes)


class _Exporter:
    def __init__(self, service: Service, name: str, qualifier: str | None, with_environment: bool) -> None:
        self._service = service
        self._with_environment = with_environment
        self.view = service.call("GetFunction", FunctionName=name, Qualifier=qualifier)
        self.configuration = self.view["Configuration"]
        self.name: str = self.configuration["FunctionName"]
        self.whole = self.view if qualifier is None else service.call("GetFunction", FunctionName=self.name)
        self.files: dict[str, bytes] = {}
        self.notes: list[str] = []
        self._parameters: dict[str, dict[str, Any]] = {}
        self._id = _logical_id(self.name) or "Function"
        self._resources: dict[str, dict[str, Any]] = {self._id: {}}  # the function is the first
        self._outputs: dict[str, dict[str, Any]] = {}
        self._conditions: dict[str, Any] = {f"Has{_ROLE}": _has(_ROLE)}
        # Qualifier -> how the template refers to the function so qualified.
        self._targets: dict[str, Any] = {LATEST: {"Ref": self._id}}

    def document(self) -> dict[str, Any]:
        return {
            "AWSTemplateFormatVersion": "2010-09-09",
            "Transform": "AWS::Serverless-2016-10-31",
            "Description": f"The Lambda function {self.name}",
            "Parameters": self._parameters,
            "Conditions": self._conditions,
            "Resources": self._resources,
            "Outputs": self._outputs,
        }

    def collect(self) -> None:
        self._function()
        self._versions_and_aliases()
        self._permissions()
        self._urls()
        self._event_invoke_configs()
        self._event_source_mappings()

    # Parts -------------------------------------------------------------------------------------

    def _add(self, logical_id: str, kind: str, properties: Mapping[str, Any], **more: Any) -> str:
        """The logical id under which it was added: another one where it was taken."""
        free = self._free(logical_id)
        self._resources[free] = {"Type": kind, **more, "Properties": _present(properties)}
        return free

    def _function(self) -> None:
        configuration, name = self.configuration, self.name
        self._parameters[_ROLE] = {
            "Type": "String",
            "Default": configuration["Role"],
            "Description": "ARN of the execution role; empty for a new one",
        }
        self._outputs["FunctionArn"] = {"Value": {"Fn::GetAtt": [self._id, "Arn"]}}
        properties: dict[str, Any] = {
            "FunctionName": name,
            "Description": configuration.get("Description"),
            **self._code(),
            "Handler": configuration.get("Handler"),
            "Runtime": configuration.get("Runtime"),
            "Architectures": configuration.get("Architectures"),
            "MemorySize": configuration["MemorySize"],
            "Timeout": configuration["Timeout"],
            "Role": {"Fn::If": [f"Has{_ROLE}", {"Ref": _ROLE}, {"Ref": "AWS::NoValue"}]},
            "Environment": self._environment(),
            "Layers": self._layers(),
            **self._settings(),
            "ReservedConcurrentExecutions": (self.whole.get("Concurrency") or {}).get("ReservedConcurrentExecutions"),
            "Tags": self.whole.get("Tags"),
        }
        self._resources[self._id] = {"Type": SAM_FUNCTION, "Properties": _present(properties)}

    def _code(self) -> dict[str, Any]:
        code = self.view["Code"]
        if "ImageUri" in code:
            image = (self.configuration.get("ImageConfigResponse") or {}).get("ImageConfig")
            return {"PackageType": "Image", "ImageUri": code["ImageUri"], "ImageConfig": image}
        found: dict[str, Any] = {}
        if code.get("Location"):
            path = f"{self.name}.zip"
            self.files[path] = self._service.fetch(code["Location"])
            found["CodeUri"] = path
        else:
            where = code["ResolvedS3Object"]
            members = {"Bucket": "S3Bucket", "Key": "S3Key", "Version": "S3ObjectVersion"}
            found["CodeUri"] = {sam: where[member] for sam, member in members.items() if member in where}
        return {**found, "SourceKMSKeyArn": code.get("SourceKMSKeyArn")}

    def _environment(self) -> dict[str, Any] | None:
        """Secrets more often than not: asked for when the template is deployed, unless the caller wants them in it."""
        environment = self.configuration.get("Environment") or {}
        if "Error" in environment:
            self.notes.append(f"the environment variables: {environment['Error'].get('Message')}")
        variables = environment.get("Variables") or {}
        if self._with_environment:
            return {"Variables": dict(variables)} if variables else None
        values = {}
        for variable in sorted(variables):
            parameter = self._free(f"Env{_logical_id(variable)}")
            self._parameters[parameter] = {
                "Type": "String",
                "NoEcho": True,
                "Description": f"The environment variable {variable}",
            }
            values[variable] = {"Ref": parameter}
        return {"Variables": values} if values else None

    def _layers(self) -> list[Any]:
        """Those that the daemon has are written out; of others the ARN must do."""
        found: list[Any] = []
        for arn in (layer["Arn"] for layer in self.configuration.get("Layers") or ()):
            try:
                layer = self._service.call("GetLayerVersionByArn", Arn=arn)
            except Refused as refusal:
                if refusal.status not in (403, 404):
                    raise
                self.notes.append(f"the content of the layer version {arn}, which cannot be read: {refusal}")
                found.append(arn)
                continue
            found.append({"Ref": self._layer(layer)})
        return found

    def _layer(self, layer: Mapping[str, Any]) -> str:
        layer_name, version = layer["LayerArn"].rpartition(":")[2], layer["Version"]
        content: Any = f"layers/{layer_name}-{version}.zip"
        if layer["Content"].get("Location"):
            self.files[content] = self._service.fetch(layer["Content"]["Location"])
        else:
            where = layer["Content"]["ResolvedS3Object"]
            members = {"Bucket": "S3Bucket", "Key": "S3Key", "Version": "S3ObjectVersion"}
            content = {sam: where[member] for sam, member in members.items() if member in where}
        logical_id = self._add(
            f"Layer{_logical_id(layer_name)}",
            SAM_LAYER_VERSION,
            {
                "LayerName": layer_name,
                "Description": layer.get("Description"),
                "ContentUri": content,
                "CompatibleRuntimes": layer.get("CompatibleRuntimes"),
                "CompatibleArchitectures": layer.get("CompatibleArchitectures"),
                "LicenseInfo": layer.get("LicenseInfo"),
            },
        )
        resource = {"LayerName": layer["LayerArn"], "VersionNumber": version}
        for statement in self._optional(lambda: statements(self._service, "GetLayerVersionPolicy", **resource)) or ():
            properties = properties_of(statement)
            if properties is None:
                self.notes.append(f"a statement of the policy of the layer {layer_name}: {statement.get('Sid')}")
                continue
            if "PrincipalOrgID" in properties:
                properties["OrganizationId"] = properties.pop("PrincipalOrgID")
            own = _statement_id(logical_id, statement.get("Sid"))
            self._add(own, LAYER_PERMISSION, {"LayerVersionArn": {"Ref": logical_id}, **properties})
        return logical_id

    def _settings(self) -> dict[str, Any]:
        """What has no value of its own in most functions."""
        configuration, service, name = self.configuration, self._service, self.name
        vpc = {key: value for key, value in (configuration.get("VpcConfig") or {}).items() if key != "VpcId"}
        if not vpc.get("SubnetIds"):
            vpc = {}
        elif not vpc.get("Ipv6AllowedForDualStack"):
            vpc.pop("Ipv6AllowedForDualStack", None)
        dead_letter = (configuration.get("DeadLetterConfig") or {}).get("TargetArn")
        queue = {"Type": "SNS" if ":sns:" in (dead_letter or "") else "SQS", "TargetArn": dead_letter}
        logging = dict(configuration.get("LoggingConfig") or {})
        if logging.get("LogGroup") == f"/aws/lambda/{name}":
            del logging["LogGroup"]
        tracing = (configuration.get("TracingConfig") or {}).get("Mode")
        snap_start = (configuration.get("SnapStart") or {}).get("ApplyOn")
        storage = configuration.get("EphemeralStorage") or {}
        provider = (configuration.get("CapacityProviderConfig") or {}).get(
            "LambdaManagedInstancesCapacityProviderConfig", {}
        )
        recursion = self._optional(lambda: service.call("GetFunctionRecursionConfig", FunctionName=name)) or {}
        signing = self._optional(lambda: service.find("GetFunctionCodeSigningConfig", FunctionName=name)) or {}
        management: dict[str, Any] = {}
        if configuration["PackageType"] != "Image":
            management = self._optional(lambda: service.call("GetRuntimeManagementConfig", FunctionName=name)) or {}
        if management.get("UpdateRuntimeOn") == "Manual":
            self.notes.append(f"the version of the runtime that is chosen by hand: {management['RuntimeVersionArn']}")
        for member in _NOT_IN_SAM:
            if configuration.get(member):
                self.notes.append(f"the setting {member}, which SAM does not know")
        return {
            "EphemeralStorage": storage if storage.get("Size", 512) != 512 else None,
            "Tracing": tracing if tracing != "PassThrough" else None,
            "VpcConfig": vpc,
            "DeadLetterQueue": queue if dead_letter else None,
            "KmsKeyArn": configuration.get("KMSKeyArn"),
            "FileSystemConfigs": configuration.get("FileSystemConfigs"),
            "SnapStart": {"ApplyOn": snap_start} if snap_start not in (None, "None") else None,
            "LoggingConfig": logging if logging != {"LogFormat": "Text"} else None,
            "DurableConfig": configuration.get("DurableConfig"),
            "TenancyConfig": configuration.get("TenancyConfig"),
            "CapacityProviderConfig": {
                ("Arn" if key == "CapacityProviderArn" else key): value for key, value in provider.items()
            },
            "CodeSigningConfigArn": signing.get("CodeSigningConfigArn"),
            "RecursiveLoop": recursion.get("RecursiveLoop") if recursion.get("RecursiveLoop") != "Terminate" else None,
            "RuntimeManagementConfig": (
                {"UpdateRuntimeOn": "FunctionUpdate"} if management.get("UpdateRuntimeOn") == "FunctionUpdate" else None
            ),
        }

    def _versions_and_aliases(self) -> None:
        service, name = self._service, self.name
        listed = service.all("ListVersionsByFunction", "Versions", FunctionName=name)
        by_number = {one["Version"]: _lasting(one) for one in listed}
        exported = by_number.get(self.configuration["Version"], _lasting(self.configuration))
        same = [number for number, one in by_number.items() if number != LATEST and one == exported]
        provisioned = {
            one["FunctionArn"].rpartition(":")[2]: one["RequestedProvisionedConcurrentExecutions"]
            for one in self._optional(
                lambda: service.all(
                    "ListProvisionedConcurrencyConfigs", "ProvisionedConcurrencyConfigs", FunctionName=name
                )
            )
            or ()
        }
        version = {}
        if same:
            newest = same[-1]
            description = next(one.get("Description") for one in listed if one["Version"] == newest)
            # Named after what it publishes: changed code makes another resource, and so another version.
            logical_id = self._add(
                f"{self._id}Version{_digits(self.configuration['CodeSha256'])}",
                VERSION,
                {
                    "FunctionName": {"Ref": self._id},
                    "Description": description,
                    "ProvisionedConcurrencyConfig": _provisioned(provisioned.get(newest)),
                },
                DeletionPolicy="Retain",
                UpdateReplacePolicy="Retain",
            )
            version = {"Fn::GetAtt": [logical_id, "Version"]}
            self._targets[newest] = {"Ref": logical_id}
        others = [number for number in by_number if number not in (LATEST, *same)]
        if others:
            number = "version" if len(others) == 1 else "versions"
            self.notes.append(f"{number} {', '.join(others)}: the code or the configuration is another one")
        for alias in service.all("ListAliases", "Aliases", FunctionName=name):
            self._alias(alias, same, version, provisioned)

    def _alias(self, alias: Mapping[str, Any], same: list[str], version: Any, provisioned: Mapping[str, int]) -> None:
        name, number = alias["Name"], alias["FunctionVersion"]
        if number not in same and (number != LATEST or self.configuration["Version"] != LATEST):
            self.notes.append(f"the alias {name}, which leads to version {number} (--qualifier {name} exports that)")
            return
        logical_id = self._add(
            f"{self._id}Alias{_logical_id(name)}",
            ALIAS,
            {
                "Name": name,
                "FunctionName": {"Ref": self._id},
                "FunctionVersion": LATEST if number == LATEST else version,
                "Description": alias.get("Description"),
                "RoutingConfig": self._routing(alias),
                "ProvisionedConcurrencyConfig": _provisioned(provisioned.get(name)),
            },
        )
        self._targets[name] = {"Ref": logical_id}

    def _routing(self, alias: Mapping[str, Any]) -> dict[str, Any] | None:
        """The other version is not of this template: it has a number only where it is deployed."""
        name, weights = alias["Name"], (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights") or {}
        if not weights:
            return None
        ((other, weight),) = weights.items()
        parameter = self._free(f"{self._id}Alias{_logical_id(name)}OtherVersion")
        self._parameters[parameter] = {
            "Type": "String",
            "Default": "",
            "Description": f"The version with the weight {weight:g} behind the alias {name}; empty for none",
        }
        self._conditions[f"Has{parameter}"] = _has(parameter)
        self.notes.append(
            f"version {other}, with the weight {weight:g} behind the alias {name} (parameter {parameter})"
        )
        routing = {"AdditionalVersionWeights": [{"FunctionVersion": {"Ref": parameter}, "FunctionWeight": weight}]}
        return {"Fn::If": [f"Has{parameter}", routing, {"Ref": "AWS::NoValue"}]}

    def _permissions(self) -> None:
        for qualifier, target in self._targets.items():
            address = {"FunctionName": self.name, "Qualifier": None if qualifier == LATEST else qualifier}
            for statement in statements(self._service, "GetPolicy", **address):
                properties, sid = properties_of(statement), statement.get("Sid")
                if properties is None:
                    self.notes.append(f"the statement {sid} of the resource policy, which no permission can say")
                    continue
                self._add(_statement_id(target["Ref"], sid), PERMISSION, {"FunctionName": target, **properties})

    def _urls(self) -> None:
        listed = self._optional(
            lambda: self._service.all("ListFunctionUrlConfigs", "FunctionUrlConfigs", FunctionName=self.name)
        )
        for url in listed or ():
            qualifier = self._qualifier(url["FunctionArn"])
            if qualifier not in self._targets:
                continue  # its alias is in the notes
            alias = self._targets[qualifier]["Ref"]
            more = {} if qualifier == LATEST else {"DependsOn": alias}
            logical_id = self._add(
                f"{alias}Url",
                URL,
                {
                    "TargetFunctionArn": {"Ref": self._id},
                    "Qualifier": None if qualifier == LATEST else qualifier,
                    "AuthType": url["AuthType"],
                    "Cors": url.get("Cors"),
                    "InvokeMode": url.get("InvokeMode"),
                },
                **more,
            )
            self._outputs[logical_id] = {"Value": {"Fn::GetAtt": [logical_id, "FunctionUrl"]}}

    def _event_invoke_configs(self) -> None:
        listed = self._optional(
            lambda: self._service.all(
                "ListFunctionEventInvokeConfigs", "FunctionEventInvokeConfigs", FunctionName=self.name
            )
        )
        for config in listed or ():
            qualifier = self._qualifier(config["FunctionArn"])
            target = self._targets.get(qualifier)
            if target is None:
                continue
            numbered = qualifier.isdecimal()
            destinations = {
                side: one for side, one in (config.get("DestinationConfig") or {}).items() if one.get("Destination")
            }
            self._add(
                f"{target['Ref']}EventInvokeConfig",
                EVENT_INVOKE_CONFIG,
                {
                    "FunctionName": {"Ref": self._id},
                    "Qualifier": {"Fn::GetAtt": [target["Ref"], "Version"]} if numbered else qualifier,
                    "MaximumEventAgeInSeconds": config.get("MaximumEventAgeInSeconds"),
                    "MaximumRetryAttempts": config.get("MaximumRetryAttempts"),
                    "DestinationConfig": destinations,
                },
                **({} if qualifier == LATEST or numbered else {"DependsOn": target["Ref"]}),
            )

    def _event_source_mappings(self) -> None:
        listed = self._optional(
            lambda: self._service.all("ListEventSourceMappings", "EventSourceMappings", FunctionName=self.name)
        )
        for mapping in listed or ():
            target = self._targets.get(self._qualifier(mapping["FunctionArn"]))
            if target is None:
                continue
            properties = {key: mapping.get(key) for key in _MAPPING_MEMBERS}
            source = mapping.get("EventSourceArn")
            base = f"{target['Ref']}Source{_logical_id((source or '').rpartition(':')[2])}"
            if source:
                parameter = self._free(f"{base}Arn")
                self._parameters[parameter] = {"Type": "String", "Default": source, "Description": "What is polled"}
                properties["EventSourceArn"] = {"Ref": parameter}
            if mapping.get("State") in ("Disabled", "Disabling"):
                properties["Enabled"] = False
            properties["KmsKeyArn"] = mapping.get("KMSKeyArn")
            self._add(base, EVENT_SOURCE_MAPPING, {"FunctionName": target, **properties})

    # Small things ------------------------------------------------------------------------------

    def _free(self, logical_id: str) -> str:
        """With a number behind it where it is taken: names that differ in punctuation only become one."""
        number, free = 1, logical_id
        while free in self._parameters or free in self._resources:
            number += 1
            free = f"{logical_id}{number}"
        return free

    def _qualifier(self, arn: str) -> str:
        """Of a function's ARN; `$LATEST` where it has none."""
        parts = arn.split(":")
        return parts[7] if len(parts) > 7 else LATEST

    def _optional(self, ask: Callable[[], Any]) -> Any:
        """None where the other side has no such operation."""
        try:
            return ask()
        except Refused as refusal:
            if refusal.status == 501:
                return None
            raise


def _present(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Without what says nothing; 0 and False do say something."""
    return {key: value for key, value in properties.items() if value is not None and value not in ({}, [], "")}


def _has(parameter: str) -> dict[str, Any]:
    return {"Fn::Not": [{"Fn::Equals": [{"Ref": parameter}, ""]}]}


def _statement_id(base: str, sid: Any) -> str:
    """What a template has named is not named once more."""
    prefix, own = f"{base}Permission", _logical_id(str(sid or ""))
    return own if own.startswith(prefix) else prefix + own


def _lasting(configuration: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in configuration.items() if key not in _VOLATILE}


def _provisioned(count: int | None) -> dict[str, int] | None:
    return None if count is None else {"ProvisionedConcurrentExecutions": count}


def _logical_id(text: str) -> str:
    """`my-function_2` as `MyFunction2`, `DB_HOST` as `DbHost`."""
    parts = (part.lower() if part.isupper() else part for part in re.split(r"[^A-Za-z0-9]+", text))
    return "".join(part[:1].upper() + part[1:] for part in parts)


def _digits(code_sha256: str) -> str:
    return "".join(filter(str.isalnum, code_sha256))[:10]
