"""A function that attacks the daemon from inside its environment, and what its tests need to command it.

Deployed under any name, it does the deed that `act` names: it digs out the connection to the dispatcher and writes what no
runtime would, scribbles over the shared slot table, tampers with its output, closes descriptors, leaves children behind.
With `stay` it waits to be killed afterwards, where the deed allows it; without, the runtime goes on as if nothing were.
"""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path
from typing import Any, Final

from daemon_running import Invoked, RunningDaemon
from failed_calls import answered_or_exited, killed

CODE: Final = r'''
import base64, ctypes, fcntl, os, random, signal, socket, stat, struct, sys, threading, time

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

def table():
    """(address, size) of the slot table."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            if "fastlam-slots" in line:
                first, last = (int(word, 16) for word in line.split()[0].split("-"))
                return first, last - first
    raise LookupError("there is no slot table")

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
    return write(event)

def write_when_idle(event):
    """Writes once the answer to this invocation has gone out."""
    word = ctypes.c_uint32.from_address(table()[0] + 64)
    def later():
        while word.value & 0xFF != 0:
            time.sleep(0.001)
        write(event)
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
