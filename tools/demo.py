"""What `make demo` runs: a daemon, the example functions, both doors, ten seconds of load, the numbers, a clean stop.

    python tools/demo.py [--seconds 10] [--connections 8]

The daemon is ephemeral, on a free port, with a temporary directory of its own; nothing is left when the demo ends, also
by Ctrl-C. Exit status 1 and one sentence on stderr when anything fails.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import re
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
import zipfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console

    from fastlam.cli.child import Server

EXAMPLES: Final = Path(__file__).resolve().parents[1] / "docs" / "examples"
FUNCTIONS: Final = ("hello", "s3_records", "dynamodb_stream", "word_count", "cpu")
ACCOUNT: Final = "000000000000"
MEMORY_MB: Final = {"cpu": 1769}  # one whole CPU in Lambda; the others get the default
MEMORY_DEFAULT_MB: Final = 128
START_SECONDS: Final = 30.0
EMBEDDED_CALLS: Final = 3000
EXECUTOR_TASKS: Final = 5000
PLAIN_WIDTH: Final = 120  # columns where there is no terminal
REPORTS_READ_MAX: Final = 10_000
PERCENTILES: Final = ((50.0, "p50"), (90.0, "p90"), (99.0, "p99"), (99.9, "p99.9"))


class DemoFailedError(Exception):
    """Ends the demo with one sentence."""


# ---- the daemon --------------------------------------------------------------------------------------


@contextmanager
def running_daemon(directory: Path) -> Iterator[Server]:
    """An ephemeral daemon, stopped on the way out. Its process group is its own: Ctrl-C reaches the demo alone."""
    from fastlam.cli import child

    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FASTLAM_"))}
    environment |= {"TMPDIR": str(directory), "XDG_RUNTIME_DIR": str(directory)}
    with child.daemon(environment=environment, process_group=0) as daemon:
        yield daemon
    if daemon.process.returncode != 0:
        raise DemoFailedError(f"The daemon ended with status {daemon.process.returncode} instead of 0.")


def lambda_client(daemon: Server) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "lambda",
        endpoint_url=daemon.url,
        region_name="us-east-1",
        aws_access_key_id=ACCOUNT,
        aws_secret_access_key="none-is-checked",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=START_SECONDS),
    )


def deploy(client: Any, name: str) -> None:
    """Creates the function from its directory and returns when it is Active."""
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        archive.write(EXAMPLES / name / "app.py", "app.py")
    client.create_function(
        FunctionName=name,
        Runtime=f"python{sys.version_info.major}.{sys.version_info.minor}",
        Role=f"arn:aws:iam::{ACCOUNT}:role/demo",
        Handler="app.handler",
        Code={"ZipFile": package.getvalue()},
        Timeout=30,
        MemorySize=MEMORY_MB.get(name, MEMORY_DEFAULT_MB),
    )
    deadline = time.monotonic() + START_SECONDS
    while client.get_function_configuration(FunctionName=name)["State"] != "Active":
        if time.monotonic() > deadline:
            raise DemoFailedError(f"{name} did not become Active.")
        time.sleep(0.01)


def event_of(name: str) -> bytes:
    """The example's event, without the white space."""
    return json.dumps(json.loads((EXAMPLES / name / "event.json").read_text("utf-8"))).encode()


# ---- load --------------------------------------------------------------------------------------------


