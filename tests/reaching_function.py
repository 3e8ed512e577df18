"""The code of a function that tries what it can reach over the network; see tests/integration/test_networks.py."""

from __future__ import annotations

import os
import socket
import threading
import urllib.request
from multiprocessing.connection import Client, Listener
from typing import Any

SECONDS = 5.0
MSG_FASTOPEN = 0x20000000
NAME = os.urandom(8).hex()


def handler(event: dict[str, Any], context: object) -> Any:
    try:
        return globals()[event["do"]](**event.get("with", {}))
    except OSError as error:
        return f"refused: {error!r}"


def name() -> str:
    return NAME


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def interfaces() -> Any:
    return [name for _, name in socket.if_nameindex()]


def namespace() -> str:
    return os.readlink("/proc/self/ns/net")


def health() -> str:
    """What the daemon answers at the address that every function is given."""
    with urllib.request.urlopen(os.environ["AWS_ENDPOINT_URL"] + "/_fastlam/health", timeout=SECONDS) as answer:
        text: str = answer.read().decode()
        return text


def serve(port: int = 0) -> int:
    """A server of its own, which stays: it says the environment's name to everybody."""
    listener = socket.create_server(("127.0.0.1", port))

    def answer() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(NAME.encode())

    threading.Thread(target=answer, daemon=True).start()
    own: int = listener.getsockname()[1]
    return own


def ask(port: int, host: str = "127.0.0.1") -> str:
    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        return connection.recv(100).decode()


def datagram() -> str:
    """To itself."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiving,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending,
    ):
        receiving.bind(("127.0.0.1", 0))
        receiving.settimeout(SECONDS)
        sending.sendto(b"x", receiving.getsockname())
        return receiving.recv(100).decode()


def other_protocol(protocol: int, kind: int = int(socket.SOCK_STREAM)) -> str:
    """A stream that is not TCP: to a port that nobody listens at, where nothing refuses the socket itself."""
    with socket.socket(socket.AF_INET, kind, protocol) as connecting:
        connecting.bind(("127.0.0.1", 0))
    return "done"


def without_bind() -> str:
    """A listener to which the kernel gives a port by itself."""
    with socket.socket() as listener:
        listener.listen()
        return ask_own(listener)


def ask_own(listener: socket.socket) -> str:
    with socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=SECONDS):
        return "done"


def fast_open() -> str:
    """A connection that is made by sending, to a listener as above."""
    with socket.socket() as listener, socket.socket() as connecting:
        listener.listen()
        connecting.sendto(b"x", MSG_FASTOPEN, ("127.0.0.1", listener.getsockname()[1]))
        return "done"


def by_unix_socket() -> str:
    """What multiprocessing's managers and queues do."""
    with Listener(family="AF_UNIX") as listener, Client(listener.address) as ours, listener.accept() as theirs:
        ours.send("through")
        said: str = theirs.recv()
        return said


def raw(kind: str) -> str:
    if kind == "packet":
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    else:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    return "done"


def configure() -> str:
    """Puts an address on the loopback interface: what would be the first step out."""
    import fcntl
    import struct

    with socket.socket() as any_socket:
        set_address = 0x8916
        address = struct.pack("16sH2x4s8x", b"lo", socket.AF_INET, socket.inet_aton("10.1.2.3"))
        fcntl.ioctl(any_socket, set_address, address)
    return "done"
