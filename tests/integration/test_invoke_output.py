"""What functions write, wherever it comes from, and what they can import."""

from __future__ import annotations

import json
import re
import sys

import boto3
import botocore
import pytest
from botocore.exceptions import ClientError

from daemon_running import RunningDaemon, running_daemon
from fastlam.runtimes.python import INTERPRETER

pytestmark = pytest.mark.lanes

# ---- output ------------------------------------------------------------------------------------------

WRITERS = {
    "print": ("print('one')\n    print('two', end='')", ["one", "two"]),
    "stderr": ("import sys; print('wrong', file=sys.stderr)", ["wrong"]),
    "os.write": ("import os; os.write(1, b'raw\\n'); os.write(2, b'other\\n')", ["raw", "other"]),
    "buffer": ("import sys; sys.stdout.buffer.write(b'bytes\\n')", ["bytes"]),
    "puts": ("import ctypes; ctypes.CDLL(None).puts(b'from C')", ["from C"]),
    "printf": ("import ctypes; ctypes.CDLL(None).printf(b'%d of C\\n', 7)", ["7 of C"]),
    "child": ("import subprocess; subprocess.run(['echo', 'from a child'], check=True)", ["from a child"]),
    "shell": ("import os; os.system('echo out; echo err >&2')", ["out", "err"]),
    "grandchild": ("import subprocess; subprocess.run('(echo below) | cat', shell=True, check=True)", ["below"]),
    "fork": (
        "import os\n    pid = os.fork()\n    if pid == 0:\n        print('forked')\n        os._exit(0)\n"
        "    os.waitpid(pid, 0)",
        ["forked"],
    ),
    "unicode": ("print('ß 🐍 \\udc80')", ["ß 🐍 \\udc80"]),
    "carriage return": ("print('a\\rb')", ["a\rb"]),
    "logging": ("import logging; logging.getLogger().setLevel('INFO'); logging.info('seen')", ["seen"]),
    "context.log": ("context.log('through the context\\n')", ["through the context"]),
}


@pytest.mark.parametrize("name", WRITERS)
def test_output_is_in_the_log_in_order(daemon: RunningDaemon, name: str) -> None:
    statement, expected = WRITERS[name]
    function = daemon.deploy(
        f"writes-{name.replace('.', '-').replace(' ', '-')}",
        f"def handler(event, context):\n    print('before')\n    {statement}\n    print('' if event else 'after')\n",
    )
    for _ in range(2):
        invoked = daemon.invoke(function)
        assert invoked.error is None, invoked.raw
        lines = invoked.log.partition("START RequestId")[2].partition("END RequestId")[0].split("\n")[1:-1]
        if name == "logging":
            prefix, moment, identifier, said = lines[1].split("\t")
            assert (prefix, identifier, said) == ("[INFO]", invoked.request_id, "seen")
            assert moment.endswith("Z")
            lines[1] = said
        if name == "print":
            expected = ["one", "twoafter"]
            lines.append("after")
        assert lines == ["before", *expected, "after"]


def test_what_is_written_at_import_comes_before_start(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "loads",
        "import os\nprint('loaded')\nos.system('echo by a child')\ndef handler(event, context):\n    print('called')\n",
    )
    cold = daemon.invoke("loads")
    assert cold.log.partition("START")[0] == "loaded\nby a child\n"
    assert cold.printed() == ["called"]
    assert daemon.invoke("loads").log.startswith("START")
    assert [line for line in daemon.logs("loads") if not line.startswith(("START", "END", "REPORT"))] == [
        "loaded\n",
        "by a child\n",
        "called\n",
        "called\n",
    ]


def test_what_was_written_before_a_crash_is_kept(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "crashes",
        "import ctypes, os\n"
        "def handler(event, context):\n"
        "    print('printed')\n"
        "    os.system('echo by a child')\n"
        "    ctypes.CDLL(None).puts(b'by C')\n"
        "    ctypes.string_at(0)\n",
    )
    invoked = daemon.invoke("crashes")
    assert invoked.json["errorMessage"].endswith("signal: segmentation fault")
    assert invoked.printed() == ["printed", "by a child", "by C"]


def test_the_tail_is_the_last_4096_bytes(daemon: RunningDaemon) -> None:
    daemon.deploy("talks", "def handler(event, context):\n    for line in range(event):\n        print('line', line)\n")
    assert daemon.invoke("talks", 3).log.startswith("START")
    invoked = daemon.invoke("talks", 2000)
    assert len(invoked.log.encode()) == 4096
    assert re.search(r"\tMax Memory Used: \d+ MB\t\n$", invoked.log)
    assert "line 1999\nEND RequestId: " in invoked.log
    assert "line 2\n" not in invoked.log


