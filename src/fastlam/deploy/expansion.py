"""From a template's resources to plain ones of Lambda: what AWS::Serverless::Function and its like stand for.

The logical ids are those that SAM's own transform gives, so that templates may refer to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from fastlam.deploy.template import NO_VALUE, Reference, Template, TemplateError, formed

FUNCTION: Final = "AWS::Lambda::Function"
LAYER_VERSION: Final = "AWS::Lambda::LayerVersion"
VERSION: Final = "AWS::Lambda::Version"
ALIAS: Final = "AWS::Lambda::Alias"
PERMISSION: Final = "AWS::Lambda::Permission"
LAYER_PERMISSION: Final = "AWS::Lambda::LayerVersionPermission"
URL: Final = "AWS::Lambda::Url"
EVENT_INVOKE_CONFIG: Final = "AWS::Lambda::EventInvokeConfig"
EVENT_SOURCE_MAPPING: Final = "AWS::Lambda::EventSourceMapping"
SAM_FUNCTION: Final = "AWS::Serverless::Function"
SAM_LAYER_VERSION: Final = "AWS::Serverless::LayerVersion"

# In the order in which they are made where nothing else decides.
DEPLOYED: Final = (
    LAYER_VERSION,
    LAYER_PERMISSION,
    FUNCTION,
    VERSION,
    ALIAS,
    PERMISSION,
    URL,
    EVENT_INVOKE_CONFIG,
    EVENT_SOURCE_MAPPING,
)

# Has no effect here, but a name that others refer to: type -> the property that gives it.
NAMED_ONLY: Final = {
    "AWS::IAM::Role": "RoleName",
    "AWS::IAM::Policy": "PolicyName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::Logs::LogGroup": "LogGroupName",
}

# Of AWS::Serverless::Function: what AWS::Lambda::Function has too, under the same name.
_SAME: Final = (
    "Architectures",
    "CodeSigningConfigArn",
    "Description",
    "DurableConfig",
    "Environment",
    "EphemeralStorage",
    "FileSystemConfigs",
    "FunctionName",
    "Handler",
    "ImageConfig",
    "KmsKeyArn",
    "Layers",
    "LoggingConfig",
    "MemorySize",
    "PackageType",
    "RecursiveLoop",
    "ReservedConcurrentExecutions",
    "Role",
    "Runtime",
    "RuntimeManagementConfig",
    "SnapStart",
    "Tags",
    "TenancyConfig",
    "Timeout",
    "VpcConfig",
)
# What becomes something else, and what says how AWS deploys or whom it lets: that has no effect here.
_TURNED: Final = (
    "AutoPublishAlias",
    "CapacityProviderConfig",
    "CodeUri",
    "DeadLetterQueue",
    "EventInvokeConfig",
    "Events",
    "FunctionUrlConfig",
    "ImageUri",
    "InlineCode",
    "ProvisionedConcurrencyConfig",
    "SourceKMSKeyArn",
    "Tracing",
    "VersionDescription",
)
_IDLE: Final = (
    "AssumeRolePolicyDocument",
    "AutoPublishAliasAllProperties",
    "AutoPublishCodeSha256",
    "DeploymentPreference",
    "PermissionsBoundary",
    "Policies",
    "PropagateTags",
    "RolePath",
    "VersionDeletionPolicy",
)
# Kind of event -> the property that names its source.
_PULLED: Final = {
    "SQS": "Queue",
    "Kinesis": "Stream",
    "DynamoDB": "Stream",
    "MSK": "Stream",
    "MQ": "Broker",
    "DocumentDB": "Cluster",
    "SelfManagedKafka": None,
}
_REPLACED_GLOBALS: Final = frozenset({"Architectures"})


class Resource(NamedTuple):
    """One plain resource; its properties are not worked out yet."""

    name: str  # logical id
    type: str
    properties: dict[str, Any]
    depends_on: tuple[str, ...] = ()


class Expansion(NamedTuple):
    resources: dict[str, Resource]
    renamed: dict[Reference, Reference]  # what a template may also call them
    unsupported: dict[str, str]  # logical id, or what belongs to one -> its type


def expand(template: Template) -> Expansion:
    """Every resource whose condition holds, as plain ones."""
    found = Expansion({}, {}, {})
    for name, resource in template.resources.items():
        condition = resource.get("Condition")
        if condition is not None and not template.condition(condition, name):
            continue
        kind, properties = resource["Type"], dict(resource.get("Properties") or {})
        depends = resource.get("DependsOn") or ()
        depends_on = (depends,) if isinstance(depends, str) else tuple(map(str, depends))
        if kind == SAM_FUNCTION:
            merged = _merged(template.globals.get("Function") or {}, properties)
            with formed(name):
                _expand_function(template, found, name, merged, depends_on)
        elif kind == SAM_LAYER_VERSION:
            merged = _merged(template.globals.get("LayerVersion") or {}, properties)
            merged["Content"] = merged.pop("ContentUri", None)
            for idle in ("RetentionPolicy", "PublishLambdaVersion"):
                merged.pop(idle, None)
            found.resources[name] = Resource(name, LAYER_VERSION, merged, depends_on)
        elif kind in NAMED_ONLY:  # of the rest nothing is needed, nor need it make sense here
            properties = {key: properties[key] for key in (NAMED_ONLY[kind], "Path") if key in properties}
            found.resources[name] = Resource(name, kind, properties)
        elif kind in DEPLOYED:
            found.resources[name] = Resource(name, kind, properties, depends_on)
        else:
            found.unsupported[name] = kind
    return found


def _merged(common: Any, own: Any) -> Any:
    """Globals below a resource's own properties: mappings are merged, lists follow one another."""
    if isinstance(common, dict) and isinstance(own, dict) and not (_is_function(common) or _is_function(own)):
        merged = dict(common)
        for name, value in own.items():
            replaced = name not in common or name in _REPLACED_GLOBALS
            merged[name] = value if replaced else _merged(common[name], value)
        return merged
    if isinstance(common, list) and isinstance(own, list):
        return common + own
    return own


