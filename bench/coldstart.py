"""From no environment to the result of the first call, against what a new interpreter or an import costs.

The zygotes are up, files are in the page cache, and everything has its .pyc: what a machine is like that has been at
work for a minute. Each call finds a function that has just been declared and so has no environment.
"""

from __future__ import annotations

import compileall
import contextlib
import http.client
import importlib.metadata
import importlib.util
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.daemon import FUNCTIONS, START_SECONDS, Server, deploy, fastlam_daemon, invoke_path
from bench.fingerprint import MEMORY_MB
from bench.measure import Metrics, Topic

if TYPE_CHECKING:
    from fastlam import Runtime

HELLO: Final = "hello"
OWN: Final = "boto3 in the package"
SHARED: Final = "boto3 of the runtime"
INTERPRETER: Final = "python -I -c, one run of hello"
IMPORT: Final = "import boto3 in a running interpreter"
CLIENT: Final = "a client of boto3, and numpy"
CLIENT_INTERPRETER: Final = "python -I -c, one run of it"
SNAP_START_MIN: Final = (3, 12)  # of Lambda's runtimes; an older interpreter runs their functions all the same
NUMPY: Final = "numpy"
INSTALL: Final = 'pip install "fastlam[bench]"'
PACKAGES: Final = ("boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "urllib3", "six")
METRIC: Final = "cold start p50"
LEFT_THREAD: Final = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
COPIES_FROM_PID: Final = 300  # a fork is the second process of its namespace
SETTLE_SECONDS: Final = 0.05  # for the environment before to be gone

RUN_ONCE: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); import app, json; print(json.dumps(app.handler({}, None)))"
)
TIMED_IMPORT: Final = (
    "import sys, time; sys.path.insert(0, sys.argv[1]); begun = time.perf_counter_ns(); import boto3;"
    " print(time.perf_counter_ns() - begun, boto3.__file__)"
)


def package_with(packages: Iterable[str], function: Path, target: Path) -> Path:
    """A function's directory that holds packages as `pip install --target` would leave them there, with compiled bytecode.

    The files are those of the installed distributions, so that nothing has to be fetched.
    """
    shutil.copytree(function, target)
    for package in packages:
        distribution = importlib.metadata.distribution(package)
        for file in distribution.files or ():
            if ".." in file.parts or "tests" in file.parts or file.suffix == ".pyc":
                continue
            copy = target / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(distribution.locate_file(file)), copy)
    compileall.compile_dir(target, quiet=1, workers=0)
    return target


def cold_ms(runtime: Runtime, name: str, directory: Path, check: Callable[[Any], bool], count: int) -> float:
    """Median over `count` new functions; the first call of each is timed at the caller."""
    times = []
    for _ in range(count):
        # Declared again, a function is another one; the environments of the former end. That is not timed.
        function = runtime.function(name, "app.handler", code=directory, memory=MEMORY_MB, timeout=30)
        time.sleep(SETTLE_SECONDS)
        begun = time.perf_counter_ns()
        result = function.invoke(b"{}")
        times.append((time.perf_counter_ns() - begun) / 1e6)
        if result.init_duration_ms is None or not check(result.payload):
            raise RuntimeError(f"{name}: not a cold start, or a wrong answer: {result.payload!r}")
    return statistics.median(times)


@contextlib.contextmanager
def restoring_daemon(directory: Path, *options: str) -> Iterator[tuple[Server, str]]:
    """A daemon with the function CLIENT from that directory, where every call has a cold start; and the qualified name of its version, which
    has a snapshot.
    """
    with fastlam_daemon("--keepalive", "0", *options) as daemon:
        runtime = max(SNAP_START_MIN, sys.version_info[:2])
        client = deploy(
            daemon.url,
            "boto3_client",
            directory,
            Runtime=f"python{runtime[0]}.{runtime[1]}",
            SnapStart={"ApplyOn": "PublishedVersions"},
        )
        client.publish_version(FunctionName="boto3_client")
        deadline = time.monotonic() + START_SECONDS
        while (
            state := client.get_function_configuration(FunctionName="boto3_client", Qualifier="1")["State"]
        ) != "Active":
            if state == "Failed" or time.monotonic() > deadline:
                raise RuntimeError(f"the version is {state}")
            time.sleep(0.01)
        yield daemon, "boto3_client:1"


def copying_program() -> str:
    """criu, as root's daemon would find it."""
    from fastlam.sandbox.criu import installed_program

    return installed_program() if os.geteuid() == 0 else ""


def called_ms(daemon: Server, name: str, check: Callable[[Any], bool], count: int) -> float:
    """Median over `count` calls over one connection, each with an environment of its own."""
    times = []
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", daemon.port)) as connection:
        connection.connect()
        for _ in range(count):
            time.sleep(SETTLE_SECONDS)
            begun = time.perf_counter_ns()
            connection.request("POST", invoke_path(name), b"{}")
            answer = json.loads(connection.getresponse().read())
            times.append((time.perf_counter_ns() - begun) / 1e6)
            if not check(answer):
                raise RuntimeError(f"{name}: another kind of start, or a wrong answer: {answer!r}")
    return statistics.median(times)


