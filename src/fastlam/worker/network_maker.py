"""A process that makes network namespaces for its owner, and is in none that anybody else is in.

Apart from the owner, whose threads must stay where they are and, an ordinary user's, could make none; and apart from
the zygotes, which fork meanwhile. It is given to: `wire.control.MakeNetwork` comes, `NetworkMade` goes; `HoldNetwork`
comes, `NetworkHeld` goes. It ends with its owner.
"""

from __future__ import annotations

import os
import socket

from fastlam.wire import control
from fastlam.wire.descriptors import receive
from fastlam.worker import kernel, network, user_namespace
from fastlam.worker.owner import belong_to


def serve(owner: socket.socket) -> None:
    """Until the owner is gone."""
    home = network.make([])[0]
    while True:
        packet, descriptors = receive(owner, control.PACKET_BYTES_MAX, 1)
        if not packet:
            return
        order = control.decode_network_order(packet)
        if isinstance(order, control.HoldNetwork):
            answer = control.NetworkHeld(_hold(descriptors[0], order.bytes_per_second, home))
            try:
                owner.send(control.encode(answer))
            except (BrokenPipeError, ConnectionResetError):
                return
            continue
        made: list[int] = []
        reason = ""
        try:
            try:
                made = network.make(order.doors)
            finally:
                kernel.setns(home, kernel.CLONE_NEWNET)  # else the one made last would live on here
        except OSError as error:
            reason = str(error.args[1] if len(error.args) > 1 else error)
        try:
            socket.send_fds(owner, [control.encode(control.NetworkMade(order.number, reason))], made)
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            for fd in made:
                os.close(fd)


def _hold(namespace_fd: int, bytes_per_second: int, home: int) -> str:
    """Takes over the descriptor; why it could not be done, or ""."""
    try:
        network.enter(namespace_fd)
        try:
            network.hold("lo", bytes_per_second)
        finally:
            kernel.setns(home, kernel.CLONE_NEWNET)
    except OSError as error:
        return str(error.args[1] if len(error.args) > 1 else error)
    return ""


def main(owner_fd: int, user_namespace_fd: int) -> None:
    """Started by module name. `user_namespace_fd`: that of the zygotes, whose workers are to enter what is made; -1 if
    they are in the owner's.
    """
    if user_namespace_fd >= 0:
        user_namespace.enter(user_namespace_fd)
    with belong_to(owner_fd, "fastlam: networks") as owner:
        serve(owner)
