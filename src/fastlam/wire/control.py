"""Messages between an owner (daemon or embedding program) and its zygote, over a SOCK_SEQPACKET socketpair.

Each message is one packet: an array-like msgpack struct, tagged by a small integer; descriptors travel beside it. What
a worker is to become does not fit a packet (environment variables have no bound): `Fork` carries it as a `WorkerSpec`
in a memfd. The keeper of a template (SnapStart) is to its owner a zygote of its own; with the template, whose memory
functions have written in, it speaks in the same way.
"""

from __future__ import annotations

from typing import Final

import msgspec

PACKET_BYTES_MAX: Final = 4096
DESCRIPTORS_MAX: Final = 10
NAMESPACE_KINDS: Final = ("user", "pid", "mnt", "uts", "ipc", "cgroup")  # that a restored environment enters
GROUPS_MAX: Final = 5  # files of control groups of one environment
RESTORE_DESCRIPTORS_MAX: Final = 1 + len(NAMESPACE_KINDS) + GROUPS_MAX + DESCRIPTORS_MAX
NAMESPACES: Final = "namespaces"  # what worker.probe calls all that stands on them
# How environments come from a template (WorkerSpec.template).
FORKED: Final = "forked"
COPIED: Final = "copied"  # by criu, threads and all
# Why no template could be made of what runs: error types of its INIT.
THREADS_LEFT: Final = "Snapshot.ThreadsLeft"  # by INIT: a fork would lose them
NOT_COPIED: Final = "Snapshot.NotCopied"


class Message(msgspec.Struct, array_like=True):
    """Base of all messages; each subclass has its own integer tag."""


class Up(Message, tag=1):
    """Zygote: its imports are done and it takes orders."""

    pid: int
    import_ns: int
    resident_bytes: int  # which its workers share with it


class Fork(Message, tag=2):
    """Owner: make a worker. Descriptors: spec memfd, listening socket, slot table memfd, stdout and stderr; with an
    express lane then the memfd of its rings and the eventfd of its bell; with Walls.keeps_tmp the socket that a copy of
    /tmp's mount goes to; with Walls.given_tmp that mount itself; with a network of its own, last, that namespace.
    """

    environment_id: int
    own_pids: bool = False  # in a pid namespace of its own
    thaw_path: str = ""  # where THAWED is written, lest what is killed while it is frozen lives on; "" where it dies


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


class Criu(msgspec.Struct, array_like=True):
    """The program that copies processes (criu.org). It runs where these paths are not: by descriptors."""

    program: str
    loader: str = ""  # that runs it, with libraries of its own; "": the machine's
    libraries: str = ""  # the directory that the loader looks in


class Keep(Message, tag=7):
    """Owner: make the keeper of a template. Descriptor: its end of its own socketpair with the owner. Its first `Fork`
    makes the template, each further one an environment that is restored from it: by a fork, or with `criu` from a copy.
    `Forked` and `Exited` report the keeper itself as they do a worker.
    """

    environment_id: int  # negative: an environment's it is not
    own_pids: bool = False
    criu: Criu | None = None


class Restore(Message, tag=8):
    """Keeper to template: fork an environment. Descriptors: the socket by which it says who it is; with `namespaces`
    one of each of NAMESPACE_KINDS; so many files of control `groups` that it joins; then those of Fork.
    """

    environment_id: int
    namespaces: bool = False
    groups: int = 0
    began_ns: int = 0  # by CLOCK_MONOTONIC; 0: now


class Restored(Message, tag=9):
    """Template to keeper: the process has been forked; the keeper is its parent."""

    environment_id: int


class TakeSnapshot(Message, tag=17):
    """Template to keeper, once, when its INIT is over: to be copied as it is now, waiting for the answer. A copy gets
    `Restore` in its place.
    """

    sockets: list[int]  # inodes of its ends of sockets whose other ends are not the function's; the keeper's first


class SnapshotTaken(Message, tag=18):
    """Keeper to template."""

    reason: str = ""  # why there is none


FromOwner = Fork | Kill | Keep
FromZygote = Up | Forked | Exited | ForkFailed


class Mount(msgspec.Struct, array_like=True):
    """Something in the file system of an environment."""

    kind: str  # "bind", "tmpfs", "proc" or "given": by a descriptor that comes with the order
    target: str  # absolute, as the function sees it
    source: str = ""  # of "bind": what lies there outside
    options: str = ""  # of "tmpfs"
    writable: bool = False  # of "bind"


