"""`fastlam serve`: the daemon, in the foreground or detached."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Final

import click

from fastlam.cli.duration import DURATION
from fastlam.cli.session import CommandError, NoDaemon
from fastlam.config import (
    CLOCKS,
    CPU_MODES,
    DEFAULT_ACCOUNT,
    DEFAULT_HOST,
    DEFAULT_PORT,
    DEFAULT_REGION,
    DISK_RATE_MB,
    ISOLATION_LEVELS,
    LANE_KINDS,
    NETWORK_RATE_MB,
    NETWORKS,
    RATES,
    DaemonConfig,
    default_data_dir,
)
from fastlam.errors import FastlamError, native_module_missing
from fastlam.limits import (
    ACCOUNT_CONCURRENCY,
    ENVIRONMENTS_MAX,
    EVENT_RETRY_SECONDS,
    KEEPALIVE_SECONDS,
    RECYCLE_AFTER_SECONDS,
)

START_SECONDS: Final = 60  # a detached daemon that has not answered by then is stopped again
POLL_SECONDS: Final = 0.02


def _choice(name: str, values: Sequence[str], **more: Any) -> Callable[[Any], Any]:
    """An option with one of the values, the first of them unless told otherwise."""
    return click.option(name, type=click.Choice(values), default=values[0], show_default=True, **more)


@click.command("serve")
@click.option("--host", default=DEFAULT_HOST, show_default=True, help="Address to listen on.")
@click.option("--port", default=DEFAULT_PORT, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Where functions are kept [default: $FASTLAM_DATA_DIR or ~/.local/share/fastlam].",
)
@click.option("--ephemeral", is_flag=True, help="Keep nothing: functions are gone when the daemon stops.")
@click.option("--detach", is_flag=True, help="Start in the background and return when the daemon answers.")
@click.option("--account", default=DEFAULT_ACCOUNT, show_default=True, help="Account id of callers that name none.")
@click.option("--region", default=DEFAULT_REGION, show_default=True, help="Region of callers that name none.")
@click.option("--aws-endpoint", metavar="URL", help="Where calls of other AWS services go, e.g. http://127.0.0.1:5000.")
@click.option(
    "--concurrency",
    default=ACCOUNT_CONCURRENCY,
    show_default=True,
    help="Invocations that may run at a time; more are throttled, as in Lambda.",
)
@click.option(
    "--environments-max",
    default=ENVIRONMENTS_MAX,
    show_default=True,
    help="Execution environments this machine holds at a time: idle ones give way, or invocations wait.",
)
@_choice(
    "--rates",
    RATES,
    help="'lambda' also throttles what comes too fast: over 10 requests a second for each unit of concurrency, over"
    " 1000 new environments of a function at once and 100 more a second, over 15 API calls a second (100 GetFunction).",
)
@click.option(
    "--keepalive",
    "keepalive_seconds",
    metavar="SECONDS",
    type=float,
    default=KEEPALIVE_SECONDS,
    show_default=True,
    help="After this time an unused environment is stopped; 0 makes every invocation a cold start.",
)
@click.option("--idle-seconds", "idle_seconds", type=float, hidden=True)  # the former name of --keepalive
@click.option(
    "--recycle-after",
    "recycle_after_seconds",
    metavar="SECONDS",
    type=float,
    default=RECYCLE_AFTER_SECONDS,
    show_default=True,
    help="At this age an environment is stopped as soon as it has no invocation; 0 for never.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    metavar="ORIGIN",
    multiple=True,
    help="Pages that may call from a browser, beside those of localhost, e.g. https://app.example; * allows all.",
)
@_choice(
    "--lane",
    LANE_KINDS,
    envvar="FASTLAM_LANE",
    help="How environments are fed: by rings in shared memory, or by ZeroMQ messages of fastlam's own or of libzmq's.",
)
@_choice(
    "--isolation",
    ISOLATION_LEVELS,
    envvar="FASTLAM_ISOLATION",
    help="Walls around environments: all of them or no start (full), all that this machine permits (auto), or resource"
    " limits only (process); fastlam doctor tells what is permitted.",
)
@_choice(
    "--network",
    NETWORKS,
    envvar="FASTLAM_NETWORK",
    help="What functions reach: what this machine reaches (host), the daemon and servers of their own (loopback), or"
    " the daemon only (none). Functions with a VpcConfig share a network of their own in any case.",
)
@_choice(
    "--cpu",
    CPU_MODES,
    envvar="FASTLAM_CPU",
    help="Functions take what CPU time is free, or the share that Lambda gives for their memory (1769 MB: one CPU).",
)
@click.option(
    "--disk-rate",
    "disk_rate_mb",
    default=DISK_RATE_MB,
    show_default=True,
    type=int,
    metavar="MB",
    envvar="FASTLAM_DISK_RATE",
    help="With --cpu lambda, what a function of 1769 MB reads from a disk in a second, and writes to it; others have"
    " their share by their memory. 0: no bound.",
)
@click.option(
    "--network-rate",
    "network_rate_mb",
    default=NETWORK_RATE_MB,
    show_default=True,
    type=int,
    metavar="MB",
    envvar="FASTLAM_NETWORK_RATE",
    help="With --cpu lambda, what goes over the network of a function of 1769 MB in a second, both ways together, where"
    " it has one of its own (--network loopback or none); others have their share by their memory. 0: no bound.",
)
@click.option(
    "--criu",
    metavar="PATH",
    envvar="FASTLAM_CRIU",
    help="The criu that takes snapshots (SnapStart) of what has threads, which a fork would lose; '' for none."
    "  [default: criu on the PATH, if it is there and this is root's daemon]",
)
@click.option(
    "--freeze",
    is_flag=True,
    envvar="FASTLAM_FREEZE",
    help="Environments stand still between invocations, with all their threads and children, as in Lambda.",
)
@_choice(
    "--clock",
    CLOCKS,
    help="Which clock retries, the age of events and schedules go by: this machine's, or one that stands still until"
    " 'fastlam clock advance' (virtual), for tests.",
)
@click.option(
    "--retry-delay",
    "retry_seconds",
    metavar="DURATION",
    type=DURATION,
    default=f"{EVENT_RETRY_SECONDS:g}s",
    show_default=True,
    help="Before the second attempt of an asynchronous event that failed; before the third it is twice as long.",
)
@click.option(
    "--fronts",
    default=0,
    show_default=True,
    envvar="FASTLAM_FRONTS",
    help="Processes that accept and read requests for the daemon's, on machines with CPUs to spare; 0 for none.",
)
def command(detach: bool, idle_seconds: float | None, **options: Any) -> None:
    """Start the daemon: the AWS Lambda API on this machine.

    It runs until Ctrl-C or 'fastlam stop', lets running invocations finish, and keeps the functions for the next start.

    \b
    Examples:
      fastlam serve                          in the foreground, on http://127.0.0.1:4566
      fastlam serve --detach                 in the background
      fastlam serve --ephemeral --port 0     for a test: any free port, nothing kept
      fastlam serve --aws-endpoint http://127.0.0.1:5000    functions reach S3, SQS ... there
      fastlam serve --keepalive 0            a cold start for every invocation
    """
    if idle_seconds is not None:
        options["keepalive_seconds"] = idle_seconds
    if options["data_dir"] is None:
        options["data_dir"] = None if options["ephemeral"] else default_data_dir()
    try:
        config = DaemonConfig(**options)
    except FastlamError as error:
        raise click.UsageError(str(error)) from error
    if detach:
        _detach(config)
    else:
        _run(config)


def _run(config: DaemonConfig) -> None:
    try:
        from fastlam.app import run_daemon
    except ModuleNotFoundError as error:
        reason = native_module_missing(error)
        if reason is None:
            raise
        raise CommandError(reason) from error
    try:
        run_daemon(config)
    except FastlamError as error:
        raise CommandError(str(error)) from error


# --- detached ----------------------------------------------------------------------------------------


def _detach(config: DaemonConfig) -> None:
    """Starts a new interpreter in a session of its own (nothing of this one is inherited) and waits for its answer."""
    port = config.port or _free_port(config.host)
    log_path = _log_path(config, port)
    with _open_log(log_path) as log:
        log_start = log.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "fastlam", "serve", *_arguments(config, port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    host = "127.0.0.1" if config.host in ("0.0.0.0", "") else "::1" if config.host == "::" else config.host
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    try:
        _await_answer(child, url)
    except BaseException:
        child.kill()
        child.wait()
        raise
    if child.returncode is not None:
        raise CommandError(
            _last_line(log_path, log_start) or f"The daemon ended at once with status {child.returncode}."
        )
    click.echo(f"{url} (pid {child.pid}, log {log_path})")


def _await_answer(child: subprocess.Popen[bytes], url: str) -> None:
    """Returns when this very child answers or has ended: another daemon may hold the port."""
    from fastlam.cli.client import Client

    deadline = time.monotonic() + START_SECONDS
    client = Client(url, None, None)
    while child.poll() is None:
        try:
            if client.health()["pid"] == child.pid:
                return
        except NoDaemon:
            pass
        if time.monotonic() > deadline:
            raise CommandError(f"The daemon did not answer at {url} within {START_SECONDS} s.")
        time.sleep(POLL_SECONDS)


def _arguments(config: DaemonConfig, port: int) -> list[str]:
    arguments = ["--host", config.host, "--port", str(port), "--account", config.account, "--region", config.region]
    arguments += ["--concurrency", str(config.concurrency), "--environments-max", str(config.environments_max)]
    arguments += ["--keepalive", str(config.keepalive_seconds), "--recycle-after", str(config.recycle_after_seconds)]
    arguments += ["--rates", config.rates, "--lane", config.lane]
    arguments += ["--fronts", str(config.fronts), "--isolation", config.isolation, "--cpu", config.cpu]
    arguments += ["--disk-rate", str(config.disk_rate_mb), "--network-rate", str(config.network_rate_mb)]
    arguments += ["--network", config.network]
    arguments += ["--clock", config.clock, "--retry-delay", f"{config.retry_seconds}s"]
    if config.criu is not None:
        arguments += ["--criu", config.criu and os.path.abspath(config.criu)]
    if config.freeze:
        arguments.append("--freeze")
    if config.ephemeral:
        arguments.append("--ephemeral")
    if config.data_dir is not None:
        arguments += ["--data-dir", str(config.data_dir.absolute())]
    for origin in config.cors_origins:
        arguments += ["--cors-origin", origin]
    if config.aws_endpoint is not None:
        arguments += ["--aws-endpoint", config.aws_endpoint]
    return arguments


def _log_path(config: DaemonConfig, port: int) -> Path:
    if config.data_dir is not None:
        return config.data_dir / "serve.log"
    return Path(tempfile.gettempdir()) / f"fastlam-{os.getuid()}-{port}.log"


def _open_log(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CommandError(f"The daemon's log {path} cannot be written: {error.strerror}.") from error
    log = os.fdopen(descriptor, "ab")
    log.seek(0, os.SEEK_END)
    return log


def _last_line(path: Path, start: int) -> str:
    """The last line that the child wrote: where it failed, that is the sentence meant for the user."""
    with path.open("rb") as log:
        log.seek(start)
        lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _free_port(host: str) -> int:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        port: int = probe.getsockname()[1]
        return port
