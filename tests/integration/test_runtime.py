"""fastlam.Runtime: Lambda functions inside a Python program, in environments and, for debugging, in the program itself."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import resource
import subprocess
import sys
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import fastlam
from daemon_running import zipped
from executor_tasks import Gate
from fastlam import Executor, Runtime
from fastlam.embed.function import FunctionError, InvokeResult
from fastlam.embed.runtime import Throttled
from fastlam.errors import FastlamError
from runtime_handlers import arrive_and_stand, deed, echo, fail, no_number, speak, stand, whoami

pytestmark = pytest.mark.lanes

SECONDS = 60


@pytest.fixture(scope="module")
def runtime(lane_in_use: str) -> Iterator[Runtime]:
    with Runtime() as runtime:
        yield runtime


@pytest.fixture(params=["environment", "inline"])
def either(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """The same calls must give the same payloads and the same error documents in both."""
    with Runtime(inline=request.param == "inline") as runtime:
        yield runtime


# --- doors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event", [None, True, 0, -1.5, "text", "\u00e9\u2028", [], [1, [2]], {}, {"a": {"b": None}}, 10**30, "x" * 100_000]
)
def test_events_come_back_as_they_went(either: Runtime, event: Any) -> None:
    result = either.function("echo", echo).invoke(event)
    assert result.payload == event
    assert result.function_error is None
    assert result.error_type is None
    assert result.raise_for_error() is result


@pytest.mark.parametrize("word", ["inf", "-inf", "nan"])
def test_what_only_python_calls_json(either: Runtime, word: str) -> None:
    """Lambda's Python runtime writes such numbers, and its callers read them."""
    number, large = either.function("number", no_number).invoke(word).payload
    assert str(number) == word
    assert large == 10**40


def test_bytes_are_the_event_itself(either: Runtime) -> None:
    function = either.function("echo", echo)
    assert function.invoke(b' {"a" : 1} ').payload == {"a": 1}
    assert function.invoke(b"no json").error_type == "Runtime.UnmarshalError"
    with pytest.raises(TypeError, match="cannot be sent as JSON"):
        function.invoke(object())


def test_the_context_and_the_environment_are_the_functions_own(either: Runtime) -> None:
    function = either.function("who", whoami, memory=256, timeout=20, environment={"COLOUR": "green"})
    result = function.invoke()
    seen = result.payload
    assert seen["name"] == "who"
    assert seen["memory"] == "256"
    assert seen["arn"] == function.arn == "arn:aws:lambda:us-east-1:000000000000:function:who"
    assert seen["request"] == result.request_id
    assert 0 < seen["remaining"] <= 20_000
    assert seen["variable"] == "green"
    assert seen["region"] == "us-east-1"
    assert (seen["pid"] == os.getpid()) == either.inline
    assert "COLOUR" not in os.environ


def test_failures_are_results_with_lambdas_documents(either: Runtime) -> None:
    function = either.function("failing", fail)
    result = function.invoke()
    assert result.function_error == "Unhandled"
    assert result.error_type == "LookupError"
    document = result.payload
    assert document["errorMessage"] == "no such thing"
    assert document["errorType"] == "LookupError"
    assert document["requestId"] == result.request_id
    assert len(document["stackTrace"]) == 1
    assert re.search(r"line \d+, in fail\n    raise LookupError", document["stackTrace"][0])
    with pytest.raises(FunctionError, match="LookupError: no such thing") as caught:
        result.raise_for_error()
    assert caught.value.payload == document
    function = either.function("deed", deed)
    assert function.invoke("set").payload["errorType"] == "Runtime.MarshalError"
    assert function.invoke("bytes").payload == b"\x00\xff"
    assert function.invoke(5).payload == 5


def test_module_and_attribute_from_a_directory_and_from_a_zip(either: Runtime, tmp_path: Path) -> None:
    source = "import helper\n\ndef handler(event, context):\n    return [helper.twice(event), __file__]\n"
    files = {
        f"app_{tmp_path.parent.name.replace('-', '_')}.py": source,
        "helper.py": "def twice(x):\n    return 2 * x\n",
    }
    module = next(iter(files)).removesuffix(".py")
    directory = tmp_path / "code"
    directory.mkdir()
    for name, text in files.items():
        (directory / name).write_text(text)
    archive = tmp_path / "code.zip"
    archive.write_bytes(zipped(files))
    try:
        for code in (directory, str(directory), archive, archive.read_bytes()):
            value, place = either.function("packed", f"{module}.handler", code=code).invoke(21).payload
            assert value == 42
            assert Path(place).name == f"{module}.py"
            if either.inline:
                break  # a module is imported once in a process
    finally:
        for name in (module, "helper"):
            sys.modules.pop(name, None)
        sys.path[:] = [entry for entry in sys.path if not entry.startswith(str(tmp_path))]


