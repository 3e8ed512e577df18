"""Which poller reads which kind of source. Each is imported when the first mapping of its kind is started."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any, Final

from fastlam.sources.context import MakePoller, SourceProblem

# Kind of source (control/event_sources.py) -> module and class.
_POLLERS: Final = {
    "sqs": ("sqs", "SqsPoller"),
    "sqs-fifo": ("sqs", "SqsPoller"),
    "kinesis": ("kinesis", "kinesis_poller"),
    "dynamodb": ("dynamodb", "dynamodb_poller"),
    "self-managed-kafka": ("kafka", "KafkaPoller"),
    "msk": ("kafka", "KafkaPoller"),
    "mq": ("mq", "MqPoller"),
    "redis": ("redis", "RedisPoller"),
    "nats": ("nats", "NatsPoller"),
    "mqtt": ("mqtt", "MqttPoller"),
    "postgresql": ("postgresql", "PostgresqlPoller"),
    "directory": ("directory", "DirectoryPoller"),
    "rabbitmq": ("rabbitmq", "RabbitmqPoller"),
    "activemq": ("activemq", "ActivemqPoller"),
}


def poller_of(kind: str) -> MakePoller:
    """Raises SourceProblem for a kind that nothing here reads."""
    if kind not in _POLLERS:
        raise SourceProblem(f"Sources of the kind {kind} are not read by fastlam.")
    module, name = _POLLERS[kind]
    make: MakePoller = getattr(import_module(f"fastlam.sources.pollers.{module}"), name)
    return make


def library(module: str, extra: str) -> Any:
    """A client library that is an optional extra. Raises SourceProblem with how to get it."""
    # What they would log the mapping says in its own words.
    logging.getLogger(module.partition(".")[0]).setLevel(logging.CRITICAL)
    try:
        return import_module(module)
    except ImportError:
        raise SourceProblem(
            f"The Python package for this source is not installed: pip install 'fastlam[{extra}]'."
        ) from None