@dataclass
class Load:
    """A closed loop: each connection sends its next request when the answer to the last one has come."""

    port: int
    request: bytes
    connections: int
    latencies_ns: array[int] = field(default_factory=lambda: array("Q"))
    errors: int = 0
    seconds: float = 0.0

    def run(self, seconds: float, on_progress: Callable[[float, int], None]) -> None:
        """Runs for so long; calls back about ten times a second with the seconds gone and the answers so far."""
        with ExitStack() as stack:
            epoll = stack.enter_context(select.epoll())
            peers: dict[int, socket.socket] = {}
            for _ in range(self.connections):
                peer = stack.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=START_SECONDS))
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peers[peer.fileno()] = peer
                epoll.register(peer, select.EPOLLIN)
            self._drive(epoll, peers, seconds, on_progress)

    def _drive(
        self,
        epoll: select.epoll,
        peers: dict[int, socket.socket],
        seconds: float,
        on_progress: Callable[[float, int], None],
    ) -> None:
        clock, poll, request, add = time.perf_counter_ns, epoll.poll, self.request, self.latencies_ns.append
        begun = clock()
        end, next_progress = begun + int(seconds * 1e9), begun
        sent = dict.fromkeys(peers, 0)
        partial = dict.fromkeys(peers, b"")
        for number, peer in peers.items():
            sent[number] = clock()
            peer.sendall(request)
        while sent:
            ready = poll(START_SECONDS)
            if not ready:
                raise DemoFailedError(f"No answer came for {START_SECONDS:.0f} s.")
            for number, _ in ready:
                data = peers[number].recv(65536)
                now = clock()
                if not data:
                    raise DemoFailedError("The daemon closed a connection in the middle of the load.")
                if partial[number] or not _complete(data):
                    data = partial[number] = partial[number] + data
                    if not _complete(data):
                        continue
                    partial[number] = b""
                add(now - sent[number])
                if not data.startswith(b"HTTP/1.1 200 ") or b"X-Amz-Function-Error" in data:
                    self.errors += 1
                if now < end:
                    sent[number] = clock()
                    peers[number].sendall(request)
                else:
                    del sent[number]
            if now >= next_progress:
                on_progress((now - begun) / 1e9, len(self.latencies_ns))
                next_progress = now + 100_000_000
        self.seconds = (clock() - begun) / 1e9
        on_progress(self.seconds, len(self.latencies_ns))

    def percentile_ms(self, share: float) -> float:
        """Of the latencies, which have to be sorted by then."""
        return self.latencies_ns[min(len(self.latencies_ns) - 1, int(len(self.latencies_ns) * share / 100))] / 1e6


def _complete(data: bytes) -> bool:
    """Whether a whole answer is there."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return False
    start = data.lower().find(b"content-length:", 0, head)
    if start < 0:
        raise DemoFailedError("An answer came without Content-Length.")
    return len(data) >= head + 4 + int(data[start + 15 : data.index(b"\r", start)])


def invoke_request(daemon: Server, name: str) -> bytes:
    """An invoke as it goes over the wire. It needs no signature: the daemon does not check any."""
    body = event_of(name)
    return (
        b"POST /2015-03-31/functions/%b/invocations HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: %d\r\n\r\n%b"
        % (name.encode(), daemon.port, len(body), body)
    )


def billed_ms_average(daemon: Server, name: str) -> tuple[float, int]:
    """Billed Duration of an invocation, over the REPORT lines that the log still has, and how many those are."""
    total = count = after = 0
    while count < REPORTS_READ_MAX:
        answer = daemon.get(f"/_fastlam/logs?function={name}&after={after}")
        if not answer["events"]:
            break
        for event in answer["events"]:
            found = re.search(r"\tBilled Duration: (\d+) ms", event["message"])
            if found is not None:
                total += int(found[1])
                count += 1
        after = answer["next"]
    return total / max(1, count), count


# ---- what is shown -----------------------------------------------------------------------------------


def double(number: int) -> int:
    """The executor's task."""
    return 2 * number


