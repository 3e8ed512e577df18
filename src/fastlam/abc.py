"""What layers agree on without knowing each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol

from fastlam import limits
from fastlam.arn import FunctionAddress
from fastlam.errors import ApiError
from fastlam.wire.control import WorkerSpec


@dataclass(frozen=True)
class Confinement:
    """What the walls of a function's environments are built around."""

    code: str  # the directory of its unpacked package
    opt: str  # that of its layers; "" without
    memory_mb: int
    storage_mb: int  # of /tmp
    file_systems: tuple[tuple[str, str], ...] = ()  # directory of this machine, mount path
    network: str = ""  # "": this machine's; "own": its own; else the name of one that others share


@dataclass(frozen=True)
class LaunchSpec:
    """How the environments of one target are made: written by runtimes and embed, carried out by sandbox."""

    worker: WorkerSpec
    zygote_kind: str = "plain"  # or another of worker.zygote
    captures_output: bool = True
    confinement: Confinement | None = None  # without one it has no walls
    snapshot: str = ""  # the template (SnapStart) that they are restored from, or that they are: by a name of its own
    frame_bytes_max: int = limits.FRAME_BYTES_MAX  # -1: unbounded, for callers that trust their own tasks


Accepted = Callable[[ApiError | None], None]
"""`accepted(None)`: the event is safe and will run; otherwise why it has not been taken."""

EventInvoker = Callable[[str, bytes, str, Accepted], None]
"""`invoke_event(arn, payload, trace, accepted)`: an asynchronous invocation by what is no caller of the API. Raises
ApiError where the function cannot be invoked."""
class Outcome(Enum):
    """How an invocation ended, as far as who has called must care."""

    OK = "ok"
    FUNCTION_ERROR = "function_error"  # it ran, and failed
    THROTTLED = "throttled"  # it did not run: no concurrency was left
    UNAVAILABLE = "unavailable"  # it did not run: no such function, no environment, the daemon stops


class Invoked(NamedTuple):
    """The end of one invocation."""

    outcome: Outcome
    payload: bytes  # the result, or the error as JSON; b"" when it did not run
    request_id: str
    executed_version: str
    reason: str = ""  # why it did not run


class Invoker(Protocol):
    """What invokes for those who are no clients: pollers, schedules, gateways."""

    async def invoke(
        self, address: FunctionAddress, payload: bytes, *, source_arn: str, request_id: str | None = None
    ) -> Invoked:
        """Waits for the end. A cancelled call is left to end by itself. Raises nothing of the function's."""


@dataclass(frozen=True)
class FailedBatch:
    """Records of a source that were given up, for their on-failure destination."""

    destination: str  # the ARN of a queue, a topic or a bucket
    role: str  # as which it is sent; "": the credentials themselves
    region: str  # of the mapping
    record: Mapping[str, Any]  # what the destination is told
    payload: bytes  # the event, which only buckets get
    place: str  # mapping and shard, "<uuid>/<shard>": a bucket keeps it below aws/lambda/ there


class FailureSender(Protocol):
    """What takes the records of batches that were given up to their on-failure destination."""

    async def send_failure(self, failure: FailedBatch) -> None:
        """Raises FastlamError or OSError when it was not taken."""
