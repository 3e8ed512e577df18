"""Hello over HTTP: wrk against the daemon, against servers that run the same handler, and against one that runs
nothing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bench.daemon import (
    FUNCTIONS,
    START_SECONDS,
    Server,
    bare_server,
    deploy,
    end,
    fastlam_daemon,
    invoke_path,
    lambda_client,
    server,
)
from bench.measure import Metrics, Side, Topic, p50_us

CONNECTIONS: Final = 32
OURS: Final = "fastlam daemon"
BARE: Final = "bare uvloop + httptools, runs nothing"
RUNTIME_API: Final = "Runtime API + 2 awslambdaric"
MINISTACK: Final = "ministack"
DOOR: Final = "fastlam's HTTP door alone, runs nothing"
RATE: Final = "requests/s"
ALONE: Final = "p50, one connection"
SCRIPT: Final = 'wrk.method = "POST"\nwrk.body = "{}"\n'
SCALE_MS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
INSTALL: Final = 'pip install "fastlam[bench]"'


def wrk(url: str, script: Path, seconds: int, connections: int = CONNECTIONS) -> Metrics:
    """One thread: the servers compared are single-threaded, and wrk runs on the same CPUs."""
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "--latency", "-s", str(script), url]
    said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    return parse_wrk(said)


def parse_wrk(said: str) -> Metrics:
    """Requests a second and percentiles in ms; an answer that is not 2xx, or a broken connection, is an error."""
    for complaint in ("Non-2xx", "Socket errors"):
        found = re.search(rf"{complaint}.*", said)
        if found is not None:
            raise RuntimeError(f"wrk: {found[0]}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if rate is None or float(rate[1]) == 0:
        raise RuntimeError(f"wrk had no answer: {said}")
    metrics = {RATE: float(rate[1])}
    for share in ("50", "99"):
        found = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s|m)\s*$", said, re.MULTILINE)
        assert found is not None, said
        metrics[f"p{share}"] = float(found[1]) * SCALE_MS[found[2]]
    return metrics


@contextlib.contextmanager
def runtime_api_server() -> Iterator[Server]:
    program = Path(__file__).with_name("runtime_api_server.py")
    with server([sys.executable, str(program), str(FUNCTIONS / "hello"), "app.handler", "2"], r"^(\d+)$") as found:
        yield found


def http_door() -> contextlib.AbstractContextManager[Server]:
    return server([sys.executable, str(Path(__file__).with_name("http_door.py"))], r"^(\d+)$")


@contextlib.contextmanager
def ministack() -> Iterator[Server]:
    """The emulator with its Lambda alone, on a free port, with a directory of its own."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ministack-") as directory:
        environment = {
            "GATEWAY_PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            "SERVICES": "lambda",
            "LOG_LEVEL": "ERROR",
            "TMPDIR": directory,
            "HOME": directory,
        }
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ministack"],
            env=os.environ | environment,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            _await_port(process, port)
            yield Server(process, port)
        finally:
            end(process)


def _await_port(process: subprocess.Popen[Any], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"ministack did not come up on port {port}") from None
            time.sleep(0.05)


def run(topic: Topic) -> None:
    if shutil.which("wrk") is None:
        topic.missing(
            "wrk", "the package wrk of the distribution (Debian: apt-get install wrk); without it no topic http"
        )
        return
    seconds = topic.scale(3, 1)
    with contextlib.ExitStack() as stack:
        script = Path(tempfile.gettempdir()) / "post.lua"
        script.write_text(SCRIPT)
        urls: dict[str, str] = {}
        daemon = stack.enter_context(fastlam_daemon())
        deploy(daemon.url, "hello")
        urls[OURS] = daemon.url
        urls[BARE] = stack.enter_context(bare_server()).url
        urls[DOOR] = stack.enter_context(http_door()).url
        if importlib.util.find_spec("awslambdaric") is None:
            topic.missing("awslambdaric", INSTALL)
        else:
            urls[RUNTIME_API] = stack.enter_context(runtime_api_server()).url
        if importlib.util.find_spec("ministack") is None:
            topic.missing("ministack", INSTALL)
        else:
            urls[MINISTACK] = stack.enter_context(ministack()).url
            deploy(urls[MINISTACK], "hello")
        sides: dict[str, Side] = {}
        for name, url in urls.items():
            target = url + invoke_path("hello")
            wrk(target, script, 1)
            sides[name] = lambda target=target: wrk(target, script, seconds)  # type: ignore[misc]
        topic.in_turns(sides, {RATE: "/s", "p50": "ms", "p99": "ms"})
        alone: dict[str, Side] = {}
        for name in (OURS, BARE):
            target = urls[name] + invoke_path("hello")
            alone[name] = lambda target=target: {ALONE: wrk(target, script, seconds, 1)["p50"]}  # type: ignore[misc]
        topic.in_turns(alone, {ALONE: "ms"})
        count = len(daemon.environments("hello"))
    topic.ratio("requests/s: ours / bare server", (OURS, RATE), (BARE, RATE), at_least=0.45)
    topic.ratio("p50 with one connection: ours / bare server", (OURS, ALONE), (BARE, ALONE), at_most=2.0)
    topic.ratio("requests/s: the door alone / bare server", (DOOR, RATE), (BARE, RATE), at_least=0.9)
    for peer in (RUNTIME_API, MINISTACK):
        if topic.has(peer):
            topic.ratio(f"requests/s: ours / {peer}", (OURS, RATE), (peer, RATE))
    topic.note(f"wrk -t1 -c{CONNECTIONS} -d{seconds}s, and -c1; the daemon had {count} environments at the end.")


def run_boto3(topic: Topic) -> None:
    """The same client, the same call: what the SDK costs by itself is the bare server's figure."""
    count = topic.scale(400, 60)
    metric = "boto3 invoke p50"
    with fastlam_daemon() as daemon, bare_server() as bare:
        deploy(daemon.url, "hello")
        sides: dict[str, Side] = {}
        for name, url in ((OURS, daemon.url), (BARE, bare.url)):
            client = lambda_client(url)

            def invoke(client: Any = client) -> None:
                client.invoke(FunctionName="hello", Payload=b"{}")["Payload"].read()

            for _ in range(20):
                invoke()
            sides[name] = lambda invoke=invoke: {metric: p50_us(invoke, count)}  # type: ignore[misc]
        topic.in_turns(sides, {metric: "µs"}, topic.rounds * topic.scale(3, 1))
    topic.ratio("boto3 invoke p50: ours / bare server", (OURS, metric), (BARE, metric), at_most=1.3)
    topic.note(f"{count} calls a round, one after the other.")