class Demo:
    """The parts of the demo in their order; `console` is rich's."""

    def __init__(self, console: Console, daemon: Server, seconds: float, connections: int) -> None:
        self.console = console
        self.daemon = daemon
        self.seconds = seconds
        self.connections = connections

    def heading(self, text: str) -> None:
        self.console.print()
        self.console.print(f"[bold cyan]{text}[/]")

    def run(self) -> None:
        client = lambda_client(self.daemon)
        self.deploy_all(client)
        self.invoke_all(client)
        self.embedded()
        self.load()

    def deploy_all(self, client: Any) -> None:
        self.heading("Deploy, with boto3")
        for name in FUNCTIONS:
            started = time.perf_counter()
            deploy(client, name)
            self.console.print(f"  {name:16} [dim]active after {(time.perf_counter() - started) * 1e3:.0f} ms[/]")

    def invoke_all(self, client: Any) -> None:
        self.heading("Invoke each, with boto3")
        for name in FUNCTIONS:
            answer = client.invoke(FunctionName=name, Payload=event_of(name), LogType="Tail")
            payload = answer["Payload"].read().decode()
            if "FunctionError" in answer:
                raise DemoFailedError(f"{name} failed: {payload}")
            report = base64.b64decode(answer["LogResult"]).decode().rstrip().rpartition("\n")[2]
            self.say(f"  {name:16} ", _shortened(payload, self.console.width - 19))
            self.say(f"  {'':16} ", _report(report), "dim")

    def say(self, start: str, text: str, style: str = "") -> None:
        """Plain text, whatever brackets are in it."""
        self.console.print(start, end="", highlight=False)
        self.console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def embedded(self) -> None:
        """The other door: the same functions inside this program, without HTTP."""
        from fastlam import Executor, Runtime

        self.heading("Embedded: fastlam.Runtime and fastlam.Executor, inside this program")
        event = json.loads(event_of("hello"))
        with Runtime() as runtime:
            hello = runtime.function("hello", handler="app.handler", code=EXAMPLES / "hello", memory=MEMORY_DEFAULT_MB)
            first = hello.invoke(event).raise_for_error()
            times = array("Q")
            for _ in range(EMBEDDED_CALLS):
                started = time.perf_counter_ns()
                hello.invoke(event)
                times.append(time.perf_counter_ns() - started)
        self.say("  hello.invoke()   ", _shortened(first.raw.decode(), self.console.width - 19))
        middle_us = sorted(times)[len(times) // 2] / 1e3
        init_ms = first.init_duration_ms or 0.0
        self.say("  ", f"{'':16} p50 {middle_us:.0f} µs a call, warm; INIT took {init_ms:.1f} ms", "dim")
        with Executor() as pool:
            pool.submit(double, 0).result()
            started = time.perf_counter_ns()
            total = sum(pool.map(double, range(EXECUTOR_TASKS)))
            each_us = (time.perf_counter_ns() - started) / EXECUTOR_TASKS / 1e3
        if total != EXECUTOR_TASKS * (EXECUTOR_TASKS - 1):
            raise DemoFailedError("The executor's results are wrong.")
        self.say("  pool.map()       ", f"{EXECUTOR_TASKS:,} calls in worker processes, sum {total:,}")
        self.say("  ", f"{'':16} {each_us:.1f} µs a call, one at a time (chunksize=1)", "dim")

    def load(self) -> None:
        self.heading(f"Load: hello over HTTP, {self.connections} connections, {self.seconds:g} seconds")
        before = self.daemon.get("/_fastlam/health")["statistics"]["dispatcher"]
        load = Load(self.daemon.port, invoke_request(self.daemon, "hello"), self.connections)
        with self.progress() as on_progress:
            load.run(self.seconds, on_progress)
        after = self.daemon.get("/_fastlam/health")["statistics"]["dispatcher"]
        if load.errors:
            raise DemoFailedError(f"{load.errors:,} of {len(load.latencies_ns):,} answers were errors.")
        answered = after["completed"] - before["completed"]
        if answered != len(load.latencies_ns):
            raise DemoFailedError(f"{len(load.latencies_ns):,} answers came, but {answered:,} invocations were run.")
        cold = after["environments_started"] - before["environments_started"]
        self.show_results(load, cold)

    @contextmanager
    def progress(self) -> Iterator[Callable[[float, int], None]]:
        if not self.console.is_terminal:
            shown = [0.0]

            def line(gone: float, answers: int) -> None:
                if gone >= shown[0] + 2.5 or gone >= self.seconds:
                    shown[0] = gone
                    self.console.print(f"  {gone:5.1f} s  {answers:>9,} answers", highlight=False)

            yield line
            return
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (
            TextColumn("  {task.fields[gone]:4.1f} s"),
            BarColumn(bar_width=40),
            TextColumn("{task.fields[answers]:,} answers, {task.fields[rate]:,.0f}/s"),
        )
        # Drawn by the loop that makes the load: a thread of its own would take part in what is measured.
        with Progress(*columns, console=self.console, auto_refresh=False) as bar:
            task = bar.add_task("load", total=self.seconds, gone=0.0, answers=0, rate=0.0)

            def draw(gone: float, answers: int) -> None:
                rate = answers / gone if gone else 0.0
                bar.update(task, completed=min(gone, self.seconds), gone=gone, answers=answers, rate=rate)
                bar.refresh()

            yield draw

    def show_results(self, load: Load, cold_starts: int) -> None:
        from rich.table import Table

        from fastlam.billing.duration import price_usd

        requests = len(load.latencies_ns)
        load.latencies_ns = array("Q", sorted(load.latencies_ns))
        average_ms, reports = billed_ms_average(self.daemon, "hello")
        billed_ms = round(requests * average_ms)
        price, price_million = (
            price_usd(count, round(count * average_ms), MEMORY_DEFAULT_MB) for count in (requests, 1_000_000)
        )
        table = Table(box=None, show_header=False, padding=(0, 2))
        table.add_column(style="dim")
        table.add_column(justify="right", no_wrap=True)
        table.add_column(style="dim")
        table.add_row("requests", f"{requests:,}", "no errors; the daemon counts as many")
        table.add_row("requests a second", f"[bold green]{requests / load.seconds:,.0f}[/]", "")
        for share, name in PERCENTILES:
            table.add_row(f"latency {name}", f"{load.percentile_ms(share):.2f} ms", "")
        table.add_row("latency max", f"{load.latencies_ns[-1] / 1e6:.2f} ms", "")
        table.add_row("cold starts", f"{cold_starts}", "environments started during the load")
        table.add_row(
            "Lambda bills",
            f"{billed_ms:,} ms",
            f"at {MEMORY_DEFAULT_MB} MB, {average_ms:.2f} ms a call*",
        )
        table.add_row("and charges", f"[bold]{price:.4f} USD[/]", "us-east-1, x86, without the free tier")
        table.add_row("", f"{price_million:.2f} USD", "for a million such calls")
        self.console.print(table)
        self.console.print(f"[dim]  * on average, by the last {reports:,} REPORT lines[/]", highlight=False)


def _shortened(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(20, width) - 1]}…"