def spawned_ms(program: str, directory: Path, count: int) -> float:
    """Median time of a new interpreter that runs `program`."""
    times = []
    for _ in range(count):
        begun = time.perf_counter_ns()
        subprocess.run(
            [sys.executable, "-I", "-c", program, str(directory)],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        times.append((time.perf_counter_ns() - begun) / 1e6)
    return statistics.median(times)


def imported_ms(directory: Path, count: int) -> float:
    """Median time of the import statement alone, each in a new interpreter."""
    times = []
    for _ in range(count):
        words = [sys.executable, "-I", "-c", TIMED_IMPORT, str(directory)]
        said = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
        if not said[1].startswith(str(directory)):
            raise RuntimeError(f"another boto3 was imported: {said[1]}")
        times.append(int(said[0]) / 1e6)
    return statistics.median(times)


def run(topic: Topic) -> None:
    from fastlam import Runtime

    if importlib.util.find_spec(NUMPY) is None:
        raise RuntimeError(f"a function here imports numpy: {INSTALL}")
    many, few = topic.scale(20, 4), topic.scale(5, 2)
    with (
        tempfile.TemporaryDirectory(prefix="cold-") as scratch,
        Runtime() as runtime,
        contextlib.ExitStack() as stack,
    ):
        for name in ("hello", "boto3_runtime"):
            shutil.copytree(FUNCTIONS / name, Path(scratch, name))
            compileall.compile_dir(Path(scratch, name), quiet=1)
        own = package_with(PACKAGES, FUNCTIONS / "boto3_own", Path(scratch, "own"))
        client = package_with([NUMPY], FUNCTIONS / "boto3_client", Path(scratch, "boto3_client"))
        daemon, version = stack.enter_context(restoring_daemon(client))
        hello, shared = Path(scratch, "hello"), Path(scratch, "boto3_runtime")
        numbers = itertools.count()
        criu = copying_program()
        copied: dict[str, Callable[[], Metrics]] = {}
        if criu:
            threaded = Path(scratch, "threaded")
            shutil.copytree(client, threaded)
            with (threaded / "app.py").open("a") as file:
                file.write(LEFT_THREAD)
            copier, copy = stack.enter_context(restoring_daemon(threaded, "--criu", criu))
            copied[f"fastlam, SnapStart by criu: {CLIENT}, a thread"] = lambda: {
                METRIC: called_ms(copier, copy, lambda payload: payload["pid"] >= COPIES_FROM_PID, few)
            }

        def is_hello(payload: Any) -> bool:
            return payload == {"statusCode": 200, "body": '"Hello from Lambda!"'}

        def brings_own(payload: Any) -> bool:
            return str(payload["file"]).startswith(str(own))

        def shares(payload: Any) -> bool:
            return not str(payload["file"]).startswith(scratch)

        def ours(name: str, directory: Path, check: Callable[[Any], bool], count: int) -> Callable[[], Metrics]:
            return lambda: {METRIC: cold_ms(runtime, f"{name}-{next(numbers)}", directory, check, count)}

        def initialized(kind: str) -> Callable[[Any], bool]:
            return lambda payload: payload.get("initialization") == kind

        deploy(daemon.url, "hello").close()
        sides = {
            f"fastlam: {HELLO}": ours("hello", hello, is_hello, many),
            f"fastlam, walls: {HELLO}": lambda: {METRIC: called_ms(daemon, "hello", is_hello, many)},
            INTERPRETER: lambda: {METRIC: spawned_ms(RUN_ONCE, hello, many)},
            f"fastlam: {OWN}": ours("own", own, brings_own, few),
            f"fastlam: {SHARED}": ours("shared", shared, shares, many),
            IMPORT: lambda: {METRIC: imported_ms(own, few)},
            f"fastlam, SnapStart: {CLIENT}": lambda: {METRIC: called_ms(daemon, version, initialized("snap-start"), many)},
            f"fastlam: {CLIENT}": lambda: {METRIC: called_ms(daemon, "boto3_client", initialized("on-demand"), few)},
            CLIENT_INTERPRETER: lambda: {METRIC: spawned_ms(RUN_ONCE, client, few)},
            **copied,
        }
        for side in sides.values():
            side()  # zygotes up, caches warm
        topic.in_turns(sides, {METRIC: "ms"})
    topic.ratio(
        "hello: cold start / new interpreter", (f"fastlam: {HELLO}", METRIC), (INTERPRETER, METRIC), at_most=1 / 3
    )
    topic.ratio(
        "hello behind walls, over HTTP: cold start / new interpreter",
        (f"fastlam, walls: {HELLO}", METRIC), (INTERPRETER, METRIC), at_most=1 / 4,
    )  # fmt: skip
    topic.ratio(f"{OWN}: cold start / import", (f"fastlam: {OWN}", METRIC), (IMPORT, METRIC), at_most=1.3)
    topic.ratio(f"{SHARED}: cold start / import", (f"fastlam: {SHARED}", METRIC), (IMPORT, METRIC), at_most=0.2)
    restored = f"fastlam, SnapStart: {CLIENT}", METRIC
    topic.ratio("SnapStart: restore / new interpreter", restored, (CLIENT_INTERPRETER, METRIC), at_most=1 / 40)
    topic.ratio("SnapStart: restore / cold start without it", restored, (f"fastlam: {CLIENT}", METRIC), at_most=1.0)
    if copied:
        (name,) = copied
        topic.ratio("SnapStart by criu: restore / new interpreter", (name, METRIC), (CLIENT_INTERPRETER, METRIC), at_most=1.0)
    else:
        topic.note("No criu, or not root: what has threads was not restored from a copy.")
    topic.note(
        f"{CLIENT}: a daemon with its walls, over HTTP; all of that is within INIT, which is the snapshot's or, without one,"
        " the call's (boto3 itself is preloaded then)."
    )
    topic.note(
        f"{many} starts a round (hello, {SHARED}), {few} of the others; zygotes up, page cache warm, .pyc present."
    )
