"""Snapshots of what cannot be forked: INIT has left threads, processes, connections, and criu copies them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import needs
from copying_daemon import copying_daemon
from daemon_running import GATE_CODE, Gate, RunningDaemon, await_end, descendants, running_daemon
from fault_makers import children
from ordinary_user import as_ordinary_user
from waiting import await_that

KEEPER, ZYGOTE = "fastlam: keeper", "fastlam: zygote"

# A thread that answers what the handler asks it, as pools of SDKs and of frameworks do.
ECHO = """
import queue, threading
asked, told = queue.SimpleQueue(), queue.SimpleQueue()
def echo():
    while True:
        told.put(asked.get() * 2)
threading.Thread(target=echo, daemon=True, name="echo").start()
def ask(number):
    asked.put(number)
    return told.get(timeout=20)
"""


@pytest.fixture(scope="module")
def copying() -> Iterator[RunningDaemon]:
    with copying_daemon() as daemon:
        daemon.leaves_threads = False  # each test says itself what is left
        yield daemon


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def at_once(daemon: RunningDaemon, name: str, callers: ThreadPoolExecutor, gate: Gate, count: int) -> list[Any]:
    answers = [callers.submit(daemon.invoke, name, {"gate": gate.port, "number": each}) for each in range(count)]
    gate.arrive(count)
    gate.open()
    return [answer.result().result for answer in answers]


# What is in a copy ---------------------------------------------------------------------------------------------------


def test_threads_go_on_in_each(copying: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate) -> None:
    code = GATE_CODE + ECHO + (
        "def handler(event, context):\n    wait_at(event['gate'])\n"
        "    return [ask(event['number']), sorted(thread.name for thread in threading.enumerate())]\n"
    )
    name = copying.snap("threads", code, Timeout=30)
    said = at_once(copying, name, callers, gate, 6)
    assert sorted(said) == [[2 * each, ["MainThread", "echo"]] for each in range(6)]
    log = "".join(copying.logs("threads"))
    assert "(echo)" in log and "criu copies" in log


def test_without_threads_there_is_a_fork(copying: RunningDaemon) -> None:
    code = "import os\ndef handler(event, context):\n    return os.getpid()\n"
    assert copying.invoke(copying.snap("alone", code)).result < 10
    assert "criu" not in "".join(copying.logs("alone"))


def test_processes_are_copied_too(copying: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate) -> None:
    code = GATE_CODE + ECHO + (
        "import subprocess\n"
        "sums = subprocess.Popen(['/bin/sh', '-c', 'while read a; do echo $((a + 1)); done'],\n"
        "                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)\n"
        "def handler(event, context):\n"
        "    wait_at(event['gate'])\n"
        "    print(event['number'], file=sums.stdin)\n"
        "    return [ask(event['number']), int(sums.stdout.readline()), sums.poll()]\n"
    )
    name = copying.snap("processes", code, Timeout=30)
    assert sorted(at_once(copying, name, callers, gate, 4)) == [[2 * each, each + 1, None] for each in range(4)]


def test_files_are_each_ones_own(copying: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate) -> None:
    """Their positions too; and those that have no name any more."""
    code = GATE_CODE + ECHO + (
        "import os, tempfile\n"
        "named = open('/tmp/named', 'w+')\nnamed.write('0123456789')\nnamed.seek(3)\n"
        "nameless = tempfile.TemporaryFile()\nnameless.write(b'x' * 3_000_000)\nnameless.seek(1)\n"
        "def handler(event, context):\n"
        "    wait_at(event['gate'])\n"
        "    read = [named.read(2), len(nameless.read())]\n"
        "    named.write(str(event['number']))\n    named.flush()\n"
        "    return [*read, os.listdir('/tmp'), open('/tmp/named').read(), event['number'], ask(1)]\n"
    )
    name = copying.snap("files", code, Timeout=30)
    for said in at_once(copying, name, callers, gate, 4):
        number = said[4]
        assert said == ["34", 2_999_999, ["named"], f"0123456789{number}"[:10] + str(number), number, 2]


def test_a_connection_is_over(copying: RunningDaemon) -> None:
    """Two of the same would be worse. criu 4.1 can copy no socket of TCP from Linux 6.16 on, which is said then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        code = ECHO + (
            "import os, socket\n"
            "connection = socket.create_connection(('127.0.0.1', int(os.environ['PORT'])))\n"
            "def handler(event, context):\n"
            "    try:\n        connection.sendall(b'?')\n        return [ask(1), 'sent']\n"
            "    except OSError:\n        return [ask(1), 'over']\n"
        )
        name = copying.snap("connection", code, environment={"PORT": str(server.getsockname()[1])})
        log = "".join(copying.logs("connection"))
        if "no copy can be made" in log:
            assert "Error (criu/sockets.c" in log
            return
        assert copying.invoke(name).result == [2, "over"]


