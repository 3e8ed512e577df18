"""Networks of environments: namespaces that are made ahead, given out, shared by name, and forgotten.

A process of the worker's (worker.network_maker) makes them, so that the driver never waits: it orders, goes on, and
hears when one is there. An environment's network lives as long as its processes and its doors; one with a name as long
as an environment that has it, or is about to.

All of it belongs to the dispatcher's driver.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fastlam.sandbox import programs
from fastlam.sandbox.keeper import Keeper
from fastlam.sandbox.maker import Ignore, Maker, Watch
from fastlam.wire import control

log = logging.getLogger(__name__)

OWN: Final = "own"  # the network of an environment that shares it with nobody
AHEAD: Final = 4  # so many lie ready: one is made in the time of a third of a cold start

OnMade = Callable[[int], None]  # with a descriptor that the callee takes over
OnFailed = Callable[[str], None]


@dataclass(frozen=True)
class Door:
    """Where something of this process's is reached from every network: it listens at an address there, and accepts
    here. The sockets stay those of the networks, which close them after `closing`.
    """

    address: str  # IPv4
    port: int
    opened: Callable[[socket.socket], None]
    closing: Callable[[socket.socket], None]


@dataclass
class _Network:
    """One that is there. `namespace_fd` is -1 where nobody else can come."""

    namespace_fd: int
    listeners: list[socket.socket]
    users: set[int] = field(default_factory=set)  # environments


@dataclass
class _Waiting:
    """An environment whose network is not there yet."""

    environment_id: int
    name: str
    on_made: OnMade
    on_failed: OnFailed


class Networks:
    """See the module's docstring. `watch` and `ignore` are the dispatcher's, for descriptors that become readable."""

    def __init__(
        self,
        keeper: Keeper,
        watch: Watch,
        ignore: Ignore,
        user_namespace_fd: int = -1,
        *,
        holds: bool = False,
    ) -> None:
        """`holds`: `hold` will be called for environments."""
        self._maker = Maker(
            keeper, watch, ignore, start=self._start, on_made=self._made, on_all=self._go_on, on_ended=self._ended
        )
        self._user_namespace_fd = user_namespace_fd
        self._holds = holds
        self._to_hold: deque[tuple[int, int]] = deque()  # environments, and bytes a second
        self._complained = False
        self._doors: list[Door] = []
        self._ready: deque[_Network] = deque()
        self._waiting: deque[_Waiting] = deque()
        self._by_name: dict[str, _Network] = {}
        self._by_environment: dict[int, _Network] = {}
        self._ordered = 0  # and not there yet
        self._number = 0

    @property
    def pid(self) -> int:
        """Of the process that makes them; -1 while there is none."""
        return -1 if self._maker.process is None else self._maker.process.pid

    def open_doors(self, doors: list[Door]) -> None:
        """What is reached from now on; call once, before the first environment."""
        self._doors = doors

    def prepare(self) -> None:
        """Has some made ahead."""
        self._order()

    # --- environments ----------------------------------------------------------------------------

    def take(self, environment_id: int, name: str, on_made: OnMade, on_failed: OnFailed) -> None:
        """The network of that name, or one of its own (OWN), for an environment: `on_made` is called, at once or later,
        with its descriptor.
        """
        shared = self._by_name.get(name)
        if shared is not None:
            self._join(shared, environment_id, on_made)
            return
        self._waiting.append(_Waiting(environment_id, name, on_made, on_failed))
        self._give_out()
        self._order()

    def cancel(self, environment_id: int) -> bool:
        """Whether the environment was still waiting; it does so no more, and hears nothing."""
        for waiting in self._waiting:
            if waiting.environment_id == environment_id:
                self._waiting.remove(waiting)
                return True
        return False

    def left(self, environment_id: int) -> None:
        """The environment is gone; the last one takes its network along."""
        network = self._by_environment.pop(environment_id, None)
        if network is None:
            return
        network.users.discard(environment_id)
        if not network.users:
            for name in [name for name, one in self._by_name.items() if one is network]:
                del self._by_name[name]
            for door, listener in zip(self._doors, network.listeners, strict=True):
                door.closing(listener)
            _close(network)

    def hold(self, environment_id: int, bytes_per_second: int) -> None:
        """What goes over the network of that environment, both ways together, is no more than that soon. A network with
        a name, which others are in too, is not held.
        """
        self._to_hold.append((environment_id, bytes_per_second))
        self._hold_all()

    def _hold_all(self) -> None:
        while self._to_hold:
            environment_id, bytes_per_second = self._to_hold[0]
            network = self._by_environment.get(environment_id)
            if network is not None and network.namespace_fd >= 0 and network not in self._by_name.values():
                try:
                    self._maker.order(control.HoldNetwork(bytes_per_second), [network.namespace_fd])
                except BlockingIOError:
                    return
                except OSError as error:
                    self._complain(error.strerror or str(error))
                _close_namespace(network)
            self._to_hold.popleft()

    def _complain(self, reason: str) -> None:
        if not self._complained:
            self._complained = True
            log.warning("networks of environments are held to no rate: %s", reason)

    def _give_out(self) -> None:
        while self._waiting and (self._ready or self._waiting[0].name in self._by_name):
            waiting = self._waiting.popleft()
            network = self._by_name.get(waiting.name)
            if network is None:
                network = self._ready.popleft()
                for door, listener in zip(self._doors, network.listeners, strict=True):
                    door.opened(listener)
                if waiting.name != OWN:
                    self._by_name[waiting.name] = network
            self._join(network, waiting.environment_id, waiting.on_made)
            if waiting.name == OWN and not self._holds:
                _close_namespace(network)

    def _join(self, network: _Network, environment_id: int, on_made: OnMade) -> None:
        network.users.add(environment_id)
        self._by_environment[environment_id] = network
        on_made(os.dup(network.namespace_fd))

    # --- the process that makes them -------------------------------------------------------------

    def _order(self) -> None:
        """As many as are waited for, and some ahead."""
        wanted = len(self._waiting) + AHEAD - len(self._ready) - self._ordered
        doors = [(door.address, door.port) for door in self._doors]
        for _ in range(wanted):
            try:
                self._maker.order(control.MakeNetwork(self._number, doors))
            except BlockingIOError:
                return  # its answers are on their way, and with them another try
            except OSError as error:
                self._fail(error.strerror or str(error))
                return
            self._number += 1
            self._ordered += 1

    def _start(self, owner_fd: int) -> subprocess.Popen[bytes]:
        return programs.start("network_maker", "main", owner_fd, self._user_namespace_fd)

    def _made(self, packet: bytes, descriptors: list[int]) -> bool:
        made = control.decode_network_made(packet)
        if isinstance(made, control.NetworkHeld):
            if made.reason:
                self._complain(made.reason)
            return True
        self._ordered -= 1
        if len(descriptors) != 1 + len(self._doors):
            for fd in descriptors:
                os.close(fd)
            self._fail(made.reason or "too many open files")
            return False
        listeners = [socket.socket(fileno=fd) for fd in descriptors[1:]]
        self._ready.append(_Network(descriptors[0], listeners))
        return True

    def _go_on(self) -> None:
        self._hold_all()
        self._give_out()
        self._order()

    def _ended(self) -> None:
        self._ordered = 0
        self._fail("the process that makes networks has ended; its own message is on this program's stderr")

    def _fail(self, reason: str) -> None:
        """Those who wait hear of it; the next one who asks has another try."""
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            one.on_failed(f"no network could be made: {reason}")

    # --- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """All environments are gone."""
        self._maker.close()
        for network in (*self._ready, *self._by_environment.values()):
            _close(network)
        self._ready.clear()
        self._by_environment.clear()
        self._by_name.clear()

    def disown(self) -> None:
        """In a fork of the owner: closes what would keep the process alive beyond its owner."""
        self._maker.disown()


def _close(network: _Network) -> None:
    for listener in network.listeners:
        listener.close()
    _close_namespace(network)


def _close_namespace(network: _Network) -> None:
    if network.namespace_fd >= 0:
        with contextlib.suppress(OSError):
            os.close(network.namespace_fd)
        network.namespace_fd = -1
