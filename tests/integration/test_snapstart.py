"""SnapStart: published versions whose environments are forked from a template that has had its INIT, or copied by criu
where INIT has left threads.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError

from copying_daemon import copying_daemon
from daemon_running import (
    GATE_CODE,
    LEFT_THREAD,
    SNAPPED_RUNTIME,
    Gate,
    RunningDaemon,
    await_end,
    control_groups_of,
    descendants,
    running_daemon,
    zipped,
)
from fastlam.worker import walled
from fault_makers import children
from permitted import no_group, no_namespaces
from waiting import await_that

SNAPPED: Final = {"Runtime": SNAPPED_RUNTIME, "SnapStart": {"ApplyOn": "PublishedVersions"}}
KEEPER, TEMPLATE, ZYGOTE = "fastlam: keeper", "fastlam: env {}:1 [template]", "fastlam: zygote"
AT_ONCE: Final = 20
MS: Final = r"\d+\.\d\d ms"

CODE: Final = (
    GATE_CODE
    + """
import os, random, ssl, tempfile, uuid
from snapshot_restore_py import register_after_restore, register_before_snapshot

INIT = os.urandom(8).hex()
ORDER = []
COUNT = 0

register_before_snapshot(ORDER.append, "before 1")
register_after_restore(ORDER.append, "after 1")

@register_before_snapshot
def before():
    ORDER.append("before 2")

@register_after_restore
def after():
    ORDER.append("after 2")

print("this is INIT")

def handler(event, context):
    global COUNT
    COUNT += 1
    if event and "gate" in event:
        wait_at(event["gate"])
    return {
        "init": INIT,
        "order": ORDER,
        "count": COUNT,
        "pid": os.getpid(),
        "random": [random.random(), ssl.RAND_bytes(8).hex(), next(tempfile._get_candidate_names()), str(uuid.uuid4())],
        "environ": {name: os.environ.get(name) for name in (
            "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME",
            "AWS_LAMBDA_FUNCTION_VERSION")},
    }
"""
)


@pytest.fixture(scope="module", params=["process", "auto", "copied"])
def snapped(request: pytest.FixtureRequest) -> Iterator[RunningDaemon]:
    """With and without walls, and with copies by criu in the place of forks."""
    if request.param == "copied":
        with copying_daemon() as daemon:
            yield daemon
        return
    with running_daemon(isolation=request.param, complains=True) as daemon:
        yield daemon


def inits_of(daemon: RunningDaemon) -> int:
    """How often INIT runs before a version has its snapshot."""
    return 2 if daemon.leaves_threads else 1


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield pool


def at_once(
    daemon: RunningDaemon, name: str, callers: ThreadPoolExecutor, gate: Gate, count: int = AT_ONCE
) -> list[Any]:
    """What so many environments return that all run at the same time."""
    answers = [callers.submit(daemon.invoke, name, {"gate": gate.port}) for _ in range(count)]
    gate.arrive(count)
    gate.open()
    return [answer.result().result for answer in answers]


def template_of(daemon: RunningDaemon, name: str) -> int:
    (pid,) = children_everywhere(daemon, TEMPLATE.format(name))
    return pid


def children_everywhere(daemon: RunningDaemon, title: str) -> list[int]:
    found = []
    for pid, _ in descendants(daemon.process.pid):
        try:
            shown = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if shown == title:
            found.append(pid)
    return found


# What restored environments share, and what they do not --------------------------------------------------------------


def test_init_runs_once_for_all(snapped: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate) -> None:
    name = snapped.snap("once", CODE, Timeout=30)
    said = at_once(snapped, name, callers, gate)
    assert len({one["init"] for one in said}) == 1
    assert "".join(snapped.logs("once")).count("this is INIT\n") == inits_of(snapped)
    assert [one["count"] for one in said] == [1] * AT_ONCE
    rows = [row for row in snapped.environments("once") if not row["template"]]
    assert len({row["pid"] for row in rows}) == len(rows) == AT_ONCE
    assert {row["initialization_type"] for row in rows} == {"snap-start"}


def test_what_is_random_is_so(snapped: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate) -> None:
    name = snapped.snap("chance", CODE, Timeout=30)
    for values in zip(*(one["random"] for one in at_once(snapped, name, callers, gate)), strict=True):
        assert len(set(values)) == AT_ONCE


def test_hooks_run_in_their_order_in_each(snapped: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate) -> None:
    name = snapped.snap("hooked", CODE, Timeout=30)
    for one in at_once(snapped, name, callers, gate, 3):
        assert one["order"] == ["before 2", "before 1", "after 1", "after 2"]


def test_variables(snapped: RunningDaemon) -> None:
    assert snapped.invoke(snapped.snap("variables", CODE)).result["environ"] == {
        "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start",
        "AWS_LAMBDA_LOG_GROUP_NAME": None,
        "AWS_LAMBDA_LOG_STREAM_NAME": None,
        "AWS_LAMBDA_FUNCTION_VERSION": "1",
    }


def test_latest_has_its_own_init(snapped: RunningDaemon) -> None:
    snapped.snap("latest", CODE)
    said = snapped.invoke("latest")
    assert said.result["environ"]["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    assert "Init Duration: " in said.report and "Restore" not in said.log
    found = snapped.lambda_.get_function_configuration(FunctionName="latest")
    assert found["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"}


def test_files_in_tmp(callers: ThreadPoolExecutor, gate: Gate) -> None:
    """Those of the snapshot are there, and each environment's are its own."""
    code = GATE_CODE + (
        "import os\nos.makedirs('/tmp/a/b')\nopen('/tmp/a/b/c', 'w').write('from INIT')\nos.symlink('a', '/tmp/link')\n"
        "def handler(event, context):\n"
        "    seen = open('/tmp/link/b/c').read()\n"
        "    before = sorted(os.listdir('/tmp'))\n"
        "    open('/tmp/link/b/c', 'w').write('changed')\n    open('/tmp/mine', 'w').close()\n"
        "    wait_at(event['gate'])\n    return [seen, before, open('/tmp/a/b/c').read()]\n"
    )
    with running_daemon(isolation="auto", complains=True) as daemon:
        if "namespaces" not in daemon.health()["isolation"]["walls"]:
            no_namespaces(daemon.health()["isolation"])
        name = daemon.snap("files", code, Timeout=30)
        assert at_once(daemon, name, callers, gate, 4) == [["from INIT", ["a", "link"], "changed"]] * 4