def test_a_reset_keeps_its_files(copying: RunningDaemon) -> None:
    code = ECHO + (
        "import os, time\nopen('/tmp/of-init', 'w').close()\n"
        "def handler(event, context):\n"
        "    seen = sorted(os.listdir('/tmp'))\n"
        "    if event.get('hang'):\n        os.remove('/tmp/of-init')\n        open('/tmp/later', 'w').close()\n"
        "        time.sleep(60)\n"
        "    return [seen, ask(2)]\n"
    )
    name = copying.snap("reset", code, Timeout=1)
    assert copying.invoke(name, {"hang": True}).error == "Unhandled"
    assert copying.invoke(name, {}).result == [["later"], 4]


def test_with_freeze_and_shares_of_the_cpu() -> None:
    with copying_daemon("--freeze", "--cpu", "lambda") as daemon:
        name = daemon.snap("frozen", ECHO + "def handler(event, context):\n    return ask(event)\n", Timeout=20)
        for number in range(3):
            assert daemon.invoke(name, number).result == 2 * number
            await_that(lambda: [row["frozen"] for row in daemon.environments("frozen") if not row["template"]] == [True])


# What cannot be copied ------------------------------------------------------------------------------------------------

UNCOPIED = ECHO + (
    "import ctypes\n"
    # A descriptor of a kind that criu does not know: a set of landlock's rules.
    "rules = ctypes.CDLL(None).syscall(444, (ctypes.c_uint64 * 1)(2), 8, 0)\n"
    "def handler(event, context):\n    return [rules > 0, threading.active_count()]\n"
)


def test_what_cannot_be_copied_is_forked(copying: RunningDaemon) -> None:
    name = copying.snap("uncopied", UNCOPIED)
    assert copying.invoke(name).result == [True, 1]
    log = copying.logs("uncopied")
    assert any("no copy can be made" in line and "criu" in line for line in log)
    assert any("not in environments restored from here: echo" in line for line in log)


@pytest.mark.parametrize(
    "lie",
    [
        "b'rubbish'",
        "b''",
        "msgspec_array(17, list(range(1500)))",
        "msgspec_array(17, [1, 2])",
        "msgspec_array(9, 1)",
        "msgspec_array(8, 1)",
    ],
)
def test_templates_that_lie_to_their_keeper(copying: RunningDaemon, lie: str) -> None:
    """INIT finds the socket and is first to speak: it gets no snapshot that way, and the daemon feels nothing."""
    code = (
        "import os, socket, threading\n"
        "def msgspec_array(tag, value):\n"
        "    numbers = value if isinstance(value, list) else None\n"
        "    packed = b''.join(b'\\xce' + n.to_bytes(4, 'big') for n in numbers or ())\n"
        "    body = b'\\xdd' + len(numbers).to_bytes(4, 'big') + packed if numbers is not None else bytes([value])\n"
        "    return b'\\x92' + bytes([tag]) + body\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "for number in range(3, 64):\n"
        "    try:\n        end = socket.socket(fileno=number)\n    except OSError:\n        continue\n"
        "    if end.type == socket.SOCK_SEQPACKET:\n"
        "        try:\n"
        f"            end.send(({lie})[:4000])\n"
        "        except OSError:\n            pass\n"
        "    end.detach()\n"
        "def handler(event, context):\n    return 1\n"
    )
    name = f"liar-{abs(hash(lie)) % 10**6}"
    copying.deploy(name, code, Runtime="python3.13", SnapStart={"ApplyOn": "PublishedVersions"}, Timeout=5)
    version = copying.lambda_.publish_version(FunctionName=name)["Version"]
    assert copying.state_of(name, version) in ("Active", "Failed")
    copying.lambda_.delete_function(FunctionName=name)
    await_that(lambda: not copying.environments(name))
    other = copying.snap(f"beside-{name}", ECHO + "def handler(event, context):\n    return ask(4)\n")
    assert copying.invoke(other).result == 8


