"""The kinds of event sources: what a mapping of each may set, what it has unless told otherwise, what goes together.

Settings are kept by their API member names; `initial` and `changed` make them from a request, or raise the service's
refusal. Whether a queue, a stream or a broker exists is not asked here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from fastlam import limits
from fastlam.control.filter_patterns import InvalidPattern, parse
from fastlam.control.settings import Request
from fastlam.errors import ApiError, invalid_parameter
from fastlam.model.event_source_mapping import EventSourceMappingRecord

Settings = dict[str, Any]

USER_INITIATED: Final = "USER_INITIATED"
USER_ACTION: Final = "User action"

_ANY: Final = frozenset({"BatchSize", "MaximumBatchingWindowInSeconds", "KMSKeyArn", "MetricsConfig"})
_QUEUE: Final = _ANY | {"FilterCriteria", "FunctionResponseTypes", "ScalingConfig", "ProvisionedPollerConfig"}
_POSITION: Final = frozenset({"StartingPosition", "StartingPositionTimestamp"})
_RETRIES: Final = frozenset({"MaximumRetryAttempts", "MaximumRecordAgeInSeconds", "BisectBatchOnFunctionError"})
_STREAM: Final = (
    _ANY
    | _POSITION
    | _RETRIES
    | {"FilterCriteria", "FunctionResponseTypes", "DestinationConfig"}
    | {"ParallelizationFactor", "TumblingWindowInSeconds"}
)
_KAFKA: Final = (
    _ANY
    | _POSITION
    | _RETRIES
    | {"FilterCriteria", "FunctionResponseTypes", "DestinationConfig"}
    | {"Topics", "SourceAccessConfigurations", "ProvisionedPollerConfig", "LoggingConfig"}
)


class Source(NamedTuple):
    """One kind of event source."""

    kind: str
    settings: frozenset[str]  # the members of a request that it knows
    transition_reason: str
    required: tuple[str, ...] = ()  # members that creation must give
    batch_size: int = 100  # unless given
    consumer_config: str = ""  # of Kafka: the member with the consumer group
    pollers: tuple[int, int] = (0, 0)  # the least there may be, and the most, in provisioned mode


SQS: Final = Source("sqs", _QUEUE, USER_INITIATED, batch_size=10, pollers=(2, 10_000))
SQS_FIFO: Final = SQS._replace(kind="sqs-fifo")
KINESIS: Final = Source("kinesis", _STREAM, USER_ACTION)
DYNAMODB: Final = Source("dynamodb", _STREAM, USER_ACTION)
MSK: Final = Source(
    "msk",
    _KAFKA | {"AmazonManagedKafkaEventSourceConfig"},
    USER_INITIATED,
    required=("Topics",),
    consumer_config="AmazonManagedKafkaEventSourceConfig",
    pollers=(1, 2000),
)
SELF_MANAGED_KAFKA: Final = MSK._replace(
    kind="self-managed-kafka",
    settings=_KAFKA | {"SelfManagedEventSource", "SelfManagedKafkaEventSourceConfig"},
    required=("Topics", "SourceAccessConfigurations"),
    consumer_config="SelfManagedKafkaEventSourceConfig",
)
MQ: Final = Source(
    "mq",
    _ANY | {"FilterCriteria", "Queues", "SourceAccessConfigurations"},
    USER_INITIATED,
    required=("Queues", "SourceAccessConfigurations"),
)
DOCUMENTDB: Final = Source(
    "documentdb",
    _ANY | _POSITION | {"DestinationConfig", "DocumentDBEventSourceConfig", "SourceAccessConfigurations"},
    USER_ACTION,
    required=("DocumentDBEventSourceConfig", "SourceAccessConfigurations"),
)

# Sources that Lambda does not have: arn:aws:fastlam:<region>:<account>:<URL>, region and account may be empty.
_OURS: Final = _ANY | {"FilterCriteria", "SourceAccessConfigurations"}
_OURS_RETRIED: Final = _OURS | _RETRIES | {"FunctionResponseTypes", "DestinationConfig"}
REDIS: Final = Source("redis", _OURS_RETRIED | _POSITION | {"Queues"}, USER_INITIATED, required=("Queues",))
NATS: Final = REDIS._replace(kind="nats")
MQTT: Final = Source("mqtt", _OURS_RETRIED | {"Queues"}, USER_INITIATED, required=("Queues",))
POSTGRESQL: Final = MQTT._replace(kind="postgresql")
DIRECTORY: Final = Source("directory", _OURS_RETRIED | _POSITION, USER_INITIATED, batch_size=1)
RABBITMQ: Final = Source("rabbitmq", _OURS | {"Queues"}, USER_INITIATED, required=("Queues",))
ACTIVEMQ: Final = RABBITMQ._replace(kind="activemq")

LAMBDAS: Final = (SQS, SQS_FIFO, KINESIS, DYNAMODB, MSK, SELF_MANAGED_KAFKA, MQ, DOCUMENTDB)
OURS: Final = (REDIS, NATS, MQTT, POSTGRESQL, DIRECTORY, RABBITMQ, ACTIVEMQ)
SOURCES: Final[Mapping[str, Source]] = {source.kind: source for source in (*LAMBDAS, *OURS)}
QUEUES: Final = (SQS, SQS_FIFO)
STREAMS: Final = (KINESIS, DYNAMODB)
KAFKA: Final = (MSK, SELF_MANAGED_KAFKA)
# Ours with positions that are resumed, and those whose events are pushed once and are not waited with for ever.
_LOGS: Final = (REDIS, NATS)
_PUSHED: Final = (MQTT, POSTGRESQL, DIRECTORY)
_PUSHED_RETRIES: Final = 2  # unless told otherwise: as often as an asynchronous invocation is tried again
_SCHEMES: Final[Mapping[str, Source]] = {
    "redis": REDIS,
    "rediss": REDIS,
    "nats": NATS,
    "tls": NATS,
    "mqtt": MQTT,
    "mqtts": MQTT,
    "postgresql": POSTGRESQL,
    "postgres": POSTGRESQL,
    "file": DIRECTORY,
    "amqp": RABBITMQ,
    "amqps": RABBITMQ,
    "stomp": ACTIVEMQ,
    "stomp+ssl": ACTIVEMQ,
}

# By the service and the beginning of the resource in the source's ARN.
_RESOURCES: Final = {
    "kinesis": ("stream/", KINESIS),
    "dynamodb": ("table/", DYNAMODB),
    "kafka": ("", MSK),
    "mq": ("broker:", MQ),
    "rds": ("cluster:", DOCUMENTDB),
}

# Members of a request that are no settings of a source.
_OTHERS: Final = frozenset({"UUID", "FunctionName", "EventSourceArn", "Enabled", "Tags"})
# Members that a later request replaces as a whole, and that an empty value takes away.
_CLEARED_BY_EMPTY: Final = ("MetricsConfig", "LoggingConfig", "ScalingConfig", "KMSKeyArn")
# What says nothing: accepted where anything else would be refused.
_NEUTRAL: Final[Mapping[str, Any]] = {
    "MaximumRetryAttempts": -1,
    "MaximumRecordAgeInSeconds": -1,
    "BisectBatchOnFunctionError": False,
}
_PROVISIONED_ONLY: Final = (
    "MaximumRetryAttempts",
    "MaximumRecordAgeInSeconds",
    "BisectBatchOnFunctionError",
    "FunctionResponseTypes",
    "LoggingConfig",
)
_POLLERS_DEFAULT: Final = 200  # at most


def source_of(request: Request, region: str) -> Source:
    """The kind of the event source that a create request names."""
    arn = request.get("EventSourceArn")
    if arn is None:
        if request.get("SelfManagedEventSource"):
            return SELF_MANAGED_KAFKA
        raise _unrecognized()
    _, _, service, source_region, _, resource = arn.split(":", 5)
    source = _by_arn(service, resource)
    if source is None:
        raise _unrecognized()
    if source_region != region and not (source in OURS and not source_region):
        raise invalid_parameter(
            "Event source is not in the same region as the function. Event source is expected to be in region"
            f" {region}."
        )
    return source


def _by_arn(service: str, resource: str) -> Source | None:
    if service == "sqs" and resource:
        return SQS_FIFO if resource.endswith(".fifo") else SQS
    if service == "fastlam":
        scheme, separator, rest = resource.partition("://")
        return _SCHEMES.get(scheme) if separator and rest else None
    beginning, source = _RESOURCES.get(service, ("", None))
    if source is None or not resource.startswith(beginning) or len(resource) == len(beginning):
        return None
    if source is DYNAMODB and "/stream/" not in resource:
        return None  # a table has no records of its own
    return source


def initial(source: Source, request: Request, *, uuid: str, now_seconds: float) -> Settings:
    """The settings of a new mapping."""
    _check_members(source, request, creating=True)
    _check_position(source, request, now_seconds)
    settings: Settings = {"BatchSize": source.batch_size}
    if source in QUEUES or source in STREAMS:
        settings |= {"MaximumBatchingWindowInSeconds": 0, "FunctionResponseTypes": []}
    if source in STREAMS:
        settings |= {
            "ParallelizationFactor": 1,
            "TumblingWindowInSeconds": 0,
            "DestinationConfig": {"OnFailure": {}},
            **_NEUTRAL,
        }
    if source in _LOGS or source in _PUSHED:
        settings |= {
            "MaximumBatchingWindowInSeconds": 0,
            "FunctionResponseTypes": [],
            "DestinationConfig": {"OnFailure": {}},
            **_NEUTRAL,
        }
    if source in _PUSHED:
        settings["MaximumRetryAttempts"] = _PUSHED_RETRIES
    if source is DIRECTORY:
        settings["StartingPosition"] = "LATEST"
    if source.consumer_config:
        settings[source.consumer_config] = {"ConsumerGroupId": uuid}
    if source is DOCUMENTDB:
        settings["DocumentDBEventSourceConfig"] = {"FullDocument": "Default"}
    pollers = request.get("ProvisionedPollerConfig")
    if pollers is not None and not (pollers.get("MinimumPollers") or pollers.get("MaximumPollers")):
        raise invalid_parameter(
            "Either MinimumPollers or MaximumPollers are required if ProvisionedPollerConfig is provided."
        )
    settings = _merged(source, settings, request)
    if settings.get("StartingPosition") != "AT_TIMESTAMP":
        settings.pop("StartingPositionTimestamp", None)
    _check(source, settings)
    return settings


def changed(source: Source, current: Settings, request: Request) -> Settings:
    """The settings after an update."""
    _check_members(source, request, creating=False)
    if source.consumer_config:
        config = request.get(source.consumer_config) or {}
        if "ConsumerGroupId" in config:
            raise _unsupported(f"{_lower(source.consumer_config)}.consumerGroupId")
        if "ConsumptionMode" in config:
            raise _unsupported("ConsumptionMode")
    settings = _merged(source, current, request)
    for name in source.required:
        if not settings.get(name):
            raise _required(name)
    _check(source, settings)
    return settings


# What a request may say ----------------------------------------------------------------------------


def _check_members(source: Source, request: Request, *, creating: bool) -> None:
    missing = [name for name in source.required if creating and not request.get(name)]
    foreign = [
        name
        for name, value in request.items()
        if name not in source.settings and name not in _OTHERS and value not in (None, [], {})
    ]
    if source is DOCUMENTDB:
        _check_documentdb(request, missing, foreign, creating=creating)
    elif missing:
        raise _required(missing[0])
    elif foreign:
        raise _unsupported_destination() if foreign[0] == "DestinationConfig" else _unsupported(_lower(foreign[0]))
    if (request.get("DestinationConfig") or {}).get("OnSuccess"):
        raise _unsupported_destination()


def _check_documentdb(request: Request, missing: list[str], foreign: list[str], *, creating: bool) -> None:
    """This source names everything at once, what is missing and what does not belong."""
    wrong: list[str] = []
    if "DocumentDBEventSourceConfig" in missing:
        wrong += ["documentDBEventSourceConfig", "databaseName"]
    elif creating and not request["DocumentDBEventSourceConfig"].get("DatabaseName"):
        wrong.append("databaseName")
    if "SourceAccessConfigurations" in missing:
        wrong += ["sourceAccessConfigurations", "sourceAccessConfigurations"]
    wrong += map(_lower, foreign)
    if wrong:
        raise invalid_parameter("Invalid parameters: " + ", ".join(wrong))


def _check_position(source: Source, request: Request, now_seconds: float) -> None:
    position = request.get("StartingPosition")
    if source is DIRECTORY and position == "AT_TIMESTAMP":
        raise invalid_parameter(f"Unsupported starting position for arn type: {request['EventSourceArn']}")
    if source not in (*STREAMS, *KAFKA, *_LOGS, DOCUMENTDB):
        return
    if _consumes_queue(source, request):
        if position is not None:
            raise _unsupported("startingPosition")
        return
    if position is None:
        raise invalid_parameter(
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must"
            " not be null."
        )
    if position != "AT_TIMESTAMP":
        return
    if source is DYNAMODB:
        raise invalid_parameter(f"Unsupported starting position for arn type: {request['EventSourceArn']}")
    timestamp = request.get("StartingPositionTimestamp")
    if timestamp is None:
        raise invalid_parameter(
            "When the starting position is 'AT_TIMESTAMP', a starting position timestamp must be provided."
        )
    if timestamp > now_seconds:
        raise invalid_parameter("StartingPositionTimestamp cannot be in the future.")


def _merged(source: Source, current: Settings, request: Request) -> Settings:
    settings = dict(current)
    for name, value in request.items():
        if name not in source.settings or value is None:
            continue
        if name == "FilterCriteria":
            _put(settings, name, {"Filters": value["Filters"]} if value.get("Filters") else None)
        elif name == "DestinationConfig":
            settings[name] = _destinations(value)
        elif name == "ProvisionedPollerConfig":
            _put(settings, name, _pollers(source, settings.get(name), value))
        elif name == source.consumer_config:
            settings[name] = _consumer(settings[name], value)
        elif name == "DocumentDBEventSourceConfig":
            settings[name] = {**settings[name], **value}
        elif name in _CLEARED_BY_EMPTY:
            _put(settings, name, value if _says_something(value) else None)
        else:
            settings[name] = value
    return settings


def _put(settings: Settings, name: str, value: Any) -> None:
    if value is None:
        settings.pop(name, None)
    else:
        settings[name] = value


def _says_something(value: Any) -> bool:
    return any(value.values()) if isinstance(value, dict) else bool(value)


def _destinations(given: Mapping[str, Any]) -> Settings:
    destination = (given.get("OnFailure") or {}).get("Destination")
    return {"OnFailure": {"Destination": destination} if destination else {}}


def _pollers(source: Source, current: Settings | None, given: Mapping[str, Any]) -> Settings | None:
    """Provisioned mode as it is after the request; None without it."""
    if not given:
        return None
    least, _ = source.pollers
    pollers = {"MinimumPollers": least, "MaximumPollers": _POLLERS_DEFAULT, **(current or {}), **given}
    if not pollers.get("PollerGroupName"):
        pollers.pop("PollerGroupName", None)
    return pollers


def _consumer(current: Settings, given: Mapping[str, Any]) -> Settings:
    """The Kafka configuration: a schema registry stays until an empty one takes its place."""
    config = {**current, **given}
    if not config.get("SchemaRegistryConfig"):
        config.pop("SchemaRegistryConfig", None)
    return config


# What goes together --------------------------------------------------------------------------------


def _check(source: Source, settings: Settings) -> None:
    if source in QUEUES:
        _check_queue(source, settings)
    for each in settings.get("FilterCriteria", {}).get("Filters", ()):
        _check_filter(each)
    if len(settings.get("FilterCriteria", {}).get("Filters", ())) > limits.FILTERS_PER_MAPPING_MAX:
        raise invalid_parameter(f"Number of filters exceeds the limit of {limits.FILTERS_PER_MAPPING_MAX}.")
    if -1 < settings.get("MaximumRecordAgeInSeconds", -1) < 60:
        raise invalid_parameter(
            "MaximumRecordAgeInSeconds must be either -1 (forever) or between 60 and 604800 (inclusive)"
        )
    if settings.get("TumblingWindowInSeconds"):
        if "FilterCriteria" in settings:
            raise invalid_parameter("Tumbling windows cannot be combined with filter criteria.")
        if settings["ParallelizationFactor"] > 1:
            raise invalid_parameter("Tumbling windows cannot be combined with a ParallelizationFactor above 1.")
    _check_pollers(source, settings)
    if source in KAFKA:
        _check_kafka(settings)
    metrics = settings.get("MetricsConfig", {}).get("Metrics", ())
    if source not in KAFKA and any(metric != "EventCount" for metric in metrics):
        raise _unsupported("metricsConfig")
    _check_access(source, settings)
    destination = settings.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
    if destination and not _can_be_told(settings, destination):
        raise _unsupported_destination()


def _check_queue(source: Source, settings: Settings) -> None:
    window = settings["MaximumBatchingWindowInSeconds"]
    if source is SQS_FIFO and window:
        raise invalid_parameter("Batching window is not supported for FIFO queues")
    if settings["BatchSize"] > 10 and not window:
        raise invalid_parameter(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        )


def _check_filter(given: Mapping[str, Any]) -> None:
    try:
        parse(given.get("Pattern") or "")
    except InvalidPattern:
        raise invalid_parameter("Invalid filter pattern definition.") from None


def _check_pollers(source: Source, settings: Settings) -> None:
    pollers = settings.get("ProvisionedPollerConfig")
    if pollers is None:
        return
    least, most = source.pollers
    if source in QUEUES and pollers.get("PollerGroupName"):
        raise _unsupported("provisionedPollerConfig.pollerGroupName")
    if not least <= pollers["MinimumPollers"] <= 200 or not (
        pollers["MinimumPollers"] <= pollers["MaximumPollers"] <= most
    ):
        raise invalid_parameter(
            f"MinimumPollers should be between [{least}, 200] and MaximumPollers should be between [MinimumPollers,"
            f" {most}]"
        )
    if "ScalingConfig" in settings:
        raise invalid_parameter(
            "Provisioned mode for SQS ESM does not support maximum concurrency feature. Use MaximumPollers as the"
            " control mechanism and remove maximum concurrency."
        )


def _check_kafka(settings: Settings) -> None:
    """Error handling, logs and metrics come with provisioned mode only."""
    if "ProvisionedPollerConfig" in settings:
        return
    for name in _PROVISIONED_ONLY:
        if settings.get(name) not in (None, [], _NEUTRAL.get(name)):
            raise _unsupported(_lower(name))
    if "MetricsConfig" in settings:
        raise invalid_parameter(
            "MetricsConfig is only available for Provisioned Mode. Enable Provisioned Mode by specifying"
            " MinimumPollers in ProvisionedPollerConfig."
        )


def _check_access(source: Source, settings: Settings) -> None:
    kinds = [access.get("Type") for access in settings.get("SourceAccessConfigurations", ())]
    if source is MQ:
        right = kinds.count("BASIC_AUTH") == 1 and set(kinds) <= {"BASIC_AUTH", "VIRTUAL_HOST"}
    elif source is DOCUMENTDB:
        right = kinds == ["BASIC_AUTH"]
    elif source in OURS:
        right = set(kinds) <= ({"BASIC_AUTH", "VIRTUAL_HOST"} if source is RABBITMQ else {"BASIC_AUTH"})
    else:
        right = "VIRTUAL_HOST" not in kinds
    if not right:
        raise invalid_parameter("Invalid parameters: sourceAccessConfigurations")


def _can_be_told(settings: Settings, destination: str) -> bool:
    """Whether failures of this mapping can be sent there: to another Kafka topic in provisioned mode only."""
    if destination.startswith("kafka://"):
        topic = destination.removeprefix("kafka://")
        return "ProvisionedPollerConfig" in settings and topic not in settings["Topics"]
    parts = destination.split(":", 5)
    return len(parts) == 6 and parts[2] in ("sqs", "sns", "s3") and not parts[5].endswith(".fifo") and parts[5] != ""


def _consumes_queue(source: Source, settings: Mapping[str, Any]) -> bool:
    """A Kafka topic read as a queue, by a share group."""
    return source in KAFKA and (settings.get(source.consumer_config) or {}).get("ConsumptionMode") == "Queue"


# Two mappings of the same thing --------------------------------------------------------------------


def duplicates(mapping: EventSourceMappingRecord, other: EventSourceMappingRecord) -> bool:
    """Whether both send the same records to the same function, version or alias."""
    if (mapping.source, mapping.event_source_arn, mapping.function_arn) != (
        other.source,
        other.event_source_arn,
        other.function_arn,
    ):
        return False
    source, ours, theirs = SOURCES[mapping.source], mapping.settings, other.settings
    if source in KAFKA:
        same_cluster = bool(mapping.event_source_arn) or not set(_servers(ours)).isdisjoint(_servers(theirs))
        return same_cluster and bool(ours["Topics"] == theirs["Topics"])
    if source in OURS:
        return bool(ours.get("Queues") == theirs.get("Queues"))
    if source is MQ:
        return bool(ours["Queues"] == theirs["Queues"]) and _virtual_host(ours) == _virtual_host(theirs)
    if source is DOCUMENTDB:
        database, same = ours["DocumentDBEventSourceConfig"], theirs["DocumentDBEventSourceConfig"]
        return all(database.get(name) == same.get(name) for name in ("DatabaseName", "CollectionName"))
    return True


def already_exists(mapping: EventSourceMappingRecord, existing: EventSourceMappingRecord) -> str:
    """The service's words for a second mapping of the same source; each kind of source has its own."""
    source, arn, name = SOURCES[mapping.source], mapping.event_source_arn, mapping.function
    if source in QUEUES:
        what = f'An event source mapping with SQS arn (" {arn} ") and function (" {name} ") already exists.'
    elif source in KAFKA:
        servers, topics = arn or ",".join(_servers(mapping.settings)), ",".join(mapping.settings["Topics"])
        what = (
            f'An event source mapping with event source ("{servers}"), function ("{mapping.function_arn}"), topics'
            f' ("{topics}") already exists.'
        )
    else:
        what = f'The event source arn (" {arn} ") and function (" {name} ") provided mapping already exists.'
    return f"{what} Please update or delete the existing mapping with UUID {existing.uuid}"


def _servers(settings: Settings) -> list[str]:
    endpoints = (settings.get("SelfManagedEventSource") or {}).get("Endpoints") or {}
    servers: list[str] = endpoints.get("KAFKA_BOOTSTRAP_SERVERS") or []
    return servers


def _virtual_host(settings: Settings) -> str:
    hosts = [each["URI"] for each in settings["SourceAccessConfigurations"] if each.get("Type") == "VIRTUAL_HOST"]
    return hosts[0] if hosts else "/"


# Words ---------------------------------------------------------------------------------------------


def _lower(member: str) -> str:
    return member[:1].lower() + member[1:]


def _unrecognized() -> ApiError:
    return invalid_parameter("Unrecognized event source.")


def _required(member: str) -> ApiError:
    return invalid_parameter(f"Required '{_lower(member)}' parameter is missing.")


def _unsupported(member: str) -> ApiError:
    return invalid_parameter(f"Unsupported '{member}' parameter for given event source mapping type.")


def _unsupported_destination() -> ApiError:
    return invalid_parameter("Unsupported DestinationConfig parameter for given event source mapping type.")