def test_a_cut_character_is_replaced(daemon: RunningDaemon) -> None:
    daemon.deploy("accents", "def handler(event, context):\n    print('é' * 4000 + 'x' * event)\n")
    starts = set()
    for extra in range(100):
        invoked = daemon.invoke("accents", extra)
        whole = "".join(daemon.logs("accents")).partition(f"START RequestId: {invoked.request_id}")
        expected = "".join(whole[1:]).encode()[-4096:]
        assert invoked.log == expected.decode("utf-8", "replace")
        starts.add(invoked.log[0])
        if len(starts) == 2:
            break
    assert starts == {"é", "\ufffd"}


def test_output_without_end_is_bounded_and_the_loss_is_said(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "floods",
        "import os\n"
        "def handler(event, context):\n"
        "    block = b'x' * 1023 + b'\\n'\n"
        "    for _ in range(16 * 1024):\n        os.write(1, block)\n"
        "    print('the end')\n",
        Timeout=60,
    )
    invoked = daemon.invoke("floods")
    assert invoked.error is None
    assert "the end\nEND RequestId" in invoked.log
    lines = daemon.logs("floods")
    kept = sum(len(line) for line in lines if line.startswith("x"))
    assert kept <= 8 * 1024 * 1024
    assert any("bytes of output dropped" in line for line in lines)


def test_the_log_of_one_function_is_not_anothers(daemon: RunningDaemon) -> None:
    for name in ("speaker-a", "speaker-b"):
        daemon.deploy(name, f"def handler(event, context):\n    print('I am {name}')\n")
        daemon.invoke(name)
    assert "I am speaker-a\n" in daemon.logs("speaker-a")
    assert not any("speaker-b" in line for line in daemon.logs("speaker-a"))


def test_json_log_format(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "structured",
        "import logging\nlogger = logging.getLogger('mine')\n"
        "def handler(event, context):\n    logger.warning('look %s', 'here')\n    print('plain')\n",
        LoggingConfig={"LogFormat": "JSON"},
    )
    invoked = daemon.invoke("structured")
    start, record, plain, report = invoked.log.splitlines()
    assert json.loads(start)["type"] == "platform.start"
    written = json.loads(record)
    assert (written["level"], written["message"], written["logger"]) == ("WARNING", "look here", "mine")
    assert (written["requestId"], plain) == (invoked.request_id, "plain")
    reported = json.loads(report)
    assert (reported["type"], reported["record"]["requestId"]) == ("platform.report", invoked.request_id)
    assert reported["record"]["status"] == "success"


def test_a_reader_that_waits_is_woken_by_the_next_invocation(daemon: RunningDaemon) -> None:
    daemon.deploy("awaited", "def handler(event, context):\n    print('here')\n")
    daemon.invoke("awaited", InvocationType="Event", LogType="None")
    lines = daemon.logs("awaited", until=lambda lines: "here\n" in lines)
    assert lines[0].startswith("START")


def test_the_log_of_no_function(daemon: RunningDaemon) -> None:
    assert daemon.send("GET", "/_fastlam/logs?function=never-made").status == 404


# ---- imports -----------------------------------------------------------------------------------------

TRIES = """
import importlib, sys
def handler(event, context):
    found = {}
    for name in event:
        try:
            found[name] = getattr(importlib.import_module(name), "__version__", "?")
        except ImportError as error:
            found[name] = type(error).__name__
    return found
"""


def test_the_runtimes_own_modules_cannot_be_seen(daemon: RunningDaemon) -> None:
    daemon.deploy("looks", TRIES)
    hidden = [
        "msgspec",
        "zmq",
        "fastlam",
        "uvloop",
        "httptools",
        "click",
        "rich",
        "cloudpickle",
        "setproctitle",
        "pytest",
    ]
    assert daemon.invoke("looks", hidden).result == dict.fromkeys(hidden, "ModuleNotFoundError")
    daemon.deploy(
        "lists", "import sys\nbefore = sorted(sys.modules)\ndef handler(event, context):\n    return before\n"
    )
    seen = {name.partition(".")[0] for name in daemon.invoke("lists").result}
    assert not seen & {*hidden, "simplejson", "boto3"}
    assert seen <= {*sys.stdlib_module_names, "app", "__main__", "__mp_main__"}


