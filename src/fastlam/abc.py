"""What layers agree on without knowing each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastlam import limits
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
