"""Frames between a dispatcher and an execution environment.

One frame is one ZeroMQ message: ``u32 little-endian header length | header | payload``. The header is one of the
structs below (array-like msgpack, tagged by a small integer); the payload is opaque bytes and runs to the end of the
message. docs/protocol.md draws the state diagrams. A change of meaning raises `PROTOCOL_VERSION`; a dispatcher ends an
environment that says another one.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

PROTOCOL_VERSION: Final = 2

# What an environment may say of itself: numbers with which the dispatcher's C integers can reckon.
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class Frame(msgspec.Struct, array_like=True, gc=False, forbid_unknown_fields=True):
    """Base of all frames; each subclass has its own integer tag."""


# Dispatcher to environment ---------------------------------------------------------------------


class Invoke(Frame, tag=1):
    """Run the handler once; the payload is the raw event."""

    slot: int  # index in the shared slot table
    request_id: str
    deadline_epoch_ms: int
    invoked_function_arn: str
    trace_id: str | None = None
    client_context: str | None = None
    tenant_id: str | None = None
    cognito_identity: str | None = None
    response_stream: bool = False  # the caller takes the answer in pieces: `Chunk`s are allowed


class Task(Frame, tag=2):
    """Run one executor task; the payload is described in worker/tasks.py."""

    slot: int


class Stop(Frame, tag=3):
    """Leave after the current invocation; no reply is awaited."""


class Tasks(Frame, tag=4):
    """Several executor tasks in one message, for a worker that has others to do meanwhile; their payloads stand one
    behind the other.
    """

    slots: list[int]
    payload_bytes: list[int]


# Environment to dispatcher ---------------------------------------------------------------------


class Ready(Frame, tag=16):
    """INIT is over and the handler is resolved: the environment takes invocations from now on."""

    protocol_version: int
    init_ns: Count
    memory_peak_kib: Count
    log_end_bytes: Count


class InitFailed(Frame, tag=17):
    """INIT failed; the payload is the error JSON of the runtime. The environment ends itself afterwards."""

    protocol_version: int
    init_ns: Count
    memory_peak_kib: Count
    log_end_bytes: Count
    error_type: str


class Result(Frame, tag=18):
    """An invocation is over; the payload is its result or, with a non-empty `error_type`, the error JSON."""

    slot: Count
    duration_ns: Count
    cpu_ns: Count
    memory_peak_kib: Count
    log_end_bytes: Count
    error_type: str = ""
    content_type: str = ""  # empty means application/json


class TaskResult(Frame, tag=19):
    """An executor task is over; `failed` tells whether the payload is a value or an exception."""

    slot: Count
    duration_ns: Count
    failed: bool


class Chunk(Frame, tag=20):
    """A piece of the answer to an invocation with `response_stream`, before its `Result`; the payload is the piece.

    The first one makes the answer a stream, also when it is empty: the result's payload is then no part of the answer.
    """

    slot: Count
    content_type: str = ""  # of the whole answer; only the first one's counts


ToEnvironment = Invoke | Task | Stop | Tasks
FromEnvironment = Ready | InitFailed | Result | TaskResult | Chunk
