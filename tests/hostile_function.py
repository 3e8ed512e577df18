"""A function that attacks the daemon from inside its environment, and what its tests need to command it.

Deployed under any name, it does the deed that `act` names: it digs out the connection to the dispatcher, and its rings if
it has some, and writes what no runtime would; it scribbles over the shared memory, tampers with its output, closes
descriptors, leaves children behind. With `stay` it waits to be killed afterwards, where the deed allows it; without, the
runtime goes on as if nothing were.

`write` puts bytes into the connection, `say` a frame into the lane, whichever there is, in the runtime's own place: what
the runtime says next comes behind it.
"""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path
from typing import Any, Final

from daemon_running import Invoked, RunningDaemon
from failed_calls import answered_or_exited, killed

CODE: Final = r'''
import base64, ctypes, fcntl, gc, os, random, signal, socket, stat, struct, sys, threading, time

def lane():
    """The connection to the dispatcher, found among the open descriptors."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found = socket.socket(fileno=os.dup(int(name)))
                if found.family == socket.AF_UNIX and found.type == socket.SOCK_STREAM:
                    found.getpeername()
                    return found
                found.close()
        except OSError:
            pass
    raise LookupError("there is no lane")

def mapped(name):
    """(address, size) of a memfd of that name; None if there is none."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            if name in line:
                first, last = (int(word, 16) for word in line.split()[0].split("-"))
                return first, last - first
    return None

def table():
    """(address, size) of the slot table."""
    return mapped("fastlam-slots")

RING, INLINE = 65536, 16384
FRAME, DISTANT, BY_SOCKET = 1, 4, 5

class Rings:
    """The worker's side of its rings: csrc/fl_express.h, as it lies in memory."""

    def __init__(self):
        self.base, self.size = mapped("fastlam-express")
        self.published = ctypes.c_uint64.from_address(self.base + 384)
        self.released = ctypes.c_uint64.from_address(self.base + 384 + 64)
        self.asleep = ctypes.c_uint32.from_address(self.base + 384 + 128)
        self.requests = [ctypes.c_uint64.from_address(self.base + 128 + at) for at in (0, 64, 128, 192)]
        self.data = self.base + 4096 + RING
        (self.region_bytes,) = struct.unpack("<Q", ctypes.string_at(self.base + 16, 8))
        self.region = self.base + self.size - (self.region_bytes + 4095) // 4096 * 4096
        self.region_taken = 0
        # The runtime's own position, which it believes and nothing else: behind the pointer to where its ring lies.
        (worker,) = [one for one in gc.get_objects() if type(one).__name__ == "FunctionWorker"]
        channel = id(worker.channel)
        at = ctypes.string_at(channel, sys.getsizeof(worker.channel)).index(struct.pack("<Q", self.data))
        self.position = ctypes.c_uint64.from_address(channel + at + 16)
        self.bells = []
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.readlink("/proc/self/fd/" + name) == "anon_inode:[eventfd]":
                    self.bells.append(int(name))
            except OSError:
                pass

    def ring(self):
        for bell in self.bells:
            try:
                os.write(bell, struct.pack("<Q", 1))
            except OSError:
                pass

    def publish(self, position=None):
        self.published.value = self.position.value if position is None else position
        self.asleep.value = 0
        self.ring()

    def reserve(self, content):
        """False: there is no room."""
        total = 8 + (len(content) + 7) // 8 * 8
        offset = self.position.value % RING
        skip = RING - offset if RING - offset < total else 0
        if self.position.value - self.released.value + skip + total > RING:
            return False
        if skip:
            ctypes.memmove(self.data + offset, b"\xff" * 4, 4)
            self.position.value += skip
            offset = 0
        ctypes.memmove(self.data + offset, struct.pack("<II", len(content), 0) + content, 8 + len(content))
        self.position.value += total
        return True

    def put(self, content):
        """One record as it stands, once there is room."""
        while not self.reserve(content):
            self.publish()
            time.sleep(0.001)
        self.publish()

    def put_frame(self, frame):
        content = struct.pack("<I", FRAME) + frame
        if len(content) <= INLINE:
            return self.put(content)
        while len(content) > self.region_bytes - self.region_taken:
            if len(content) > self.region_bytes:
                raise ValueError("no ring takes it")
            if self.released.value == self.position.value:
                self.region_taken = 0
            else:
                time.sleep(0.001)
        ctypes.memmove(self.region + self.region_taken, content, len(content))
        self.put(struct.pack("<IIQQ", DISTANT, 0, self.region_taken, len(content)))
        self.region_taken = min(self.region_bytes, self.region_taken + (len(content) + 63) // 64 * 64)

def zmtp(body):
    return (bytes([0, len(body)]) if len(body) < 256 else b"\2" + struct.pack(">Q", len(body))) + body

def speaker():
    """A function that puts one frame into the lane."""
    if mapped("fastlam-express") is not None:
        return Rings().put_frame
    connection = lane()
    return lambda frame: connection.sendall(zmtp(frame))

def stay(event):
    while event.get("stay"):
        signal.pause()

def write(event):
    connection = lane()
    try:
        for data in event["data"] * event.get("times", 1):
            connection.sendall(base64.b64decode(data))
    except OSError:
        pass   # cut off
    stay(event)
    return "written"

def say(event):
    put = speaker()
    try:
        for frame in event["data"] * event.get("times", 1):
            put(base64.b64decode(frame))
    except OSError:
        pass   # cut off
    stay(event)
    return "said"

def announce(event):
    """A message of that size, or as much of it as is taken."""
    connection = lane()
    left = event["size"]
    connection.sendall(b"\2" + struct.pack(">Q", left))
    try:
        while left > 0:
            left -= connection.send(b"x" * min(left, 1 << 20))
    except OSError:
        pass
    stay(event)
    return "announced"

def forge(event):
    """Ends this invocation itself, as the runtime would, and then lets the runtime do it again."""
    address, size = table()
    word = ctypes.c_uint32.from_address(address + 64)
    word.value = (word.value & ~0xFF) | 3
    return say(event)

def say_when_idle(event):
    """Speaks once the answer to this invocation has gone out."""
    word = ctypes.c_uint32.from_address(table()[0] + 64)
    def later():
        while word.value & 0xFF != 0:
            time.sleep(0.001)
        say(event)
    threading.Thread(target=later).start()
    return os.getpid()

def call_in(event):
    """Connects to its own end of the lane, as the dispatcher has done before."""
    with lane() as own, socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(1)
        try:
            peer.connect(own.getsockname())
            peer.sendall(b"\xff" * event["size"])
        except OSError:
            pass
    return "called"

def scribble(event):
    address, size = table()
    noise = random.randbytes(size) if event["value"] == "noise" else bytes([event["value"]]) * size
    ctypes.memmove(address, noise, size)
    return "scribbled"

def scribble_on(event):
    """Goes on writing while other invocations come and go."""
    address, size = table()
    def forever():
        noise = random.Random(1)
        while True:
            ctypes.memmove(address + 64, noise.randbytes(64), 64)
    threading.Thread(target=forever, daemon=True).start()
    return "scribbling"

def close_all(event):
    os.closerange(0, 4096)
    stay(event)
    return "closed"

def close_lane(event):
    lane().shutdown(socket.SHUT_RDWR)
    stay(event)
    return "shut"

def pour(event):
    """Fills the socket for as long as it is let; half a gigabyte shows what there is to show."""
    connection = lane()
    data = base64.b64decode(event["data"])
    for _ in range(500_000_000 // len(data)):
        connection.sendall(data)
    signal.pause()

def gush(event):
    """As `pour`, with whole frames through whatever lane there is."""
    put = speaker()
    frame = base64.b64decode(event["data"])
    for _ in range(500_000_000 // (len(frame) + 20)):
        put(frame)
    signal.pause()

def print_on(event):
    """Prints without end."""
    line = "x" * 8191
    while True:
        print(line)

def write_on(event):
    """Prints without end, past Python's streams."""
    block = b"x" * 65536
    while True:
        os.write(1, block)

def stretch(event):
    """Prints, gives the output another size, and prints again if told so."""
    print("before" * 1000)
    os.ftruncate(1, event["size"])
    if event["again"]:
        print("after")
    return "done"

def tamper(event):
    """What else can be done to the memfd of the output."""
    what = event["what"]
    if what == "flags":
        fcntl.fcntl(1, fcntl.F_SETFL, os.O_NONBLOCK)
        os.lseek(1, 0, os.SEEK_SET)
    elif what == "seal":
        try:
            fcntl.fcntl(1, 1033, 0x1F)
        except OSError as error:
            return error.errno
    elif what == "hole":
        print("before" * 1000)
        ctypes.CDLL(None).fallocate(1, 3, ctypes.c_int64(0), ctypes.c_int64(1 << 20))
    return "done"

def breed(event):
    """Children that stay: in the group, in one of their own, and in a session of their own."""
    pids = []
    for kind in event["kinds"]:
        pid = os.fork()
        if pid == 0:
            if kind == "group":
                os.setpgid(0, 0)
            elif kind == "session":
                os.setsid()
            while True:
                signal.pause()
        pids.append(pid)
    return pids

def leave(event):
    os._exit(0)

# ---- what only rings allow

def records(event):
    """Records as they stand, and messages by the connection behind them."""
    rings = Rings()
    for record in event["data"]:
        rings.put(base64.b64decode(record))
    for message in event.get("messages", ()):
        lane().sendall(base64.b64decode(message))
    stay(event)
    return "put"

def misplace(event):
    """Says that its replies end somewhere else."""
    rings = Rings()
    rings.publish(rings.position.value + event["step"])
    stay(event)
    return "misplaced"

def take_back(event):
    """Says that it has read more of its requests, or less, than there were; or anything at all, for ever."""
    rings = Rings()
    _, released, _, crowded = rings.requests
    def say_so():
        released.value = (released.value + event["step"]) % 2**64
        crowded.value = 1
        rings.ring()
    def go_on():
        noise = random.Random(1)
        while True:
            released.value = noise.randrange(2**64) if noise.random() < 0.5 else (released.value + 8) % 2**64
            crowded.value = 1
            rings.ring()
    if event.get("on"):
        threading.Thread(target=go_on, daemon=True).start()
    else:
        say_so()
    return "taken back"

def part_of(rings, part):
    """(address, size)."""
    return {
        "control": (rings.base + 64, 640 - 64),
        "replies": (rings.data, RING),
        "requests": (rings.data - RING, RING),
        "all": (rings.base, rings.size),
    }[part]

def scrawl(event):
    """Writes over its rings: once, or for ever while other calls come and go."""
    rings = Rings()
    address, size = part_of(rings, event["part"])
    noise = random.Random(event["value"])
    def bytes_of(size):
        return noise.randbytes(size) if event["value"] == "noise" else bytes([event["value"]]) * size
    def go_on():
        while True:
            at = noise.randrange(0, size, 8)
            ctypes.memmove(address + at, bytes_of(8), 8)
            rings.ring()
    if event.get("on"):
        threading.Thread(target=go_on, daemon=True).start()
    else:
        ctypes.memmove(address, bytes_of(size), size)
        rings.ring()
    stay(event)
    return "scrawled"

def ring_on(event):
    """Rings without end and says nothing."""
    rings = Rings()
    def go_on():
        while True:
            rings.ring()
    threading.Thread(target=go_on, daemon=True).start()
    return os.getpid()

def mute(event):
    """Closes its bell, or fills it."""
    for bell in Rings().bells:
        if event["how"] == "closed":
            os.close(bell)
        else:
            for number in (2**64 - 2, 2**63, 2**62, 2**31, *[1] * 100):
                try:
                    while True:
                        os.write(bell, struct.pack("<Q", number))
                except BlockingIOError:
                    pass
    stay(event)
    return "muted"

def unmap(event):
    rings = Rings()
    ctypes.CDLL(None).munmap(ctypes.c_void_p(rings.base), ctypes.c_size_t(rings.size))
    stay(event)
    return "unmapped"

def punch(event):
    """Gives its memory back, all of it or a part, whose every byte is 0 then."""
    rings = Rings()
    address, size = part_of(rings, event["part"])
    address = address // 4096 * 4096
    size = size // 4096 * 4096 or 4096
    if ctypes.CDLL(None, use_errno=True).madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), 9) != 0:
        return ctypes.get_errno()
    stay(event)
    return "punched"

def where(event):
    """The file of its memory below its /proc, and the size."""
    rings = Rings()
    return [f"map_files/{rings.base:x}-{rings.base + rings.size:x}", rings.size]


def leave_writer(event):
    """A child in a session of its own goes on writing whatever the worker could; the worker dies."""
    rings = Rings()
    record = base64.b64decode(event["data"][0])
    worker = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for fd in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
        while True:
            while rings.reserve(record):
                pass
            rings.publish()
    if event["dies"]:
        os.kill(worker, signal.SIGKILL)
    return pid

def die(event):
    """At a bad moment."""
    rings = Rings()
    if event["when"] == "a record is reserved":
        rings.reserve(struct.pack("<I", FRAME) + base64.b64decode(event["data"][0]))
    elif event["when"] == "a skip is written":
        ctypes.memmove(rings.data + rings.position.value % RING, b"\xff" * 4, 4)
    elif event["when"] == "its answer is in the region":
        word = ctypes.c_uint32.from_address(table()[0] + 64)
        word.value = (word.value & ~0xFF) | 3
        rings.put_frame(base64.b64decode(event["data"][0]))
    elif event["when"] == "its answer is to come by the connection":
        word = ctypes.c_uint32.from_address(table()[0] + 64)
        word.value = (word.value & ~0xFF) | 3
        rings.put(struct.pack("<I", BY_SOCKET))
        lane().sendall(zmtp(base64.b64decode(event["data"][0]))[:event["cut"]])
    os.kill(os.getpid(), signal.SIGKILL)

def forge_and_die(event):
    header = b"\x97\x12\0\5\5\5\0\xa0"
    answer = struct.pack("<I", len(header)) + header + b'"' + b"x" * event["size"] + b'"'
    die({"when": event["when"], "data": [base64.b64encode(answer)]})

def rest(event):
    """Is stopped in the middle of a record, until a child sees that and has it go on."""
    rings = Rings()
    rings.reserve(struct.pack("<I", FRAME) + base64.b64decode(event["data"][0]))
    worker = os.getpid()
    child = os.fork()
    if child == 0:
        while open(f"/proc/{worker}/stat").read().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)
        os.kill(worker, signal.SIGCONT)
        os._exit(0)
    os.kill(worker, signal.SIGSTOP)
    os.waitpid(child, 0)
    rings.publish()
    return "rested"

def hold(event):
    return os.getpid()

def handler(event, context):
    return globals()[event["act"]](event)
'''
# What the function's log says of an environment that was ended for what it sent.
BROKE_THE_PROTOCOL: Final = "[fastlam: the environment broke the protocol: "