def test_what_cannot_be_resolved_is_lambdas_error(either: Runtime, tmp_path: Path) -> None:
    (tmp_path / "present.py").write_text("x = 1\n")
    for handler, kind in (
        ("absent.handler", "Runtime.ImportModuleError"),
        ("present.absent", "Runtime.HandlerNotFound"),
        ("nodot", "Runtime.MalformedHandlerName"),
    ):
        assert either.function("odd", handler, code=tmp_path).invoke().payload["errorType"] == kind
    sys.modules.pop("present", None)
    sys.path[:] = [entry for entry in sys.path if entry != str(tmp_path)]


def test_wrong_arguments_are_refused_by_name(either: Runtime, tmp_path: Path) -> None:
    for memory in (127, 10_241, 0, -1):
        with pytest.raises(ValueError, match="memory is"):
            either.function("f", echo, memory=memory)
    for timeout in (0, 901, -5):
        with pytest.raises(ValueError, match="timeout is"):
            either.function("f", echo, timeout=timeout)
    with pytest.raises(ValueError, match="give code="):
        either.function("f", "module.handler")
    with pytest.raises(FileNotFoundError, match="neither a directory nor a zip"):
        either.function("f", "module.handler", code=tmp_path / "none")
    (tmp_path / "no.zip").write_bytes(b"no zip")
    with pytest.raises(FastlamError):
        either.function("f", "module.handler", code=tmp_path / "no.zip")


def test_lambdas_closures_and_methods_as_handlers(runtime: Runtime) -> None:
    factor = 3

    class Multiplier:
        def handle(self, event: int, context: Any) -> int:
            return event * factor

    assert runtime.function("lambda", lambda event, context: event + factor).invoke(1).payload == 4
    assert runtime.function("method", Multiplier().handle).invoke(5).payload == 15


def test_the_environment_variable_makes_it_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, inline in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("FASTLAM_INLINE", value)
        with Runtime() as runtime:
            assert (runtime.function("who", whoami).invoke().payload["pid"] == os.getpid()) == inline
    monkeypatch.setenv("FASTLAM_INLINE", "1")
    with Runtime(inline=False) as runtime:
        assert runtime.function("who", whoami).invoke().payload["pid"] != os.getpid()


# --- results ------------------------------------------------------------------------------------------


def test_what_a_result_tells(runtime: Runtime) -> None:
    function = runtime.function("speaking", speak, timeout=10)
    cold, warm = function.invoke("first"), function.invoke("second")
    for result, word in ((cold, "first"), (warm, "second")):
        assert result.payload is None
        assert result.raw == b"null"
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", result.request_id)
        assert 0 < result.duration_ms < 10_000
        assert result.billed_duration_ms >= result.duration_ms
        assert result.billed_duration_ms == int(result.billed_duration_ms)
        assert 0 <= result.cpu_ms < 10_000
        assert result.queue_ms >= 0
        assert 5 < result.memory_mb < 1000
        lines = result.log_tail.splitlines()
        assert lines[0] == f"START RequestId: {result.request_id} Version: $LATEST"
        assert f"spoken {word}" in lines
        assert f"END RequestId: {result.request_id}" in lines
        assert lines[-1].startswith(f"REPORT RequestId: {result.request_id}\tDuration: {result.duration_ms:.2f} ms")
    assert cold.request_id != warm.request_id
    assert cold.init_duration_ms is not None
    assert warm.init_duration_ms is None
    assert "Init Duration" in cold.log_tail
    assert "Init Duration" not in warm.log_tail
    assert cold.billed_duration_ms >= cold.init_duration_ms
    assert "second" not in cold.log_tail


@pytest.mark.parametrize(
    ("event", "kind", "words"),
    [
        ("exit", "Runtime.ExitError", "exit status 3"),
        ("sys.exit", "Runtime.ExitError", "exit status 4"),
        ("hang", "Sandbox.Timedout", "Task timed out after 1.00 seconds"),
        ("large", "Function.ResponseSizeTooLarge", "Response payload size exceeded"),
    ],
)
def test_ends_of_environments(runtime: Runtime, event: str, kind: str, words: str) -> None:
    function = runtime.function("deed", deed, timeout=1)
    result = function.invoke(event)
    assert result.error_type == kind
    assert words in result.payload["errorMessage"]
    assert function.invoke("fine").payload == "fine"