def test_threads_are_in_copies_only(snapped: RunningDaemon) -> None:
    code = (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True, name='pulse').start()\n"
        "def handler(event, context):\n    return threading.active_count()\n"
    )
    assert snapped.invoke(snapped.snap("threads", code)).result == (3 if snapped.leaves_threads else 1)
    assert "pulse" in "".join(snapped.logs("threads"))


def test_its_own_copy_of_the_hooks_module_is_used(snapped: RunningDaemon) -> None:
    module = "HOOKS = []\ndef get_before_snapshot():\n    return []\ndef get_after_restore():\n    return HOOKS\n"
    code = (
        "import snapshot_restore_py as own\nSAID = []\nown.HOOKS.append((SAID.append, ('own',), {}))\n"
        "def handler(event, context):\n    return SAID\n"
    )
    assert snapped.invoke(snapped.snap("own", {"app.py": code, "snapshot_restore_py.py": module})).result == ["own"]


def test_the_hooks_module_is_there_without_snapstart(snapped: RunningDaemon) -> None:
    code = (
        "import snapshot_restore_py\n@snapshot_restore_py.register_after_restore\ndef hook():\n    raise ValueError\n"
        "def handler(event, context):\n    return [hook.__name__]\n"
    )
    snapped.deploy("no-snapshot", code)
    assert snapped.invoke("no-snapshot").result == ["hook"]


# Lines of the log ----------------------------------------------------------------------------------------------------


def test_lines(snapped: RunningDaemon) -> None:
    name = snapped.snap("lines", CODE)
    published = [line for line in snapped.logs("lines") if not line.startswith("[fastlam: ")]
    assert published[-2] == "this is INIT\n"
    assert re.fullmatch(rf"INIT_REPORT Init Duration: {MS}\tPhase: init\tStatus: success\n", published[-1])
    first, second = snapped.invoke(name), snapped.invoke(name)
    assert re.fullmatch(
        rf"REPORT RequestId: {first.request_id}\tDuration: {MS}\tBilled Duration: \d+ ms\tMemory Size: 128 MB\t"
        rf"Max Memory Used: \d+ MB\tRestore Duration: {MS}\tBilled Restore Duration: \d+ ms\t",
        first.report,
    )
    assert "Restore" not in second.report and "Init Duration" not in second.report
    messages = snapped.logs("lines")
    begin = next(index for index, line in enumerate(messages) if line.startswith("RESTORE_START "))
    assert re.fullmatch(r"RESTORE_START Runtime Version: \S+\tRuntime Version ARN: arn:aws:lambda:\S+\n", messages[begin])
    assert re.fullmatch(rf"RESTORE_REPORT Restore Duration: {MS}\n", messages[begin + 1])
    assert messages[begin + 2] == f"START RequestId: {first.request_id} Version: 1\n"