def test_a_package_may_bring_modules_of_the_same_names(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "brings",
        {
            "app.py": TRIES,
            "msgspec.py": "__version__ = 'mine'\n",
            "zmq/__init__.py": "__version__ = 'also mine'\n",
            "fastlam/__init__.py": "__version__ = 'even this'\n",
            "simplejson.py": "__version__ = 'own'\n",
        },
    )
    assert daemon.invoke("brings", ["msgspec", "zmq", "fastlam", "simplejson"]).result == {
        "msgspec": "mine",
        "zmq": "also mine",
        "fastlam": "even this",
        "simplejson": "own",
    }


@pytest.mark.parametrize("name", ["named in the source", "found at run time"])
def test_boto3_is_there_without_being_packed(daemon: RunningDaemon, name: str) -> None:
    code = {
        "named in the source": "import boto3, botocore\ndef handler(e, c):\n    return [boto3.__version__, botocore.__version__]\n",
        "found at run time": "import importlib\n"
        "def handler(e, c):\n"
        "    return [importlib.import_module(a + b).__version__ for a, b in (('bot', 'o3'), ('bot', 'ocore'))]\n",
    }[name]
    function = daemon.deploy(f"boto3-{name.replace(' ', '-')}", code)
    assert daemon.invoke(function).result == [boto3.__version__, botocore.__version__]


def test_a_packages_own_boto3_wins(daemon: RunningDaemon) -> None:
    daemon.deploy(
        "own-boto3",
        {
            "app.py": "import boto3, botocore\ndef handler(e, c):\n    return [boto3.WHOSE, boto3.__file__, botocore.__name__]\n",
            "boto3/__init__.py": "WHOSE = 'the package'\n",
        },
    )
    whose, path, other = daemon.invoke("own-boto3").result
    assert (whose, other) == ("the package", "botocore")
    assert path.endswith("/boto3/__init__.py")


def test_local_modules_shadow_nothing_of_the_runtime(daemon: RunningDaemon) -> None:
    """A function whose modules are named as parts of the standard library or of ours still runs."""
    daemon.deploy(
        "shadows",
        {
            "app.py": "import logging, worker\ndef handler(event, context):\n    return [worker.NAME, len(event)]\n",
            "worker.py": "NAME = 'mine'\n",
            "random.py": "raise RuntimeError('nobody asked for this')\n",
            "wire.py": "raise RuntimeError('nobody asked for this')\n",
        },
    )
    assert daemon.invoke("shadows", [1, 2]).result == ["mine", 2]


# ---- another Python ----------------------------------------------------------------------------------

OTHER = "python3.12" if INTERPRETER != "python3.12" else "python3.13"


def test_a_function_of_another_python_runs_with_a_visible_warning() -> None:
    with running_daemon(complains=True) as daemon:
        daemon.deploy(
            "other",
            "import os, sys\ndef handler(event, context):\n    return ['%d.%d' % sys.version_info[:2], os.environ['AWS_EXECUTION_ENV']]\n",
            Runtime=OTHER,
        )
        assert daemon.invoke("other").result == [INTERPRETER.removeprefix("python"), f"AWS_Lambda_{OTHER}"]
        daemon.invoke("other")
        warnings = [line for line in daemon.logs("other") if line.startswith("[fastlam: ")]
        assert len(warnings) == 1
        assert OTHER in warnings[0]
        assert INTERPRETER in warnings[0]
        assert warnings[0].strip() in daemon.stderr()
        assert daemon.stderr().count("\n") == 1


def test_a_package_with_extension_modules_of_another_python_is_refused(daemon: RunningDaemon) -> None:
    tag = OTHER.replace("python3.", "cpython-3")
    extension = f"fast/_speedups.{tag}-x86_64-linux-gnu.so"
    files = {"app.py": "def handler(event, context):\n    return 1\n", "fast/__init__.py": "", extension: "ELF"}
    daemon.deploy("foreign", files, Runtime=OTHER)
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            daemon.invoke("foreign")
        error = caught.value.response["Error"]
        assert error["Code"] == "InvalidRuntimeException"
        assert OTHER in error["Message"]
        assert extension in error["Message"]
        assert f"package for {INTERPRETER}" in error["Message"]
    assert any(extension in line for line in daemon.logs("foreign"))
    # The same package under the interpreter's own name is the function's own affair.
    daemon.deploy("foreign-but-named", files)
    assert daemon.invoke("foreign-but-named").result == 1
    assert daemon.stderr() == ""
