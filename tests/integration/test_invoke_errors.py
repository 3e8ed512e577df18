"""Functions that fail, in every way a Python function can: the caller gets Lambda's payload, the log says it, the next
call is served.

The payloads are compared whole, keys in their order, with what the service sends.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemon_running import Invoked, RunningDaemon

pytestmark = pytest.mark.lanes

LANGUAGE_ROOT = f"/var/lang/lib/python{sys.version_info.major}.{sys.version_info.minor}"


def written(*pairs: tuple[str, Any]) -> list[tuple[str, Any]]:
    return list(pairs)


def pairs_of(invoked: Invoked) -> list[tuple[str, Any]]:
    """The members of the error document in their order."""
    assert invoked.error == "Unhandled", (invoked.raw, invoked.log)
    assert (invoked.status, invoked.version) == (200, "$LATEST")
    assert invoked.headers["content-type"] == "application/json"
    document = invoked.json
    assert isinstance(document, dict)
    return list(document.items())


def platform_error(invoked: Invoked, kind: str, message: str) -> list[tuple[str, Any]]:
    """What Lambda itself says when the runtime could not."""
    return written(("errorType", kind), ("errorMessage", f"RequestId: {invoked.request_id} Error: {message}"))


# ---- errors of the code -----------------------------------------------------------------------------


def test_an_exception_is_a_document_with_message_type_request_and_trace(daemon: RunningDaemon) -> None:
    daemon.deploy("raises", "def handler(event, context):\n    raise Exception('Handler fails')\n")
    for _ in range(2):
        invoked = daemon.invoke("raises")
        assert pairs_of(invoked) == written(
            ("errorMessage", "Handler fails"),
            ("errorType", "Exception"),
            ("requestId", invoked.request_id),
            ("stackTrace", ["  File \"/var/task/app.py\", line 2, in handler\n    raise Exception('Handler fails')\n"]),
        )
        assert invoked.raw.startswith(b'{"errorMessage": "Handler fails", "errorType": "Exception", "requestId": "')
        assert invoked.printed() == [
            "[ERROR] Exception: Handler fails",
            "Traceback (most recent call last):",
            '\u00a0\u00a0File "/var/task/app.py", line 2, in handler',
            "\u00a0\u00a0\u00a0\u00a0raise Exception('Handler fails')",
        ]
    assert [one["invocations"] for one in daemon.environments("raises")] == [2], "the environment is used again"


def test_a_trace_runs_through_the_packages_of_the_function(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "deep",
        {
            "app.py": "from inner.work import divide\ndef handler(event, context):\n    return divide(**event)\n",
            "inner/__init__.py": "",
            "inner/work.py": (
                "class Impossible(ValueError):\n    pass\n"
                "def divide(a, b):\n    try:\n        return a / b\n"
                "    except ZeroDivisionError as error:\n        raise Impossible(f'{a} by {b}') from error\n"
            ),
        },
    )
    assert daemon.invoke("deep", {"a": 6, "b": 3}).result == 2.0
    assert daemon.invoke("deep", {"a": 6, "b": 0}).json | {"requestId": "?"} == {
        "errorMessage": "6 by 0",
        "errorType": "Impossible",
        "requestId": "?",
        "stackTrace": [
            '  File "/var/task/app.py", line 3, in handler\n    return divide(**event)\n',
            "  File \"/var/task/inner/work.py\", line 7, in divide\n    raise Impossible(f'{a} by {b}') from error\n",
        ],
    }


def test_json_and_the_standard_library_appear_with_lambdas_paths(daemon: RunningDaemon) -> None:
    daemon.deploy("parses", "import json\ndef handler(event, context):\n    return json.loads(event)\n")
    trace = daemon.invoke("parses", "no json").json["stackTrace"]
    assert trace[0] == '  File "/var/task/app.py", line 3, in handler\n    return json.loads(event)\n'
    assert trace[1].startswith(f'  File "{LANGUAGE_ROOT}/json/__init__.py", line ')
    assert not any("site-packages" in entry or "/tmp" in entry for entry in trace)


@pytest.mark.parametrize(
    ("name", "expression", "described"),
    [
        ("set", "{1, 2}", "Object of type set is not JSON serializable"),
        ("uuid", "__import__('uuid').uuid4()", "Object of type UUID is not JSON serializable"),
        ("object", "object()", "Object of type object is not JSON serializable"),
        ("nested", "{'deep': [1, {'er': (2, {3})}]}", "Object of type set is not JSON serializable"),
        ("datetime", "__import__('datetime').date(2026, 1, 2)", "Object of type date is not JSON serializable"),
        ("keys", "{(1, 2): 3}", "keys must be str, int, float, bool or None, not tuple"),
    ],
)
def test_a_result_that_is_no_json(daemon: RunningDaemon, name: str, expression: str, described: str) -> None:
    daemon.deploy(f"unserialisable-{name}", f"def handler(event, context):\n    return {expression}\n")
    invoked = daemon.invoke(f"unserialisable-{name}")
    assert pairs_of(invoked) == written(
        ("errorMessage", f"Unable to marshal response: {described}"),
        ("errorType", "Runtime.MarshalError"),
        ("requestId", invoked.request_id),
        ("stackTrace", []),
    )


def test_a_handler_that_cannot_be_called(daemon: RunningDaemon) -> None:
    daemon.deploy("number", "handler = 3\n")
    invoked = daemon.invoke("number")
    assert pairs_of(invoked)[:3] == written(
        ("errorMessage", "'int' object is not callable"), ("errorType", "TypeError"), ("requestId", invoked.request_id)
    )
    daemon.deploy("too-few", "def handler(event):\n    return event\n")
    assert daemon.invoke("too-few").json["errorMessage"] == "handler() takes 1 positional argument but 2 were given"


# ---- INIT --------------------------------------------------------------------------------------------


@dataclass
class InitFault:
    name: str
    handler: str
    code: str
    message: str
    kind: str
    trace: list[str]


INIT_FAULTS = [
    InitFault(
        "no-module",
        "nothing.handler",
        "def handler(event, context): pass\n",
        "Unable to import module 'nothing': No module named 'nothing'",
        "Runtime.ImportModuleError",
        [],
    ),
    InitFault(
        "missing-package",
        "app.handler",
        "import no_such_package\ndef handler(event, context): pass\n",
        "Unable to import module 'app': No module named 'no_such_package'",
        "Runtime.ImportModuleError",
        [],
    ),
    InitFault(
        "no-attribute",
        "app.main",
        "def handler(event, context): pass\n",
        "Handler 'main' missing on module 'app'",
        "Runtime.HandlerNotFound",
        [],
    ),
    InitFault(
        "syntax",
        "app.handler",
        "def handler(event, context):\n    pass\n  return 1\n",
        "Syntax error in module 'app': unindent does not match any outer indentation level (app.py, line 3)",
        "Runtime.UserCodeSyntaxError",
        ['  File "/var/task/app.py" Line 3\n      return 1\n'],
    ),
    InitFault(
        "bad-handler",
        "app",
        "def handler(event, context): pass\n",
        "Bad handler 'app': not enough values to unpack (expected 2, got 1)",
        "Runtime.MalformedHandlerName",
        [],
    ),
    InitFault(
        "built-in",
        "sys.exit",
        "",
        "Cannot use built-in module sys as a handler module",
        "Runtime.BuiltInModuleConflict",
        [],
    ),
]


@pytest.mark.parametrize("fault", INIT_FAULTS, ids=lambda fault: fault.name)
def test_a_handler_that_cannot_be_found(daemon: RunningDaemon, fault: InitFault) -> None:
    daemon.deploy(fault.name, {"app.py": fault.code}, handler=fault.handler)
    for _ in range(2):
        invoked = daemon.invoke(fault.name)
        message = fault.message
        if fault.name == "syntax":  # the parser's words are not those of every version
            message = invoked.json["errorMessage"]
            assert message.startswith("Syntax error in module 'app': ")
        assert pairs_of(invoked) == written(
            ("errorMessage", message), ("errorType", fault.kind), ("requestId", ""), ("stackTrace", fault.trace)
        )
        assert f"[ERROR] {fault.kind}: {message}\n" in invoked.log


def test_an_exception_at_import_is_tried_twice_and_logged_with_both_reports(daemon: RunningDaemon) -> None:
    daemon.deploy("import-raises", "print('importing')\nraise RuntimeError('at import')\n")
    invoked = daemon.invoke("import-raises")
    document = dict(pairs_of(invoked))
    assert list(document) == ["errorMessage", "errorType", "requestId", "stackTrace"]
    assert (document["errorMessage"], document["errorType"], document["requestId"]) == ("at import", "RuntimeError", "")
    assert document["stackTrace"][0].startswith(f'  File "{LANGUAGE_ROOT}/importlib/__init__.py", line ')
    assert any('  File "<frozen importlib._bootstrap>", line ' in entry for entry in document["stackTrace"])
    assert document["stackTrace"][-1] == (
        "  File \"/var/task/app.py\", line 2, in <module>\n    raise RuntimeError('at import')\n"
    )
    lines = invoked.log.splitlines()
    kinds = [
        line.partition(" ")[0] if line.startswith(("INIT_REPORT", "START", "END", "REPORT")) else line
        for line in lines
        if line.startswith(("importing", "[ERROR]", "INIT_REPORT", "START", "END", "REPORT"))
    ]
    attempt = ["importing", "[ERROR] RuntimeError: at import", "INIT_REPORT"]
    assert kinds == [*attempt, *attempt, "START", "END", "REPORT"]
    phases = [re.findall(r"Phase: (\w+)\tStatus: (\w+)\tError Type: (\w+)$", line) for line in lines]
    assert [found[0] for found in phases if found] == [
        ("init", "error", "RuntimeError"),
        ("invoke", "error", "RuntimeError"),
    ]
    assert "Init Duration" not in invoked.report, "the time of INIT counts as the invocation's"


def test_an_init_that_fails_once_costs_the_caller_only_time(daemon: RunningDaemon, tmp_path: Path) -> None:
    daemon.deploy(
        "second-try",
        "import pathlib, os\n"
        "mark = pathlib.Path(os.environ['MARK'])\n"
        "if not mark.exists():\n    mark.touch()\n    raise RuntimeError('not yet')\n"
        "def handler(event, context):\n    return 'at last'\n",
        environment={"MARK": str(tmp_path / "mark")},
    )
    invoked = daemon.invoke("second-try")
    assert invoked.result == "at last"
    assert invoked.log.count("INIT_REPORT") == 1
    assert "Init Duration" not in invoked.report


def test_a_repaired_function_works_again(daemon: RunningDaemon) -> None:
    daemon.deploy("repaired", "import no_such_package\n")
    assert daemon.invoke("repaired").json["errorType"] == "Runtime.ImportModuleError"
    daemon.update("repaired", "def handler(event, context):\n    return 'whole'\n")
    assert daemon.invoke("repaired").result == "whole"


# ---- processes that end ------------------------------------------------------------------------------

ENDS = {
    "exit-0": ("import sys\ndef handler(e, c):\n    sys.exit(0)\n", "Runtime exited without providing a reason"),
    "exit-none": ("import sys\ndef handler(e, c):\n    sys.exit()\n", "Runtime exited without providing a reason"),
    "exit-3": ("import sys\ndef handler(e, c):\n    sys.exit(3)\n", "Runtime exited with error: exit status 3"),
    "exit-text": (
        "import sys\ndef handler(e, c):\n    sys.exit('given up')\n",
        "Runtime exited with error: exit status 1",
    ),
    "os-exit-0": ("import os\ndef handler(e, c):\n    os._exit(0)\n", "Runtime exited without providing a reason"),
    "os-exit-7": ("import os\ndef handler(e, c):\n    os._exit(7)\n", "Runtime exited with error: exit status 7"),
    "segmentation-fault": (
        "import ctypes\ndef handler(e, c):\n    ctypes.string_at(0)\n",
        "Runtime exited with error: signal: segmentation fault",
    ),
    "abort": ("import os\ndef handler(e, c):\n    os.abort()\n", "Runtime exited with error: signal: aborted"),
    "kill-9": (
        "import os\ndef handler(e, c):\n    os.kill(os.getpid(), 9)\n",
        "Runtime exited with error: signal: killed",
    ),
    "interrupt": (
        "def handler(e, c):\n    raise KeyboardInterrupt\n",
        "Runtime exited with error: exit status 1",
    ),
    "exit-at-import": ("import sys\nsys.exit(4)\n", "Runtime exited with error: exit status 4"),
    "dies-at-import": ("import os\nos.kill(os.getpid(), 9)\n", "Runtime exited with error: signal: killed"),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_process_that_ends(daemon: RunningDaemon, name: str) -> None:
    code, message = ENDS[name]
    daemon.deploy(name, code)
    for _ in range(2):
        invoked = daemon.invoke(name)
        assert pairs_of(invoked) == platform_error(invoked, "Runtime.ExitError", message)
        assert f"RequestId: {invoked.request_id} Error: {message}\nRuntime.ExitError\n" in invoked.log
        assert invoked.report.endswith("\tStatus: error\tError Type: Runtime.ExitError")
        assert "Init Duration" in invoked.report or "at-import" in name
    if name == "exit-text":
        assert invoked.printed() == ["given up"]
    assert daemon.health()["environments"]["busy"] == 0


def test_what_a_crash_left_is_not_seen_by_the_next_call(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "one-dies",
        "import os\ncalls = 0\n"
        "def handler(event, context):\n"
        "    global calls\n    calls += 1\n"
        "    print('call', calls, flush=True)\n"
        "    if event == 'die':\n        os.kill(os.getpid(), 11)\n"
        "    return [os.getpid(), calls]\n",
    )
    pid, calls = daemon.invoke("one-dies").result
    assert daemon.invoke("one-dies").result == [pid, calls + 1]
    invoked = daemon.invoke("one-dies", "die")
    assert invoked.json["errorMessage"].endswith("signal: segmentation fault")
    assert invoked.printed() == ["call 3"]
    other, calls = daemon.invoke("one-dies").result
    assert other != pid
    assert calls == 1


# ---- time --------------------------------------------------------------------------------------------


def test_a_timeout_ends_the_call_and_its_environment(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "sleeps",
        "import os, time\n"
        "def handler(event, context):\n"
        "    print('remaining', context.get_remaining_time_in_millis() <= 1000)\n"
        "    time.sleep(event)\n"
        "    return os.getpid()\n",
        Timeout=1,
    )
    pid = daemon.invoke("sleeps", 0).result
    invoked = daemon.invoke("sleeps", 60)
    assert pairs_of(invoked) == platform_error(invoked, "Sandbox.Timedout", "Task timed out after 1.00 seconds")
    assert re.search(
        rf"^\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z {invoked.request_id} Task timed out after 1\.00 seconds\n\n"
        rf"END RequestId: {invoked.request_id}\n",
        invoked.log,
        re.MULTILINE,
    )
    assert invoked.printed()[0] == "remaining True"
    assert invoked.report.endswith("\tStatus: timeout")
    assert "\tDuration: 1000.00 ms\tBilled Duration: 1000 ms\t" in invoked.report
    assert daemon.invoke("sleeps", 0).result != pid


def test_a_timeout_is_not_put_off_by_a_function_that_holds_the_interpreter(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "blocks",
        "import signal\n"
        "def handler(event, context):\n"
        "    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):\n"
        "        signal.signal(number, signal.SIG_IGN)\n"
        "    while True:\n        pass\n",
        Timeout=1,
    )
    assert daemon.invoke("blocks").json["errorType"] == "Sandbox.Timedout"


def test_an_init_that_never_ends_is_cut_and_then_counts_as_the_call(daemon: RunningDaemon) -> None:
    daemon.deploy("init-hangs", "import time\nprint('waiting')\ntime.sleep(600)\n", Timeout=1)
    invoked = daemon.invoke("init-hangs")
    assert pairs_of(invoked) == platform_error(invoked, "Sandbox.Timedout", "Task timed out after 1.00 seconds")
    assert re.findall(r"Phase: (\w+)\tStatus: (\w+)$", invoked.log, re.MULTILINE) == [
        ("init", "timeout"),
        ("invoke", "timeout"),
    ]
    assert invoked.log.count("waiting\n") == 2


# ---- size --------------------------------------------------------------------------------------------

RESPONSE_BYTES_MAX = 6_291_556


def test_a_response_at_the_limit_passes_and_one_byte_more_does_not(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "large",
        "import os\ndef handler(event, context):\n    print('made', event)\n    return 'x' * event\n",
        Timeout=30,
    )
    fits = daemon.invoke("large", RESPONSE_BYTES_MAX - 2)
    assert fits.error is None
    assert fits.raw == b'"' + b"x" * (RESPONSE_BYTES_MAX - 2) + b'"'
    beyond = daemon.invoke("large", RESPONSE_BYTES_MAX - 1)
    assert pairs_of(beyond) == written(
        ("errorMessage", "Response payload size exceeded maximum allowed payload size (6291556 bytes)."),
        ("errorType", "Function.ResponseSizeTooLarge"),
    )
    assert beyond.printed() == [f"made {RESPONSE_BYTES_MAX - 1}"]
    assert daemon.invoke("large", 3).result == "xxx"
    assert [one["invocations"] for one in daemon.environments("large")] == [3], "the environment stays usable"


def test_bytes_are_sent_as_they_are(daemon: RunningDaemon) -> None:
    daemon.deploy("binary", "def handler(event, context):\n    return bytes(range(256))\n")
    invoked = daemon.invoke("binary")
    assert (invoked.error, invoked.raw) == (None, bytes(range(256)))
    assert invoked.headers["content-type"] == "application/unknown"


def test_no_word_of_a_failure_reaches_the_daemons_own_stderr(daemon: RunningDaemon) -> None:
    assert daemon.stderr() == ""
    assert daemon.process.poll() is None