# --- many at a time -----------------------------------------------------------------------------------


def test_a_hundred_awaited_at_once(runtime: Runtime) -> None:
    function = runtime.function("echo-async", echo)

    async def main() -> None:
        results = await asyncio.gather(*(function.ainvoke(number) for number in range(100)))
        assert [result.payload for result in results] == list(range(100))
        assert len({result.request_id for result in results}) == 100
        # A quick call may have left others of its hundred environments unused: their first call is still to come.
        later = [(await function.ainvoke(1)).init_duration_ms for _ in range(101)]
        assert None in later

    asyncio.run(main())
    asyncio.run(main())


def test_an_abandoned_await_leaves_the_function_running(runtime: Runtime, tmp_path: Path) -> None:
    gates = [Gate(tmp_path / name) for name in ("arrived", "leave")]
    function = runtime.function("stand", stand, timeout=SECONDS)

    async def main() -> None:
        task = asyncio.create_task(function.ainvoke([gate.path for gate in gates]))
        await asyncio.to_thread(gates[0].open)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    gates[1].open()
    assert function.invoke([]).payload > 0


def test_a_callers_own_timeout(runtime: Runtime, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    function = runtime.function("patience", stand, timeout=SECONDS)
    with pytest.raises(TimeoutError, match=r"has not answered within 0\.05 s"):
        function.invoke([gate.path], timeout=0.05)
    gate.open()
    assert function.invoke([]).payload > 0


def test_map_keeps_order_and_window(runtime: Runtime) -> None:
    function = runtime.function("mapped", echo)
    assert [result.payload for result in function.map(range(300), concurrency=4)] == list(range(300))
    taken: list[int] = []

    def events() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = function.map(events(), concurrency=3)
    assert next(results).payload == 0
    assert len(taken) == 3
    assert sum(1 for _ in results) == 99
    with pytest.raises(ValueError, match="concurrency is 0"):
        list(function.map([1], concurrency=0))


def test_from_many_threads(runtime: Runtime) -> None:
    function = runtime.function("threads", echo)
    with ThreadPoolExecutor(12) as threads:
        results = list(threads.map(function.invoke, range(600)))
    assert [result.payload for result in results] == list(range(600))
    assert len({result.request_id for result in results}) == 600


@pytest.fixture
def open_files() -> Iterator[None]:
    """Environments take some descriptors each: as many as this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:  # three each, and five more until its process is there
        pytest.skip(f"200 environments need more open files than the {hard} allowed here (ulimit -Hn)")
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(soft, 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)), hard)
    )
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_two_hundred_at_once_have_two_hundred_environments(open_files: None, tmp_path: Path) -> None:
    """All of them are running at the same moment: none waits behind another."""
    arrived, gate = tmp_path / "arrived", tmp_path / "gate"
    os.mkfifo(arrived)
    os.mkfifo(gate)
    reader = os.open(arrived, os.O_RDWR)
    with Runtime() as runtime:
        function = runtime.function("crowd", arrive_and_stand, timeout=SECONDS)

        async def main() -> list[InvokeResult]:
            calls = [asyncio.create_task(function.ainvoke([str(arrived), str(gate)])) for _ in range(200)]
            seen = 0
            while seen < 200:
                seen += len(await asyncio.to_thread(os.read, reader, 200))
            writer = await asyncio.to_thread(os.open, gate, os.O_WRONLY)
            try:
                return await asyncio.gather(*calls)
            finally:
                os.close(writer)

        results = asyncio.run(main())
        os.close(reader)
        assert len({result.payload for result in results}) == 200
        assert all(result.init_duration_ms is not None for result in results)


def test_with_fifty_reserved_exactly_a_hundred_and_fifty_are_throttled(open_files: None, tmp_path: Path) -> None:
    gates = [Gate(tmp_path / f"gate{number}") for number in range(50)]
    with Runtime() as runtime:
        function = runtime.function("few", stand, timeout=SECONDS, reserved=50)
        other = runtime.function("other", echo)

        async def main() -> list[InvokeResult | BaseException]:
            ran = [asyncio.create_task(function.ainvoke([gate.path])) for gate in gates]
            await asyncio.sleep(0)  # they are submitted, in this order
            more = await asyncio.gather(*(function.ainvoke([]) for _ in range(150)), return_exceptions=True)
            assert (await other.ainvoke(1)).payload == 1
            for gate in gates:
                await asyncio.to_thread(gate.open)
            assert all(result.payload > 0 for result in await asyncio.gather(*ran))
            return more

        refused = asyncio.run(main())
        assert [type(one) for one in refused] == [Throttled] * 150
        assert {one.reason for one in refused} == {"ReservedFunctionConcurrentInvocationLimitExceeded"}  # type: ignore[union-attr]
        assert function.invoke([]).payload > 0, "what was held has been given back"


def test_the_concurrency_of_the_account(tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    with Runtime(concurrency=1) as runtime:
        first, second = runtime.function("first", stand, timeout=SECONDS), runtime.function("second", echo)
        with ThreadPoolExecutor(1) as threads:
            held = threads.submit(first.invoke, [gate.path])
            while runtime._pool.running == 0:
                pass
            with pytest.raises(Throttled, match="ConcurrentInvocationLimitExceeded") as caught:
                second.invoke(1)
            assert caught.value.reason == "ConcurrentInvocationLimitExceeded"
            gate.open()
            held.result()
        assert second.invoke(1).payload == 1
        assert runtime.function("none", echo, reserved=0)
        with pytest.raises(Throttled, match="ReservedFunctionConcurrentInvocationLimitExceeded"):
            runtime.function("none", echo, reserved=0).invoke()


# --- INIT ---------------------------------------------------------------------------------------------

FAILS_ONCE = """
import os, sys
path = {path!r}
first = not os.path.exists(path)
open(path, "a").close()
if first:
    raise RuntimeError("the first INIT fails")
if os.path.exists(path + ".stall"):
    os.unlink(path + ".stall")
    for name in (".arrived", ".gate"):
        with open(path + name, "rb") as gate:
            gate.read()

def handler(event, context):
    return event
"""


def test_an_init_that_fails_once_is_repeated_within_the_call(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(FAILS_ONCE.format(path=str(tmp_path / "mark")))
    result = runtime.function("once", "app.handler", code=tmp_path).invoke(7)
    assert result.payload == 7
    assert "the first INIT fails" in result.log_tail


def test_nobody_waits_behind_the_repeated_init_of_another_call(runtime: Runtime, tmp_path: Path) -> None:
    """While limits allow, each call has an environment of its own coming."""
    mark = tmp_path / "mark"
    (tmp_path / "app.py").write_text(FAILS_ONCE.format(path=str(mark)))
    Path(f"{mark}.stall").touch()
    arrived, gate = Gate(Path(f"{mark}.arrived")), Gate(Path(f"{mark}.gate"))
    function = runtime.function("stalling", "app.handler", code=tmp_path, timeout=SECONDS)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(function.invoke, 1)
        arrived.open()
        try:
            assert function.invoke(2, timeout=20).payload == 2
            assert not first.done()
        finally:
            gate.open()
        assert first.result().payload == 1


# --- redeclaring, closing -----------------------------------------------------------------------------


def test_declaring_again_replaces_the_function(runtime: Runtime, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "gate")
    old = runtime.function("changing", stand, timeout=SECONDS)
    old.invoke([])
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(old.invoke, [gate.path])
        while not any(row["state"] == "busy" for row in rows(runtime, "changing")):
            pass
        new = runtime.function("changing", echo)
        assert new.invoke(5).payload == 5
        gate.open()
        pid = held.result().payload
    while pid in [row["pid"] for row in rows(runtime, "changing")]:
        new.invoke(1)


def rows(runtime: Runtime, name: str) -> list[dict[str, Any]]:
    return [row for row in runtime._engine.dispatcher.snapshot() if row["name"].startswith(f"{name}:")]


def test_after_closing_nothing_can_be_used_and_nothing_is_left(tmp_path: Path) -> None:
    with Executor(1):  # whatever is opened once and for all is open from now on
        pass
    before = len(os.listdir("/proc/self/fd"))
    runtime = Runtime()
    function = runtime.function("echo", "app.handler", code=zipped("def handler(event, context):\n    return event\n"))
    assert function.invoke(1).payload == 1
    scratch = runtime._scratch.path
    assert scratch.is_dir()
    runtime.close()
    runtime.close()
    for use in (
        lambda: function.invoke(1),
        lambda: list(function.map([1])),
        lambda: asyncio.run(function.ainvoke(1)),
        lambda: runtime.function("more", echo),
    ):
        with pytest.raises(FastlamError, match="has been closed"):
            use()
    assert not scratch.exists()
    assert len(os.listdir("/proc/self/fd")) == before


def test_closing_while_calls_are_in_flight(tmp_path: Path) -> None:
    """They end, with an error: nobody waits for ever."""
    gates = [Gate(tmp_path / f"gate{number}") for number in range(2)]
    runtime = Runtime()
    function = runtime.function("held", stand, timeout=SECONDS)

    async def main() -> list[InvokeResult | BaseException]:
        calls = [asyncio.create_task(function.ainvoke([gate.path, gate.path])) for gate in gates]
        for gate in gates:
            await asyncio.to_thread(gate.open)
        calls += [asyncio.create_task(function.ainvoke([gates[0].path])) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.to_thread(runtime.close)
        return await asyncio.gather(*calls, return_exceptions=True)

    for outcome in asyncio.run(main()):
        assert isinstance(outcome, FastlamError) or outcome.error_type == "Runtime.ExitError", outcome


def test_a_runtime_that_is_let_go_is_closed() -> None:
    runtime = Runtime()
    assert runtime.function("echo", echo).invoke(1).payload == 1
    scratch, gone = runtime._scratch.path, weakref.ref(runtime)
    del runtime
    gc.collect()
    assert gone() is None
    assert not scratch.exists()


PROGRAM = """
import os, sys
from fastlam import Runtime

def handler(event, context):
    return event

if __name__ == "__main__":
    runtime = Runtime()
    zipped = runtime.function("zipped", "app.handler", code={archive!r})
    assert runtime.function("own", handler).invoke(1).payload == 1
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            zipped.invoke(1)
        except Exception as error:
            print(type(error).__name__, str(os.getppid()) in str(error))
        with Runtime() as own:
            print(own.function("own", handler).invoke(2).payload)
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(zipped.invoke(3).payload)
    print(runtime._scratch.path.is_dir())
"""


def test_a_program_that_forks_and_never_closes(tmp_path: Path) -> None:
    """The child's end must not take the parent's code away; the end of the program closes what is open."""
    (tmp_path / "t").mkdir()
    archive = tmp_path / "code.zip"
    archive.write_bytes(zipped("def handler(event, context):\n    return event\n"))
    (tmp_path / "program.py").write_text(PROGRAM.format(archive=str(archive)))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(fastlam.__file__).parents[1]),
            "TMPDIR": str(tmp_path / "t"),
            "XDG_RUNTIME_DIR": "",
            "PYTHONWARNINGS": "ignore::DeprecationWarning",  # from Python 3.12 on of a fork beside our threads
        },
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["FastlamError True", "2", "3", "True"]
    assert list((tmp_path / "t").iterdir()) == []


def test_too_few_open_files(tmp_path: Path) -> None:
    """Calls for which no environment can be made fail in a clear sentence; the others, and later ones, do not."""
    (tmp_path / "program.py").write_text(
        "import asyncio, json, resource, threading\n"
        "from fastlam import Runtime\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))\n"
        "def handler(event, context):\n    threading.Event().wait(0.2)\n    return event\n"
        "async def main(function):\n"
        "    return await asyncio.gather(*(function.ainvoke(n) for n in range(100)), return_exceptions=True)\n"
        "if __name__ == '__main__':\n"
        "    with Runtime() as runtime:\n"
        "        function = runtime.function('f', handler)\n"
        "        for turn in range(3):\n"
        "            results = asyncio.run(main(function))\n"
        "            print(json.dumps([str(r) if isinstance(r, Exception) else r.payload for r in results]))\n"
        "        print(function.invoke('fine').payload)\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        env={**os.environ, "PYTHONPATH": str(Path(fastlam.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *turns, last = done.stdout.splitlines()
    assert last == "fine"
    for line in turns:
        answers = json.loads(line)
        ran = [answer for answer in answers if isinstance(answer, int)]
        assert len(ran) > 3
        assert all(answer == number or "open files" in str(answer) for number, answer in enumerate(answers)), answers


def test_a_program_may_be_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it runs is no package of its functions: nothing there is looked through."""
    monkeypatch.chdir("/")
    with Runtime() as runtime:
        assert runtime.function("anywhere", where).invoke({}).payload == "/"


def where(event: object, context: object) -> str:
    return os.getcwd()
