"""What functions reach over the network in each mode of --network, and by their VpcConfig: as root's daemon and as an
ordinary user's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from daemon_running import RunningDaemon, descendants, running_daemon
from ordinary_user import as_ordinary_user
from waiting import await_that

CODE: Final = (Path(__file__).parents[1] / "reaching_function.py").read_text()
CALLS: Final = (
    CODE
    + """
import boto3

def invoke(function, event):
    import json
    answer = boto3.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event))
    return json.loads(answer["Payload"].read())
"""
)
SUBNETS: Final = {"SubnetIds": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"], "SecurityGroupIds": ["sg-1"]}
SAME_SUBNETS: Final = {**SUBNETS, "SubnetIds": [*reversed(SUBNETS["SubnetIds"])]}
OTHER_SUBNETS: Final = {**SUBNETS, "SubnetIds": ["subnet-0123456789abcdef2"]}
MODES: Final = ("host", "loopback", "none")
OWN: Final = ("loopback", "none")  # where every environment has a network of its own


class Networked:
    """A daemon with a mode of networks, and its functions, each of which is deployed once."""

    def __init__(self, daemon: RunningDaemon, mode: str) -> None:
        self.daemon = daemon
        self.mode = mode

    def function(self, name: str, code: str = CODE, **more: Any) -> str:
        known = [each["FunctionName"] for each in self.daemon.lambda_.list_functions()["Functions"]]
        return name if name in known else self.daemon.deploy(name, code, Timeout=30, MemorySize=256, **more)

    def tries(self, what: str, function: str = "reaching", **how: Any) -> Any:
        return self.daemon.invoke(self.function(function), {"do": what, "with": how}).result

    def refuses(self, what: str, function: str = "reaching", **how: Any) -> None:
        said = self.tries(what, function, **how)
        assert isinstance(said, str), said
        assert said.startswith("refused: "), said


@pytest.fixture(scope="module", params=[f"{who}-{mode}" for who in ("root", "user") for mode in MODES])
def networked(request: pytest.FixtureRequest) -> Iterator[Networked]:
    who, _, mode = request.param.partition("-")
    if who == "root" and os.geteuid() != 0:
        pytest.skip("root can run the tests of both")
    user = as_ordinary_user() if who == "user" and os.geteuid() == 0 else nullcontext([])
    if not networks_can_be_made(who):
        pytest.skip("this machine lets nobody make a network namespace")
    with user as prefix, running_daemon("--network", mode, isolation="auto", prefix=prefix) as daemon:
        assert daemon.process.stdout is not None
        line = daemon.process.stdout.readline()
        assert "network (" not in line, line
        yield Networked(daemon, mode)


def networks_can_be_made(who: str) -> bool:
    """By other programs."""
    user = [] if who == "root" else ["--user", "--map-root-user"]
    return subprocess.run(["unshare", *user, "--net", "true"], check=False, capture_output=True).returncode == 0


needs_networks: Final = pytest.mark.skipif(
    not networks_can_be_made("root" if os.geteuid() == 0 else "user"),
    reason="this machine lets nobody make a network namespace",
)


@pytest.fixture
def machine() -> Iterator[socket.socket]:
    """A server of this machine, which answers "machine"."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"machine")

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


# What everybody reaches ----------------------------------------------------------------------------------------------


def test_the_daemon_is_reached(networked: Networked) -> None:
    assert json.loads(networked.tries("health"))["pid"] == networked.daemon.health()["pid"]


@pytest.mark.parametrize("vpc", [{}, {"VpcConfig": SUBNETS}], ids=["without", "vpc"])
def test_a_function_invokes_another(networked: Networked, vpc: dict[str, Any]) -> None:
    """With boto3, which is told of the daemon by the variable alone."""
    name = networked.function("calls-vpc" if vpc else "calls", CALLS, **vpc)
    expected = networked.tries("name")
    called = {"do": "invoke", "with": {"function": "reaching", "event": {"do": "name"}}}
    assert networked.daemon.invoke(name, called).result == expected


def test_unix_sockets_stay(networked: Networked) -> None:
    assert networked.tries("by_unix_socket") == "through"


# The machine ---------------------------------------------------------------------------------------------------------


def test_servers_of_the_machine(networked: Networked, machine: socket.socket) -> None:
    if networked.mode == "host":
        assert networked.tries("ask", port=machine.getsockname()[1]) == "machine"
    else:
        networked.refuses("ask", port=machine.getsockname()[1])


