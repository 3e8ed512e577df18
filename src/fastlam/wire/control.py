"""Messages between an owner (daemon or embedding program) and its zygote, over a SOCK_SEQPACKET socketpair.

Each message is one packet: an array-like msgpack struct, tagged by a small integer; descriptors travel beside it. What
a worker is to become does not fit a packet (environment variables have no bound): `Fork` carries it as a `WorkerSpec`
in a memfd.
"""

from __future__ import annotations

from typing import Final

import msgspec

PACKET_BYTES_MAX: Final = 4096
DESCRIPTORS_MAX: Final = 8


class Message(msgspec.Struct, array_like=True):
    """Base of all messages; each subclass has its own integer tag."""


class Up(Message, tag=1):
    """Zygote: its imports are done and it takes orders."""

    pid: int
    import_ns: int


class Fork(Message, tag=2):
    """Owner: make a worker. Descriptors: spec memfd, listening socket, slot table memfd, stdout and stderr; with an
    express lane then the memfd of its rings and the eventfd of its bell.
    """

    environment_id: int


class Forked(Message, tag=3):
    """Zygote: the worker exists. Descriptor: its pidfd."""

    environment_id: int
    pid: int


class Exited(Message, tag=4):
    """Zygote: the worker has been reaped, and its process group killed."""

    environment_id: int
    wait_status: int
    memory_peak_kib: int


class Kill(Message, tag=5):
    """Owner: kill the worker's process group."""

    environment_id: int


class ForkFailed(Message, tag=6):
    """Zygote: no worker could be made."""

    environment_id: int
    reason: str


FromOwner = Fork | Kill
FromZygote = Up | Forked | Exited | ForkFailed


class WorkerSpec(msgspec.Struct, kw_only=True):
    """What a freshly forked worker becomes. Paths are absolute."""

    kind: str  # "function" or "tasks"
    title: str  # shown by ps between "fastlam: env " and the state
    environ: dict[str, str]
    directory: str  # working directory
    path: list[str]  # sys.path: for functions what comes before the standard library, for tasks all of it
    handler: str = ""
    task_root: str = ""  # rewritten to /var/task in error payloads
    layer_root: str = ""  # rewritten to /opt there
    callable_payload: bytes = b""  # pickled handler (embedded functions)
    preparation: bytes = b""  # pickled data of multiprocessing.spawn (tasks, embedded functions)
    initializer: bytes = b""  # pickled (function, arguments) of an executor's initializer


encode: Final = msgspec.msgpack.Encoder().encode
decode_from_owner: Final = msgspec.msgpack.Decoder(FromOwner).decode
decode_from_zygote: Final = msgspec.msgpack.Decoder(FromZygote).decode
decode_spec: Final = msgspec.msgpack.Decoder(WorkerSpec).decode