def _is_function(value: Mapping[str, Any]) -> bool:
    return len(value) == 1 and all(name == "Ref" or name.startswith("Fn::") for name in value)


def _expand_function(
    template: Template, found: Expansion, name: str, given: dict[str, Any], depends_on: tuple[str, ...]
) -> None:
    def add(kind: str, own_name: str, **properties: Any) -> None:
        present = {key: value for key, value in properties.items() if value is not None}
        found.resources[own_name] = Resource(own_name, kind, present, depends_on if kind == FUNCTION else (name,))

    def settled(value: Any, what: str) -> Any:
        """Worked out now: what other resources there are depends on it."""
        return template.resolve(value, _no_resources, f"{name}.{what}")

    function: dict[str, Any] = {key: given[key] for key in _SAME if key in given}
    for key in given.keys() - {*_SAME, *_TURNED, *_IDLE}:
        found.unsupported[f"{name}.{key}"] = "a property"
    function["Code"] = _code(name, given)
    if given.get("Tracing") is not None:
        function["TracingConfig"] = {"Mode": given["Tracing"]}
    if isinstance(given.get("DeadLetterQueue"), dict):
        function["DeadLetterConfig"] = {"TargetArn": given["DeadLetterQueue"].get("TargetArn")}
    provider = given.get("CapacityProviderConfig")
    if isinstance(provider, dict):
        provider = {("CapacityProviderArn" if key == "Arn" else key): value for key, value in provider.items()}
        function["CapacityProviderConfig"] = {"LambdaManagedInstancesCapacityProviderConfig": provider}
    add(FUNCTION, name, **function)
    this: dict[str, Any] = {"Ref": name}
    found.renamed[Reference(f"{name}Role", "Arn")] = Reference(name, "Role")
    target, qualifier = this, None

    alias = settled(given.get("AutoPublishAlias"), "AutoPublishAlias")
    if alias not in (None, NO_VALUE):
        version, alias_name = f"{name}Version", f"{name}Alias{alias}"
        add(VERSION, version, FunctionName=this, Description=given.get("VersionDescription"))
        add(
            ALIAS,
            alias_name,
            FunctionName=this,
            Name=alias,
            FunctionVersion={"Fn::GetAtt": [version, "Version"]},
            ProvisionedConcurrencyConfig=given.get("ProvisionedConcurrencyConfig"),
        )
        target, qualifier = {"Ref": alias_name}, alias
        found.renamed[Reference(name, "Version")] = Reference(version, None)
        found.renamed[Reference(name, "Alias")] = Reference(alias_name, None)
        found.renamed[Reference(f"{name}.Version", "Version")] = Reference(version, "Version")
    elif given.get("ProvisionedConcurrencyConfig") is not None:
        raise TemplateError(f"{name}: ProvisionedConcurrencyConfig needs AutoPublishAlias, whose version it is for.")

    url = given.get("FunctionUrlConfig")
    if isinstance(url, dict):
        _expand_url(add, name, target, url, settled)
    events = given.get("EventInvokeConfig")
    if isinstance(events, dict):
        destinations = events.get("DestinationConfig") or {}
        add(
            EVENT_INVOKE_CONFIG,
            f"{name}EventInvokeConfig",
            FunctionName=this,
            Qualifier=qualifier or "$LATEST",
            MaximumEventAgeInSeconds=events.get("MaximumEventAgeInSeconds"),
            MaximumRetryAttempts=events.get("MaximumRetryAttempts"),
            DestinationConfig={
                side: {"Destination": one.get("Destination")} for side, one in destinations.items() if one
            },
        )
    for event_name, event in (given.get("Events") or {}).items():
        kind = event.get("Type") if isinstance(event, dict) else None
        if kind in _PULLED:
            add(EVENT_SOURCE_MAPPING, f"{name}{event_name}", **_mapping(kind, event.get("Properties") or {}, target))
        else:
            found.unsupported[f"{name}.{event_name}"] = f"an event of the type {kind}"