class Walls(msgspec.Struct, kw_only=True):
    """What worker.walls puts between a function and the machine. Whatever is empty, 0 or negative is left out."""

    groups: list[str] = []  # files of the environment's control groups; a 0 joins
    namespaces: int = 0  # CLONE_NEW* flags; the process's own pid and user namespaces are its zygote's work
    own_network: bool = False  # the network namespace that comes with the order
    tcp_ports: list[int] | None = None  # all that may be connected to there, and no other use of it; None: no bound
    root: str = ""  # an empty directory outside, where the root is put together
    mounts: list[Mount] = []  # the same in all environments of a daemon
    own_mounts: list[Mount] = []
    directories: list[str] = []  # empty ones of the root
    links: list[tuple[str, str]] = []  # symbolic links of the root: path, what it leads to
    files: list[tuple[str, bytes]] = []  # small files of the root
    given_tmp: bool = False  # /tmp is mounted already, and comes with the order
    keeps_tmp: bool = False  # a copy of its mount goes back, for whoever comes after this environment
    writable: list[str] = []  # paths below which files may change, beside the usual ones
    limits: list[tuple[int, int, int]] = []  # RLIMIT_*, soft, hard; -1: none
    own_user_namespace: bool = False
    uid: int = -1  # to become, as user and as group
    landlock: int = 0  # the kernel's version of it
    seccomp: bool = False
    restores: bool = False  # a template's, whose children enter namespaces, and are confined by landlock there
    copied: bool = False  # a template's, whose copies begin in namespaces of theirs, confined by landlock already


class Probe(msgspec.Struct, kw_only=True):
    """What worker.probe is to try."""

    walls: Walls
    user_namespace: bool
    own_pids: bool
    criu: Criu | None = None  # whether it copies what is behind the walls
    disks: str = ""  # the directory that a disk for /tmp is to be made in
    room_bytes: int = 0  # on it


class Findings(msgspec.Struct, kw_only=True):
    """What worker.probe has found."""

    missing: dict[str, str]  # wall: why it cannot be had
    landlock: int  # the kernel's version of it
    no_restore: str  # why nothing can be restored from a template behind the walls that can be had; "" if it can
    no_copy: str  # why criu can make no copy of what is behind them; "" if it can, or was not to be tried
    no_network_rate: str  # why what goes over a network of its own can be held to no rate; "" if it can
    no_disk: str  # why no disk can be made for /tmp; "" if one can, or none was asked for


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
    walls: Walls | None = None
    tmp: str = ""  # a directory of its own, where /tmp is everybody's
    template: str = ""  # FORKED or COPIED: after its INIT environments come from it, instead of running invocations
    keeps_threads: bool = False  # a template that is to be forked says so, and fails, if its INIT has left any


class MakeNetwork(Message, tag=10):
    """Owner, to the maker of networks: a network namespace with `lo` up, and a listening socket at each door."""

    number: int  # of the order
    doors: list[tuple[str, int]]  # IPv4 address and port


class NetworkMade(Message, tag=11):
    """Maker of networks. Descriptors: the namespace, then the sockets in the order of the doors; none with a reason."""

    number: int
    reason: str = ""  # why there is none


class MakeDisk(Message, tag=12):
    """Owner, to the maker of disks: a mount that is nowhere, for somebody's /tmp."""

    room_bytes: int


class DiskMade(Message, tag=13):
    """Maker of disks, in the order of the orders. Descriptor: the mount; none if there is not even one in memory."""

    number: int
    device: str  # major:minor; "" if it is in memory
    reason: str = ""  # why it is


class ReturnDisk(Message, tag=14):
    """Owner, to the maker of disks: who had that one is gone."""

    number: int


class HoldNetwork(Message, tag=15):
    """Owner, to the maker of networks. Descriptor: a namespace, whose `lo` carries no more from now on."""

    bytes_per_second: int


class NetworkHeld(Message, tag=16):
    """Maker of networks."""

    reason: str = ""  # why it is not


encode: Final = msgspec.msgpack.Encoder().encode
decode_from_owner: Final = msgspec.msgpack.Decoder(FromOwner).decode
decode_from_zygote: Final = msgspec.msgpack.Decoder(FromZygote).decode
decode_network_order: Final = msgspec.msgpack.Decoder(MakeNetwork | HoldNetwork).decode
decode_network_made: Final = msgspec.msgpack.Decoder(NetworkMade | NetworkHeld).decode
decode_disk_order: Final = msgspec.msgpack.Decoder(MakeDisk | ReturnDisk).decode
decode_disk_made: Final = msgspec.msgpack.Decoder(DiskMade).decode
decode_from_keeper: Final = msgspec.msgpack.Decoder(Restore | SnapshotTaken).decode
decode_from_template: Final = msgspec.msgpack.Decoder(Restored | TakeSnapshot).decode
decode_spec: Final = msgspec.msgpack.Decoder(WorkerSpec).decode
decode_probe: Final = msgspec.msgpack.Decoder(Probe).decode
decode_findings: Final = msgspec.msgpack.Decoder(Findings).decode