def test_lines_in_json(snapped: RunningDaemon) -> None:
    name = snapped.snap("json-lines", CODE, LoggingConfig={"LogFormat": "JSON"})
    snapped.invoke(name)
    records = [json.loads(line) for line in snapped.logs("json-lines") if line.startswith("{")]
    by_type = {record["type"]: record["record"] for record in records}
    assert list(by_type) == [
        "platform.initReport", "platform.restoreStart", "platform.restoreReport", "platform.start", "platform.report",
    ]  # fmt: skip
    assert by_type["platform.initReport"]["initializationType"] == "snap-start"
    assert by_type["platform.restoreReport"]["status"] == "success"
    metrics = by_type["platform.report"]["metrics"]
    assert metrics["restoreDurationMs"] > 0 and metrics["billedRestoreDurationMs"] >= metrics["restoreDurationMs"]
    assert "initDurationMs" not in metrics


# States and failures -------------------------------------------------------------------------------------------------


def test_a_version_is_pending_until_its_init_is_over(
    snapped: RunningDaemon, callers: ThreadPoolExecutor, gate: Gate
) -> None:
    code = GATE_CODE + "import os\nwait_at(int(os.environ['GATE']))\ndef handler(event, context):\n    return 1\n"
    code += LEFT_THREAD if snapped.leaves_threads else ""
    snapped.deploy("slow", code, environment={"GATE": str(gate.port)}, **SNAPPED)
    version = snapped.lambda_.publish_version(FunctionName="slow")
    assert (version["State"], version["StateReasonCode"]) == ("Pending", "Creating")
    assert version["SnapStart"]["OptimizationStatus"] == "Off"
    gate.arrive()
    with pytest.raises(ClientError) as caught:
        snapped.invoke("slow:1")
    assert caught.value.response["Error"]["Code"] == "SnapStartNotReadyException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 409
    gate.open()
    for _ in range(1, inits_of(snapped)):
        gate.arrive()
        gate.open()
    assert snapped.state_of("slow", "1") == "Active"
    found = snapped.lambda_.get_function_configuration(FunctionName="slow", Qualifier="1")
    assert found["SnapStart"]["OptimizationStatus"] == "On"
    assert {"StateReason", "StateReasonCode"}.isdisjoint(found)
    assert found["RevisionId"] != version["RevisionId"]
    assert snapped.invoke("slow:1").result == 1


HOOK = "from snapshot_restore_py import {0}\n@{0}\ndef hook():\n    {1}\ndef handler(event, context):\n    return 1\n"
BEFORE, AFTER = "register_before_snapshot", "register_after_restore"


@pytest.mark.parametrize(
    ("name", "code", "reason_code", "error_type"),
    [
        ("raises", "raise ValueError('at import')", "FunctionError", "ValueError"),
        ("exits", "import os\nos._exit(3)", "FunctionError.RuntimeInitError", "Runtime.ExitError"),
        ("before-raises", HOOK.format(BEFORE, "raise ValueError"), "FunctionError", "Runtime.BeforeSnapshotError"),
        ("before-leaves", HOOK.format(BEFORE, "raise SystemExit"), "FunctionError", "Runtime.BeforeSnapshotError"),
        ("no-handler", "pass", "FunctionError", "Runtime.HandlerNotFound"),
    ],
)
def test_a_version_that_fails(
    snapped: RunningDaemon, name: str, code: str, reason_code: str, error_type: str
) -> None:
    snapped.snap(name, code, fails=True)
    found = snapped.lambda_.get_function_configuration(FunctionName=name, Qualifier="1")
    assert found["StateReasonCode"] == reason_code and found["StateReason"]
    assert found["SnapStart"]["OptimizationStatus"] == "Off"
    reports = [line for line in snapped.logs(name) if line.startswith("INIT_REPORT ")]
    assert len(reports) == 1
    assert reports[0].endswith(f"\tPhase: init\tStatus: error\tError Type: {error_type}\n")
    with pytest.raises(ClientError) as caught:
        snapped.invoke(f"{name}:1")
    assert caught.value.response["Error"]["Code"] == "ResourceConflictException"
    await_that(lambda: not snapped.environments(name))
    # The next version is another attempt.
    snapped.update(name, "def handler(event, context):\n    return 2\n")
    assert snapped.lambda_.publish_version(FunctionName=name)["Version"] == "2"
    assert snapped.state_of(name, "2") == "Active"
    assert snapped.invoke(f"{name}:2").result == 2