def _expand_url(add: Any, name: str, target: dict[str, Any], url: dict[str, Any], settled: Any) -> None:
    """With the statements that let everybody in where there is no authorisation, as SAM adds them."""
    settings = {key: value for key, value in url.items() if key in ("AuthType", "Cors", "InvokeMode")}
    add(URL, f"{name}Url", TargetFunctionArn=target, **settings)
    if settled(url.get("AuthType"), "FunctionUrlConfig.AuthType") != "NONE":
        return
    everybody = {"FunctionName": target, "Principal": "*"}
    add(
        PERMISSION,
        f"{name}UrlPublicPermissions",
        **everybody,
        Action="lambda:InvokeFunctionUrl",
        FunctionUrlAuthType="NONE",
    )
    add(
        PERMISSION,
        f"{name}URLInvokeAllowPublicAccess",
        **everybody,
        Action="lambda:InvokeFunction",
        InvokedViaFunctionUrl=True,
    )


def _code(name: str, given: Mapping[str, Any]) -> Any:
    """The Code of a plain function: a path on this machine stays text."""
    key = given.get("SourceKMSKeyArn")
    if given.get("ImageUri") is not None:
        return {"ImageUri": given["ImageUri"]}
    if given.get("InlineCode") is not None:
        return {"ZipFile": given["InlineCode"]}
    code = given.get("CodeUri")
    if code is None:
        raise TemplateError(f"{name} has no code: give it CodeUri, InlineCode or ImageUri.")
    if isinstance(code, dict) and "Bucket" in code:
        names = {"Bucket": "S3Bucket", "Key": "S3Key", "Version": "S3ObjectVersion"}
        code = {names.get(part, part): value for part, value in code.items()}
        return code | ({} if key is None else {"SourceKMSKeyArn": key})
    return code if key is None else {"CodeUri": code, "SourceKMSKeyArn": key}


def _mapping(kind: str, event: Mapping[str, Any], target: Any) -> dict[str, Any]:
    """An event that Lambda polls for, as an event source mapping."""
    properties = dict(event)
    source = _PULLED[kind]
    if source is not None:
        properties["EventSourceArn"] = properties.pop(source, None)
    servers = properties.pop("KafkaBootstrapServers", None)
    if servers is not None:
        properties["SelfManagedEventSource"] = {"Endpoints": {"KafkaBootstrapServers": servers}}
    group = properties.pop("ConsumerGroupId", None)
    registry = properties.pop("SchemaRegistryConfig", None)
    config = {"ConsumerGroupId": group, "SchemaRegistryConfig": registry}
    config = {key: value for key, value in config.items() if value is not None}
    if config:
        kafka = "SelfManagedKafkaEventSourceConfig" if source is None else "AmazonManagedKafkaEventSourceConfig"
        properties[kafka] = config
    properties.pop("SecretsManagerKmsKeyId", None)
    return {"FunctionName": target, **properties}


def _no_resources(reference: Reference) -> Any:
    raise TemplateError(f"{reference.name} does not exist yet where its value is needed: write the value itself.")
