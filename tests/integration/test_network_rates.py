"""With --cpu lambda, what goes over a network of an environment's own is as much as its memory: as root's daemon and as an
ordinary user's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Final

import pytest

from daemon_running import RunningDaemon, running_daemon
from ordinary_user import as_ordinary_user
from permitted import no_namespaces, no_network_rate

CODE: Final = """
import os, socket, threading, time

def handler(event, context):
    listener = socket.create_server(("127.0.0.1", 0))

    def drain():
        connection, _ = listener.accept()
        with connection:
            while connection.recv(1 << 16):
                pass

    receiving = threading.Thread(target=drain)
    receiving.start()
    data = bytes(1 << 16)
    began = time.monotonic()
    with socket.create_connection(listener.getsockname()) as connection:
        for _ in range(event["mb"] * 16):
            connection.sendall(data)
    receiving.join()
    listener.close()
    return event["mb"] * 1.048576 / (time.monotonic() - began)

if os.environ.get("AT_INIT"):
    AT_INIT = handler({"mb": 8}, None)

def at_init(event, context):
    return AT_INIT
"""
RATE_MB: Final = 20
RATE: Final = ("--cpu", "lambda", "--network-rate", str(RATE_MB))


@pytest.fixture(scope="module", params=["root", "user"])
def daemon(request: pytest.FixtureRequest) -> Iterator[RunningDaemon]:
    if request.param == "root" and os.geteuid() != 0:
        pytest.skip("root can run the tests of both")
    user = as_ordinary_user() if request.param == "user" and os.geteuid() == 0 else nullcontext([])
    with user as prefix, running_daemon(*RATE, "--network", "loopback", isolation="auto", prefix=prefix) as running:
        if "namespaces" in running.health()["isolation"]["missing"]:
            no_namespaces(running.health()["isolation"], prefix)
        if reason := running.health()["isolation"]["no_network_rate"]:
            no_network_rate(reason, prefix)
        yield running


def test_networks_are_as_fast_as_memory_is_large(daemon: RunningDaemon) -> None:
    """No faster at any time, but for what a bucket holds."""
    rates = {}
    for memory_mb in (442, 884, 1769):
        name = daemon.deploy(f"m{memory_mb}", CODE, MemorySize=memory_mb, Timeout=60)
        daemon.invoke(name, {"mb": 1})
        rates[memory_mb] = daemon.invoke(name, {"mb": 8}).result
    for memory_mb, rate in rates.items():
        assert rate < 1.1 * RATE_MB * memory_mb / 1769, rates
    assert sorted(rates.values()) == list(rates.values())


def test_init_is_not_held_back(daemon: RunningDaemon) -> None:
    code = {"handler": "app.at_init", "environment": {"AT_INIT": "1"}}
    name = daemon.deploy("init", CODE, MemorySize=128, Timeout=60, **code)
    assert daemon.invoke(name, {}).result > 2 * RATE_MB * 128 / 1769


def test_cold_starts_leave_nothing(daemon: RunningDaemon) -> None:
    """A namespace that waits to be held is closed with its environment."""
    name = daemon.deploy("often", CODE, MemorySize=256, Timeout=60)
    daemon.invoke(name, {"mb": 1})
    before = len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
    for number in range(10):
        daemon.lambda_.update_function_configuration(FunctionName=name, Description=str(number))
        daemon.settle(name)
        daemon.invoke(name, {"mb": 1})
    assert len(os.listdir(f"/proc/{daemon.process.pid}/fd")) <= before


@pytest.mark.parametrize("options", [("--network-rate", "1"), ("--cpu", "lambda", "--network-rate", "0")])
def test_no_rate(options: tuple[str, ...]) -> None:
    with running_daemon(*options, "--network", "loopback", isolation="auto") as running:
        if "namespaces" in running.health()["isolation"]["missing"]:
            no_namespaces(running.health()["isolation"])
        name = running.deploy("free", CODE, MemorySize=1769, Timeout=60)
        assert running.invoke(name, {"mb": 32}).result > 8