@pytest.mark.parametrize(
    ("name", "body", "code", "status", "error_type"),
    [
        ("after-raises", "raise ValueError('after')", "SnapStartException", 400, "Runtime.AfterRestoreError"),
        ("after-exits", "import os; os._exit(1)", "SnapStartException", 400, "Runtime.ExitError"),
        ("after-hangs", "import time; time.sleep(60)", "SnapStartTimeoutException", 408, ""),
    ],
)
def test_a_restore_that_fails(
    snapped: RunningDaemon, name: str, body: str, code: str, status: int, error_type: str
) -> None:
    invoked = snapped.snap(name, HOOK.format(AFTER, body))
    with pytest.raises(ClientError) as caught:
        snapped.invoke(invoked)
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    messages = snapped.logs(name)
    (report,) = [line for line in messages if line.startswith("RESTORE_REPORT ")]
    end = f"\tStatus: error\tError Type: {error_type}\n" if error_type else "\tStatus: timeout\n"
    assert report.endswith(end)
    if name == "after-raises":
        assert any("ValueError: after" in line for line in messages)
    await_that(lambda: [row["template"] for row in snapped.environments(name)] == [True])


def test_a_runtime_that_cannot_be_forked(snapped: RunningDaemon) -> None:
    """The API takes what Lambda takes, and the version says that it has no snapshot."""
    snapped.lambda_.create_function(
        FunctionName="java", Runtime="java21", Handler="a.B::c", Role="arn:aws:iam::000000000000:role/r",
        Code={"ZipFile": zipped("")}, SnapStart={"ApplyOn": "PublishedVersions"}, Publish=True,
    )  # fmt: skip
    assert snapped.state_of("java", "1") == "Active"
    found = snapped.lambda_.get_function_configuration(FunctionName="java", Qualifier="1")
    assert found["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"}
    assert "No snapshot" in found["StateReason"]


def test_publication_with_creation_and_update(snapped: RunningDaemon) -> None:
    snapped.deploy("with-creation", CODE, Publish=True, **SNAPPED)
    assert snapped.state_of("with-creation", "1") == "Active"
    assert snapped.invoke("with-creation:1").result["count"] == 1
    answer = snapped.lambda_.update_function_code(FunctionName="with-creation", ZipFile=zipped(CODE + "#"), Publish=True)
    assert (answer["Version"], answer["State"]) == ("2", "Pending")
    assert snapped.state_of("with-creation", "2") == "Active"
    assert snapped.invoke("with-creation:2").result["count"] == 1


# Templates that come and go ------------------------------------------------------------------------------------------


def test_a_template_that_is_killed_is_made_again(snapped: RunningDaemon, executor_of_calls: ThreadPoolExecutor, gate: Gate) -> None:
    name = snapped.snap("killed", CODE, Timeout=30)
    held = executor_of_calls.submit(snapped.invoke, name, {"gate": gate.port})
    gate.arrive()
    template = template_of(snapped, "killed")
    os.kill(template, signal.SIGKILL)
    if snapped.leaves_threads:  # until its end is seen, there are copies of what it was
        await_that(lambda: children_everywhere(snapped, TEMPLATE.format("killed")) not in ([], [template]))
    after = snapped.invoke(name).result  # in another environment
    assert after["count"] == 1
    gate.open()
    before = held.result().result  # which has outlived its template
    assert before["init"] != after["init"]
    assert sum(line == "this is INIT\n" for line in snapped.logs("killed")) == 1 + inits_of(snapped)


@pytest.fixture
def executor_of_calls() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.mark.parametrize("title", [KEEPER, ZYGOTE])
def test_what_keeps_a_template_is_killed(title: str) -> None:
    with running_daemon(isolation="auto", complains=True) as daemon:
        name = daemon.snap("orphaned", CODE)
        first = daemon.invoke(name).result
        if title == KEEPER:
            pid = _parent(template_of(daemon, "orphaned"))
        else:
            (pid,) = children(daemon.process.pid, ZYGOTE)
        family = descendants(pid)
        os.kill(pid, signal.SIGKILL)
        await_end(family)
        assert daemon.invoke(name).result["init"] != first["init"]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_what_keeps_a_template_never_comes_up() -> None:
    """The version fails, and says why, instead of waiting for ever."""
    if os.geteuid() != 0:
        pytest.skip("only root can hide a file of the interpreter's from one program")
    hiding = f'mount --bind /dev/null {walled.__file__} && exec "$@"'
    prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", hiding, "sh"]
    with running_daemon(prefix=prefix, complains=True) as daemon:
        name = daemon.snap("never", CODE, fails=True)
        found = daemon.lambda_.get_function_configuration(FunctionName="never", Qualifier="1")
        assert found["StateReasonCode"] == "InternalError", found
        assert "before it was up" in found["StateReason"]
        with pytest.raises(ClientError):
            daemon.invoke(name)
        daemon.stop()