def event_of(deed: str, *data: bytes, **more: Any) -> dict[str, Any]:
    return {"act": deed, "data": [b64encode(one).decode() for one in data], **more}


def act(daemon: RunningDaemon, deed: str, *data: bytes, function: str = "hostile", **more: Any) -> Invoked:
    return daemon.invoke(function, event_of(deed, *data, **more))


def pid_now(daemon: RunningDaemon, function: str = "hostile") -> int:
    """The process that answers; it must."""
    pid: int = act(daemon, "hold", function=function).result
    return pid


def bad_frames(daemon: RunningDaemon) -> int:
    """How many there have been."""
    count: int = daemon.health()["statistics"]["dispatcher"]["bad_frames"]
    return count


def resident_bytes(daemon: RunningDaemon) -> int:
    pages = int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def costs_the_environment(
    daemon: RunningDaemon, deed: str, *data: bytes, stay: bool, reason: str = "", **more: Any
) -> None:
    """The deed breaks the protocol, once: it ends the environment it was done in, and the function's log gives the
    reason, which begins so. A function that stays is killed.
    """
    pid, frames, lines = pid_now(daemon), bad_frames(daemon), len(daemon.logs("hostile"))
    invoked = act(daemon, deed, *data, stay=stay, **more)
    if stay:
        killed(invoked)
    else:
        answered_or_exited(invoked)
    assert pid_now(daemon) != pid, "the environment is used again"
    assert bad_frames(daemon) == frames + 1
    daemon.logs("hostile", until=lambda log: any(BROKE_THE_PROTOCOL + reason in line for line in log[lines:]))