def test_other_addresses_of_the_machine(networked: Networked) -> None:
    """Those of its interfaces: there is no way to them."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but that of the loopback interface")
        address = asking.getsockname()[0]
    with socket.create_server((address, 0)) as listener:
        port = listener.getsockname()[1]
        if networked.mode == "host":
            listener.settimeout(30)
            thread = threading.Thread(target=lambda: listener.accept()[0].close())
            thread.start()
            assert networked.tries("ask", port=port, host=address) == ""
            thread.join()
        else:
            networked.refuses("ask", port=port, host=address)


def test_interfaces(networked: Networked) -> None:
    seen = networked.tries("interfaces")
    assert (seen == ["lo"]) == (networked.mode != "host") or [name for _, name in socket.if_nameindex()] == ["lo"]
    assert (networked.tries("namespace") == os.readlink("/proc/self/ns/net")) == (networked.mode == "host")


def test_abstract_sockets_of_the_machine(networked: Networked) -> None:
    """They belong to its network: in another they have not even a name."""
    name = f"fastlam-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        assert (f"@{name}" in networked.tries("read", path="/proc/net/unix")) == (networked.mode == "host")


@pytest.mark.parametrize("kind", ["packet", "ip"])
def test_raw_sockets(networked: Networked, kind: str) -> None:
    networked.refuses("raw", kind=kind)


def test_the_network_is_not_its_own_to_change(networked: Networked) -> None:
    networked.refuses("configure")


# Other environments --------------------------------------------------------------------------------------------------


def test_servers_of_functions(networked: Networked) -> None:
    if networked.mode == "none":
        networked.refuses("serve")
        return
    port = networked.tries("serve", "serves")
    assert networked.tries("ask", "serves", port=port) == networked.tries("name", "serves")
    if networked.mode == "host":
        assert networked.tries("ask", port=port) == networked.tries("name", "serves")
    else:
        networked.refuses("ask", port=port)


def test_only_tcp_to_the_daemon(networked: Networked) -> None:
    """Of --network none; the others let it."""
    if networked.mode == "none":
        for what in ("datagram", "without_bind", "fast_open"):
            networked.refuses(what)
        for protocol in (132, 262, 33):  # SCTP, MPTCP, DCCP
            networked.refuses("other_protocol", protocol=protocol)
        networked.refuses("other_protocol", protocol=0, kind=int(socket.SOCK_SEQPACKET))
        return
    assert networked.tries("datagram") == "x"
    assert networked.tries("without_bind") == "done"
    if int(Path("/proc/sys/net/ipv4/tcp_fastopen").read_text()) & 1:
        assert networked.tries("fast_open") == "done"


def test_functions_of_one_vpc_config(networked: Networked, machine: socket.socket) -> None:
    """In whatever order it has its subnets, and whether the functions use boto3 or not: workers of these have another
    origin.
    """
    first = networked.function("vpc-first", VpcConfig=SUBNETS)
    same = networked.function("vpc-same", CALLS, VpcConfig=SAME_SUBNETS)
    networked.function("vpc-other", VpcConfig=OTHER_SUBNETS)
    if networked.mode == "none":
        networked.refuses("serve", first)
        return
    port = networked.tries("serve", first)
    assert networked.tries("ask", same, port=port) == networked.tries("name", first)
    for stranger in ("vpc-other", "reaching"):
        networked.refuses("ask", stranger, port=port)
    for member in (first, same):
        networked.refuses("ask", member, port=machine.getsockname()[1])
    assert networked.tries("namespace", first) == networked.tries("namespace", same)


def test_a_changed_vpc_config(networked: Networked) -> None:
    """A function that leaves its network is in the one that all others are in."""
    name = networked.function("moves", VpcConfig=SUBNETS)
    before = networked.tries("namespace", name)
    networked.daemon.lambda_.update_function_configuration(
        FunctionName=name, VpcConfig={"SubnetIds": [], "SecurityGroupIds": []}
    )
    networked.daemon.settle(name)
    after = networked.tries("namespace", name)
    assert after != before
    assert (after == os.readlink("/proc/self/ns/net")) == (networked.mode == "host")


# What is left --------------------------------------------------------------------------------------------------------


def open_files(pid: int) -> int:
    """But for connections of clients, which come and go, and /dev/null, which libuv opens once when it first needs it."""
    connections = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    count = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            count += target != "/dev/null" and target.removeprefix("socket:[").rstrip("]") not in connections
    return count


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def settled(daemon: RunningDaemon) -> tuple[int, int, int]:
    """Descriptors, threads and descendants, when no environment is left and the networks made ahead are there."""
    await_that(lambda: sum(daemon.health()["environments"].values()) == 0)
    pid = daemon.process.pid
    seen: list[tuple[int, int, int]] = []

    def again() -> bool:
        seen.append((open_files(pid), threads(pid), len(descendants(pid))))
        return seen[-20:] == [seen[-1]] * 20

    await_that(again)
    return seen[-1]


@pytest.mark.parametrize("vpc", [{}, {"VpcConfig": SUBNETS}], ids=["own", "vpc"])
@pytest.mark.parametrize("mode", ["host", "loopback"])
@pytest.mark.timeout(180)
@needs_networks
def test_fifty_cold_starts_leave_nothing(mode: str, vpc: dict[str, Any]) -> None:
    with running_daemon("--network", mode, "--keepalive", "0", isolation="auto") as daemon:
        daemon.deploy("cold", CODE, **vpc)
        seen = {daemon.invoke("cold", {"do": "name"}).result for _ in range(10)}
        before = settled(daemon)
        seen |= {daemon.invoke("cold", {"do": "name"}).result for _ in range(50)}
        assert len(seen) == 60
        assert settled(daemon) == before


@needs_networks
def test_front_processes() -> None:
    """What comes from a network of its own is accepted by the daemon itself, whoever accepts the others."""
    with running_daemon("--network", "loopback", "--fronts", "1", isolation="auto") as daemon:
        daemon.deploy("f", CODE)
        before = daemon.health()["statistics"]["http"]["connections_total"]
        assert json.loads(daemon.invoke("f", {"do": "health"}).result)["pid"] == daemon.process.pid
        assert daemon.health()["statistics"]["http"]["connections_total"] > before


# What cannot be had --------------------------------------------------------------------------------------------------


def maker_of(daemon: RunningDaemon) -> int:
    """The process that makes networks."""
    (found,) = [
        pid
        for pid, _ in descendants(daemon.process.pid)
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"fastlam: networks")
    ]
    return found


@needs_networks
def test_the_process_that_makes_them_is_killed() -> None:
    """Environments that come after it have their networks from another."""
    with running_daemon("--network", "loopback", isolation="auto") as daemon:
        daemon.deploy("first", CODE)
        daemon.invoke("first", {"do": "name"})
        first = maker_of(daemon)
        os.kill(first, signal.SIGKILL)
        seen = set()
        for number in range(10):
            daemon.deploy(f"f{number}", CODE)
            seen.add(daemon.invoke(f"f{number}", {"do": "namespace"}).result)
        assert len(seen) == 10
        assert maker_of(daemon) != first


@needs_networks
def test_a_daemon_stops_while_environments_wait_for_their_network() -> None:
    with running_daemon("--network", "loopback", isolation="auto") as daemon:
        daemon.deploy("f", CODE)
        daemon.invoke("f", {"do": "name"})
        os.kill(maker_of(daemon), signal.SIGSTOP)
        callers = []
        for number in range(8):
            daemon.deploy(f"f{number}", CODE)
            client = daemon.client()
            callers.append(threading.Thread(target=call_in_vain, args=(client, f"f{number}")))
            callers[-1].start()
        await_that(lambda: daemon.health()["environments"]["starting"] >= 4)
        daemon.process.send_signal(signal.SIGTERM)
        await_that(lambda: not answers(daemon))
        daemon.stop()  # which cuts the calls short
        for caller in callers:
            caller.join()
        assert daemon.process.returncode == 0


def answers(daemon: RunningDaemon) -> bool:
    try:
        return daemon.send("GET", "/_fastlam/health").status == 200
    except OSError:
        return False


def call_in_vain(client: Any, name: str) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    with suppress(BotoCoreError, ClientError):
        client.invoke(FunctionName=name, Payload=json.dumps({"do": "name"}))


# Root of a user namespace that may have no network namespaces: the limit is its own.
WITHOUT_NETWORKS: Final = (
    "unshare", "--user", "--map-root-user", "sh", "-c",
    'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"', "sh",
)  # fmt: skip


@pytest.fixture
def without_networks() -> list[str]:
    done = subprocess.run([*WITHOUT_NETWORKS, "unshare", "--net", "true"], check=False, capture_output=True, text=True)
    if "unshare failed" not in done.stderr or "net" in done.stderr.partition(":")[0]:
        pytest.skip(f"a user namespace without networks cannot be made: {done.stderr}")
    return list(WITHOUT_NETWORKS)


def test_what_is_not_permitted_is_said(without_networks: list[str]) -> None:
    """By `auto` on the console and in the function's log, where the VpcConfig is then without effect."""
    with running_daemon(isolation="auto", prefix=without_networks) as daemon:
        assert daemon.process.stdout is not None
        line = daemon.process.stdout.readline()
        assert "network (functions reach what this machine reaches, whatever their VpcConfig): unshare" in line
        assert "network" in daemon.health()["isolation"]["missing"]
        daemon.deploy("f", CODE, VpcConfig=SUBNETS)
        assert daemon.invoke("f", {"do": "namespace"}).result == os.readlink("/proc/self/ns/net")
        assert any("VpcConfig changes nothing" in message for message in daemon.logs("f"))


def refusal(*options: str, prefix: list[str] | None = None) -> str:
    """What a daemon says that does not start."""
    command = [*(prefix or []), sys.executable, "-m", "fastlam", "serve", "--ephemeral", "--port", "0", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    return done.stderr


@pytest.mark.parametrize("mode", OWN)
def test_what_is_asked_for_and_not_permitted_stops_the_start(mode: str, without_networks: list[str]) -> None:
    said = refusal("--network", mode, prefix=without_networks)
    assert f"--network {mode} is not possible here: unshare" in said
    assert "fastlam doctor" in said
    assert "network (" in refusal("--isolation", "full", prefix=without_networks)


def test_without_walls_there_are_no_networks() -> None:
    said = refusal("--network", "loopback", "--isolation", "process")
    assert "--network loopback needs walls around environments, and --isolation process has none" in said
    assert len(said.strip().splitlines()[-1]) < 200
    with running_daemon(isolation="process") as daemon:
        daemon.deploy("f", CODE, VpcConfig=SUBNETS)
        assert daemon.invoke("f", {"do": "namespace"}).result == os.readlink("/proc/self/ns/net")
        assert any("VpcConfig changes nothing" in message for message in daemon.logs("f"))