@pytest.mark.parametrize("what", ["version", "function"])
def test_a_template_ends_with_its_version(snapped: RunningDaemon, what: str) -> None:
    name = f"gone-{what}"
    invoked = snapped.snap(name, CODE)
    snapped.invoke(invoked)
    keeper = _parent(template_of(snapped, name))
    family = descendants(keeper)
    snapped.lambda_.delete_function(FunctionName=invoked if what == "version" else name)
    await_end(family)
    await_that(lambda: not Path(f"/proc/{keeper}").exists())
    assert snapped.environments(name) == []
    if what == "function":
        again = snapped.snap(name, CODE.replace('"count": COUNT', '"count": "again"'))
        assert snapped.invoke(again).result["count"] == "again"


def test_templates_are_made_again_after_a_restart(tmp_path: Path) -> None:
    options = {"ephemeral": False, "isolation": "auto", "complains": True}
    with running_daemon("--data-dir", str(tmp_path), **options) as daemon:  # type: ignore[arg-type]
        name = daemon.snap("kept", CODE)
        first = daemon.invoke(name).result["init"]
    with running_daemon("--data-dir", str(tmp_path), **options) as daemon:  # type: ignore[arg-type]
        found = daemon.lambda_.get_function_configuration(FunctionName="kept", Qualifier="1")
        assert (found["State"], found["SnapStart"]["OptimizationStatus"]) == ("Active", "On")
        assert daemon.environments("kept") == []  # until it is called
        said = daemon.invoke(name).result
        assert said["count"] == 1 and said["init"] != first


def test_a_version_that_a_killed_daemon_left_pending(tmp_path: Path, gate: Gate) -> None:
    code = GATE_CODE + "import os\nwait_at(int(os.environ['GATE']))\ndef handler(event, context):\n    return 1\n"
    options = {"ephemeral": False, "complains": True}
    with running_daemon("--data-dir", str(tmp_path), **options) as daemon:  # type: ignore[arg-type]
        daemon.deploy("left", code, environment={"GATE": str(gate.port)}, **SNAPPED)
        daemon.lambda_.publish_version(FunctionName="left")
        gate.arrive()
    gate.open()
    with running_daemon("--data-dir", str(tmp_path), **options) as daemon:  # type: ignore[arg-type]
        assert daemon.lambda_.get_function_configuration(FunctionName="left", Qualifier="1")["State"] == "Pending"
        gate.arrive()
        gate.open()
        assert daemon.state_of("left", "1") == "Active"
        assert daemon.invoke("left:1").result == 1


def test_templates_count_towards_the_bound(gate: Gate) -> None:
    """Of two processes that this daemon may have, the template is one."""
    with running_daemon("--environments-max", "2", complains=True) as daemon, ThreadPoolExecutor(2) as callers:
        name = daemon.snap("bounded", CODE, Timeout=30)
        calls = [callers.submit(daemon.invoke, name, {"gate": gate.port}) for _ in range(2)]
        gate.arrive()
        await_that(lambda: daemon.health()["statistics"]["dispatcher"]["waiting"] == 1)
        assert daemon.health()["statistics"]["dispatcher"]["environments_live"] == 2
        gate.open()
        gate.arrive()
        gate.open()
        assert sorted(call.result().result["count"] for call in calls) == [1, 2]


def test_groups_of_templates_and_environments(tmp_path: Path) -> None:
    """Each has its own; none is left, which the end of the daemon checks."""
    with running_daemon(isolation="auto", complains=True) as daemon:
        walls = set(daemon.health()["isolation"]["walls"])
        if "namespaces" not in walls:
            no_namespaces(daemon.health()["isolation"])
        if "memory" not in walls:
            no_group("memory", daemon.health()["isolation"])
        name = daemon.snap("grouped", CODE)
        daemon.invoke(name)
        base = next(path for path in control_groups_of(daemon.process.pid) if "memory" in path)
        members = {
            row["pid"]: [path.name for path in Path(base).iterdir() if path.is_dir() and str(row["pid"]) in (path / "cgroup.procs").read_text().split()]
            for row in daemon.environments("grouped")
        }
        assert all(len(groups) == 1 for groups in members.values())
        assert len({name for groups in members.values() for name in groups}) == 2