def test_criu_that_is_killed(copying: RunningDaemon) -> None:
    """Whatever becomes of one restore, the next one is another."""
    code = ECHO + "def handler(event, context):\n    return ask(event['number'])\n"
    name = copying.snap("kills", code, Timeout=20)
    stop = False

    def kill_them() -> int:
        killed = 0
        while not stop:
            for pid, _ in descendants(copying.process.pid):
                try:
                    if b"--restore-sibling" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(pid, signal.SIGKILL)
                        killed += 1
                except OSError:
                    pass
        return killed

    with ThreadPoolExecutor(1) as pool:
        killing = pool.submit(kill_them)
        failed = 0
        for number in range(8):
            try:
                copying.lambda_.invoke(FunctionName=name, Payload=b'{"number": %d}' % number)
            except copying.lambda_.exceptions.ServiceException:
                failed += 1
            for row in copying.environments("kills"):
                if not row["template"]:
                    os.kill(row["pid"], signal.SIGKILL)
        stop = True
        assert killing.result() > 0
    await_that(lambda: all(row["template"] for row in copying.environments("kills")))
    assert copying.invoke(name, {"number": 21}).result == 42


# Nothing is left ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("title", [KEEPER, ZYGOTE])
def test_whoever_is_killed(title: str) -> None:
    with copying_daemon() as daemon:
        name = daemon.snap("orphaned", ECHO + "def handler(event, context):\n    return ask(3)\n")
        assert daemon.invoke(name).result == 6
        pid = _keeper(daemon, "orphaned") if title == KEEPER else children(daemon.process.pid, ZYGOTE)[0]
        family = descendants(pid)
        os.kill(pid, signal.SIGKILL)
        await_end(family)
        assert daemon.invoke(name).result == 6


def test_copies_come_and_go(copying: RunningDaemon) -> None:
    """The keeper has no more descriptors and no more children after thirty than after two."""
    code = ECHO + "def handler(event, context):\n    return ask(event['number'])\n"
    name = copying.snap("many", code, Timeout=20)
    keeper = _keeper(copying, "many")
    counted = []
    for number in range(40):
        assert copying.invoke(name, {"number": number}).result == 2 * number
        for row in copying.environments("many"):
            if not row["template"]:
                os.kill(row["pid"], signal.SIGKILL)
        await_that(lambda: all(row["template"] for row in copying.environments("many")))
        await_that(lambda: len(_children(keeper)) == 2)  # the template, and namespaces that lie ready
        counted.append(_open_files(keeper))
    # Those of namespaces that are being made come and go; one that is left by each restore would stay.
    await_that(lambda: _open_files(keeper) <= max(counted[:5]))


def _open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _keeper(daemon: RunningDaemon, name: str) -> int:
    (template,) = [row["pid"] for row in daemon.environments(name) if row["template"]]
    return int(Path(f"/proc/{template}/stat").read_text().rpartition(")")[2].split()[1])


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


# What is asked and cannot be ------------------------------------------------------------------------------------------


def serve(*options: str, prefix: tuple[str, ...] = ()) -> str:
    """What a daemon says that does not start."""
    command = [*prefix, sys.executable, "-m", "fastlam", "serve", "--ephemeral", "--port", "0", *options]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert ended.returncode != 0, ended.stdout
    return ended.stderr


def test_a_program_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    script = tmp_path / "criu"
    script.write_text("#!/bin/sh\n")
    if os.geteuid() == 0:
        assert f"--criu {script} is not possible here: {script} is a script" in serve("--criu", str(script))
        assert "No such file" in serve("--criu", str(tmp_path / "none"))
    assert "--isolation process has none" in serve("--criu", str(script), "--isolation", "process")


def test_an_ordinary_user_may_not_copy() -> None:
    if os.geteuid() != 0:
        assert "only root may copy" in serve("--criu", "/usr/sbin/criu")
        return
    with as_ordinary_user() as prefix:
        assert "only root may copy" in serve("--criu", "/usr/sbin/criu", prefix=tuple(prefix))


def test_none_at_all() -> None:
    """'' is none, whatever the PATH has: threads are then lost, and the log names them."""
    if os.geteuid() == 0:
        needs.criu()
    with running_daemon("--criu", "", isolation="auto", complains=True) as daemon:
        name = daemon.snap("lost", ECHO + "def handler(event, context):\n    return threading.active_count()\n")
        assert daemon.invoke(name).result == 1
        assert "not in environments restored from here: echo" in "".join(daemon.logs("lost"))
        assert "none was named" in daemon.health()["isolation"]["no_criu"]