def _report(line: str) -> str:
    """A REPORT line without its request id, its tabs as spaces."""
    return "REPORT  " + "  ".join(line.strip().split("\t")[1:])


# ---- the program -------------------------------------------------------------------------------------


def demo(seconds: float, connections: int) -> None:
    try:
        from rich.console import Console

        from fastlam.version import VERSION
    except ImportError as error:
        raise DemoFailedError(f"fastlam is not installed for {sys.executable} ({error}): run make demo.") from error
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    console.print(f"[bold]fastlam {VERSION}[/]: AWS Lambda functions on this machine, without Docker", highlight=False)
    directory = Path(tempfile.mkdtemp(prefix="fastlam-demo-"))
    try:
        started = time.perf_counter()
        with running_daemon(directory) as daemon:
            took_ms = (time.perf_counter() - started) * 1e3
            console.print(f"[dim]daemon on {daemon.url}, ready after {took_ms:.0f} ms[/]", highlight=False)
            Demo(console, daemon, seconds, connections).run()
            console.print()
        left = sorted(path.name for path in directory.iterdir())
        if left:
            raise DemoFailedError(f"The daemon left files behind: {', '.join(left)}.")
        console.print("[bold green]Stopped cleanly.[/] Nothing is left running, nothing is left on disk.")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def leave(number: int, _: object) -> None:
    """SIGTERM and SIGHUP: the way out is the same as Ctrl-C's."""
    raise SystemExit(128 + number)


def main() -> int:
    parser = argparse.ArgumentParser(description="Show fastlam at work.")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the load [10]")
    parser.add_argument("--connections", type=int, default=8, help="connections of the load [8]")
    options = parser.parse_args()
    if options.seconds <= 0 or not 1 <= options.connections <= 1000:
        parser.error("give more than 0 seconds and 1 to 1000 connections")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    try:
        demo(options.seconds, options.connections)
    except KeyboardInterrupt:
        print("\nInterrupted; everything has been stopped.", file=sys.stderr)
        return 130
    except DemoFailedError as error:
        print(error, file=sys.stderr)
        return 1
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told in one sentence
        print(f"The demo failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
