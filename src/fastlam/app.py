"""The composition root: the only place that knows concrete classes, and the order in which they start, drain and stop.

Start: data directory, records, artifacts, dispatcher and zygote, API, HTTP server. Stop is the reverse: no new
connections, what is in flight ends, environments are killed, the zygotes leave, the records are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import uvloop

from fastlam import limits
from fastlam.api import operations
from fastlam.api.addresses import Addresses
from fastlam.api.admin import AdminRoute
from fastlam.api.blocking import Workers
from fastlam.api.caller import Defaults
from fastlam.api.code import CodeLinks
from fastlam.api.cors import Cors
from fastlam.api.forward import Forwarder
from fastlam.api.invoke import InvokeRoute
from fastlam.api.invoke_async import InvokeAsyncRoute
from fastlam.api.invoke_stream import InvokeStreamRoute
from fastlam.api.rates import RequestRates
from fastlam.api.router import Api
from fastlam.arn import PARTITION, FunctionAddress
from fastlam.billing.duration import billed_ms
from fastlam.clock import SystemClock, VirtualClock
from fastlam.config import DaemonConfig
from fastlam.control.authorize import Caller, action_of, authorize
from fastlam.control.plane import ControlPlane
from fastlam.core.dispatcher import Dispatcher
from fastlam.destinations.clients import Clients
from fastlam.dispatch.autoscaling import AutoScaler
from fastlam.dispatch.bound import BoundNotice
from fastlam.dispatch.faults import Faults
from fastlam.dispatch.launching import Launches, takes_snapshots
from fastlam.dispatch.networks import Networks
from fastlam.dispatch.provisioned import Provisioner
from fastlam.dispatch.snapshots import Snapshots
from fastlam.dispatch.targets import Targets
from fastlam.errors import FastlamError
from fastlam.http.server import HttpServer
from fastlam.invoke.opening import open_events
from fastlam.invoke.request_response import Invocations
from fastlam.model.event_source_mapping import EventSourceMappingRecord
from fastlam.model.key import RecordKey
from fastlam.runtimes.python import INITIALIZATION_TYPE
from fastlam.sandbox.launcher import Launcher
from fastlam.sandbox.networks import Door
from fastlam.sandbox.runtime_directory import RuntimeDirectory
from fastlam.sandbox.spinning import spin_ns
from fastlam.sources.aws.service import AwsClients
from fastlam.sources.engine import SourceEngine
from fastlam.sources.failures import FailureRecords
from fastlam.store import queue_sqlite
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.directory import DataDirectory
from fastlam.store.file_systems import FileSystems
from fastlam.store.memory import MemoryStore
from fastlam.store.objects import ObjectReader
from fastlam.store.records import FUNCTION, RecordStore
from fastlam.store.sqlite import SqliteStore
from fastlam.store.vault import Vault
from fastlam.telemetry.logs import LogGroup
from fastlam.version import VERSION

log = logging.getLogger(__name__)

DRAIN_SECONDS: Final = 30.0
_HOUSEKEEPING_SECONDS: Final = 1.0
_SWITCH_SECONDS: Final = 0.0005  # threads that come back from a disk get the interpreter sooner than by default
_LOOK_SECONDS: Final = 0.005  # between two looks at what is still under way


class Daemon:
    """One daemon in the running event loop. `start`, then `stop` once."""

    def __init__(self, config: DaemonConfig) -> None:
        self.config = config
        self.port = 0
        self._loop = asyncio.get_running_loop()
        self._closers: list[Callable[[], Any]] = []  # run in reverse order
        self._tick: asyncio.TimerHandle | None = None
        self._stopping = False  # the store is about to be closed

    async def start(self) -> None:
        """Brings everything up; raises FastlamError with one sentence, and leaves nothing open then."""
        try:
            await self._start()
        except BaseException:
            await self.stop(drain_seconds=0.0)
            raise

    async def _start(self) -> None:
        config = self.config
        defaults = Defaults(config.account, config.region)
        self._data_dir = self._open_data_dir()
        self.store = self._open_store()
        self.artifacts = ArtifactStore(self._data_dir)
        blocking = Workers(self._loop)
        self._closers.append(blocking.close)
        self.clock = clock = VirtualClock(time.time_ns() // 1_000_000) if config.clock == "virtual" else SystemClock()
        vault = Vault(None if config.ephemeral else self._data_dir)
        objects = ObjectReader(config.aws_endpoint, account=config.account)
        self._closers.append(objects.close)  # before the threads that read are waited for
        self.plane = ControlPlane(
            self.store,
            self.artifacts,
            self._later,
            clock=clock,
            vault=vault,
            read_object=objects,
            account_concurrency=config.concurrency,
            in_background=blocking.in_background,
            makes_snapshot=takes_snapshots,
            polls_sources=True,
        )

        self.launcher = Launcher(
            config.lane,
            config.isolation,
            network=config.network,
            cpu_follows_memory=config.cpu == "lambda",
            freezing=config.freeze,
            disks=str(self._data_dir),
            disk_rate_bytes=config.disk_rate_mb * 1_000_000,
            network_rate_bytes=config.network_rate_mb * 1_000_000,
            criu=config.criu,
        )
        self.isolation = self.launcher.isolation
        self._closers.append(self.launcher.close)
        self.dispatcher = Dispatcher(
            self.launcher,
            Faults(),
            environments_max=config.environments_max,
            spin_ns=spin_ns(),
        )
        self.launcher.dispatcher = self.dispatcher
        self._closers.append(self.dispatcher.close)
        self.dispatcher.adopt(self._loop.call_soon)
        self._loop.add_reader(self.dispatcher.fileno(), self.dispatcher.drive_ready)
        self._closers.append(lambda: self._loop.remove_reader(self.dispatcher.fileno()))
        self.launcher.zygote("plain")

        own_root = self.isolation is not None and self.isolation.own_root
        own_network = self.isolation is not None and self.isolation.own_network
        no_restore = "" if self.isolation is None else self.isolation.no_restore
        # The endpoint is set below, when the port is known.
        file_systems = FileSystems(self._data_dir)
        self.launches = Launches(
            self.artifacts,
            vault,
            file_systems=file_systems,
            own_root=own_root,
            networks=Networks(config.network, available=own_network),
            no_snapshots=no_restore,
        )
        self.targets = Targets(
            self.dispatcher,
            self.store,
            self.launches,
            account_concurrency=config.concurrency,
            billed_ms=billed_ms,
            enforce_rates=config.rates == "lambda",
            freezes=config.freeze,
            keepalive_seconds=config.keepalive_seconds,
            recycle_after_seconds=config.recycle_after_seconds,
            on_change=self._forget_addresses,
            on_restoring=lambda key: self.snapshots.want(key),
        )
        self.snapshots = Snapshots(
            self.dispatcher,
            self.store,
            self.targets,
            self._later,
            give_up=self.launcher.templates.fail,
            impossible=self.launches.why_not_restored,
            copies=self.isolation is not None and self.isolation.criu is not None,
        )
        self.provisioner = Provisioner(self.dispatcher, self.store, self.targets, self._later)
        self.auto_scaler = AutoScaler(self.store, clock, self.provisioner.utilization_most, self._provision)
        self._open_events()
        self._addresses = Addresses(
            self.targets, defaults=defaults, authorize=authorize, check_policy=self.plane.permissions.check
        )
        self._aws = AwsClients(config.aws_endpoint, account=config.account, ours=lambda: getattr(self, "url", None))
        self._closers.append(self._aws.close)
        self.sources = SourceEngine(
            self.store,
            settle=self.plane.event_source_mappings.settle,
            report=self.plane.event_source_mappings.report,
            invoker=Invocations(self.dispatcher, self.targets, self._may_be_invoked_by_source, clock),
            aws=self._aws,
            failures=FailureRecords(self._aws),
            clock=clock,
            schedule=self._schedule,
        )
        self.plane.event_source_mappings.check_source = self._check_source
        links = CodeLinks(self.artifacts, blocking, clock=clock)
        self.forwarder = Forwarder(config.aws_endpoint, self._loop.call_soon_threadsafe)
        self._closers.append(self.forwarder.close)
        self._admin = AdminRoute(self, defaults, self.plane.auto_scaling)
        api = Api(
            operations.entries(self.plane, links),
            defaults=defaults,
            run_blocking=blocking,
            invoke_route=InvokeRoute(self.dispatcher, self._addresses, self.events),
            admin_route=self._admin,
            code_route=links.download,
            forward=self.forwarder,
            authorize=authorize,
            operation_routes={
                "InvokeAsync": InvokeAsyncRoute(self._addresses, self.events),
                "InvokeWithResponseStream": InvokeStreamRoute(self.dispatcher, self._addresses),
            },
            rates=RequestRates(SystemClock()) if config.rates == "lambda" else None,
        )
        guarded = Cors(api, origins=config.cors_origins, host=config.host)
        body_bytes_max = limits.FORWARD_BODY_BYTES_MAX + limits.SYNC_PAYLOAD_BYTES_MAX
        self.http = HttpServer(guarded, body_bytes_max=body_bytes_max, fronts=config.fronts)
        try:
            self.port = await self.http.start(config.host, config.port)
        except OSError as error:
            raise _address_error(config, error) from None
        if config.fronts:
            self._drive_in_batches()
        host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host
        authority = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        self.url = f"http://{authority}"
        self.launches.endpoint_url = self.url
        self.launches.door_url = f"http://127.0.0.1:{self.port}"
        self.launcher.open_doors([Door("127.0.0.1", self.port, self.http.open_door, self.http.close_door)])
        links.authority = authority
        self.provisioner.begin()
        self.snapshots.begin()
        self.events.begin()
        self.sources.begin()
        self._bound_notice = BoundNotice(self.dispatcher, log.warning, time.monotonic)
        self._tick = self._loop.call_later(_HOUSEKEEPING_SECONDS, self._keep_house)

    def _drive_in_batches(self) -> None:
        """The answers of one pass of the dispatcher wake each front process once."""
        in_batch, drive = self.http.in_batch, self.dispatcher.drive_ready
        self._loop.add_reader(self.dispatcher.fileno(), in_batch, drive)
        self.dispatcher.adopt(lambda callback: self._loop.call_soon(in_batch, callback))

    def _open_data_dir(self) -> Path:
        if self.config.ephemeral:
            directory = RuntimeDirectory()
            self._closers.append(directory.close)
            path = directory.path / "data"
            path.mkdir()
            return path
        assert self.config.data_dir is not None
        data = DataDirectory(self.config.data_dir)
        self._closers.append(data.close)
        return data.path

    def _open_store(self) -> RecordStore:
        store: RecordStore = MemoryStore() if self.config.ephemeral else SqliteStore(self._data_dir / "records.sqlite")
        self._closers.append(store.close)
        return store

    def _open_events(self) -> None:
        """Asynchronous invocations: their queue, their attempts, and the delivery of what came of them."""
        loop, config = self._loop, self.config
        self.events = open_events(
            self.dispatcher,
            self.targets,
            self.store,
            path=None if config.ephemeral else self._data_dir / queue_sqlite.FILE_NAME,
            clients=Clients(config.aws_endpoint, account=config.account),
            clock=self.clock,
            schedule=self._schedule,
            later=loop.call_later,
            soon=loop.call_soon,
            in_owner=self._in_loop,
            retry_seconds=config.retry_seconds,
            closers=self._closers,
        )

    def _forget_addresses(self) -> None:
        """Something changed: what addresses stand for is found out anew."""
        self._addresses.forget()
        self.events.forget()

    def _in_loop(self, callback: Callable[[], None]) -> None:
        """Runs it in the loop's thread, whichever thread asks."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the daemon has gone
            self._loop.call_soon_threadsafe(self.http.in_batch, callback)

    def _schedule(self, seconds: float, callback: Callable[[], None]) -> None:
        """By the daemon's clock."""
        if isinstance(self.clock, VirtualClock):
            self.clock.schedule(seconds, callback)
        else:
            self._loop.call_later(seconds, callback)

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        """For what the control plane has to do in a moment: what a stopped daemon leaves is done by the next one.

        States that change by themselves do so in real time with a virtual clock too, or sooner if that is advanced:
        those who wait for them, as SDKs do, know nothing of it.
        """
        timers: list[Any] = []

        def run() -> None:
            for timer in timers:
                timer.cancel()
            if not self._stopping:
                callback()

        timers.append(self._loop.call_later(seconds, run))
        if isinstance(self.clock, VirtualClock):
            timers.append(self.clock.schedule(seconds, run))

    def _keep_house(self) -> None:
        """Tells of the machine's bound, and scales provisioned concurrency."""
        self._bound_notice.look()
        self.auto_scaler.tick()
        self._tick = self._loop.call_later(_HOUSEKEEPING_SECONDS, self._keep_house)

    def _provision(self, key: RecordKey, wanted: int) -> None:
        """What auto scaling asks for, as if somebody of the account had."""
        caller = Caller(key.account, f"arn:{PARTITION}:iam::{key.account}:root", key.region)
        asked = {"FunctionName": key.name, "Qualifier": key.part, "ProvisionedConcurrentExecutions": wanted}
        self.plane.provisioned_concurrency.put(caller, asked)

    def _check_source(self, mapping: EventSourceMappingRecord) -> None:
        """On a worker thread."""
        checking = asyncio.run_coroutine_threadsafe(self.sources.check(mapping), self._loop)
        try:
            checking.result(limits.SOURCE_CHECK_SECONDS * 2)
        except TimeoutError:
            checking.cancel()  # the loop has ended

    @staticmethod
    def _may_be_invoked_by_source(address: FunctionAddress, source_arn: str) -> None:
        """A poller is the service itself: it asks no resource policy."""
        caller = Caller(address.account, "lambda.amazonaws.com", address.region, source_arn)
        authorize(caller, action_of("Invoke"), address.arn)

    async def stop(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Lets what is in flight end, at most that long; then everything is closed. Never raises for what is closed
        already.
        """
        if self._tick is not None:
            self._tick.cancel()
        http = getattr(self, "http", None)
        sources = getattr(self, "sources", None)
        if http is not None:
            self._admin.answer_waiting()
            begun = time.monotonic()
            # Side by side: neither adds to the other's time.
            await asyncio.gather(
                http.drain(drain_seconds),
                *([] if sources is None else [sources.stop(min(drain_seconds, limits.SOURCE_DRAIN_SECONDS))]),
            )
            await self._drain_events(drain_seconds - (time.monotonic() - begun))
        elif sources is not None:
            await sources.stop(0.0)
        self._stopping = True
        while self._closers:
            closer = self._closers.pop()
            try:
                closer()
            except Exception:
                log.exception("stopping: %r failed", closer)

    async def _drain_events(self, seconds: float) -> None:
        """Attempts and deliveries that are under way may end; the next daemon goes on with the others."""
        self.events.stop()
        deadline = time.monotonic() + seconds
        while not self.events.quiet and time.monotonic() < deadline:  # noqa: ASYNC110 - their ends are told to nobody
            await asyncio.sleep(_LOOK_SECONDS)

    # -- what the admin routes see ----------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        counts = {"starting": 0, "idle": 0, "busy": 0, "stopping": 0}
        for environment in self.dispatcher.snapshot():
            counts[environment["state"]] = counts.get(environment["state"], 0) + 1
        return {
            "status": "ok",
            "version": VERSION,
            "pid": os.getpid(),
            "account": self.config.account,
            "region": self.config.region,
            "ephemeral": self.config.ephemeral,
            "data_dir": None if self.config.ephemeral else str(self._data_dir),
            "functions": len(self.store.all(FUNCTION)),
            "environments": counts,
            "limits": {"concurrency": self.config.concurrency, "environments": self.config.environments_max},
            "freeze": self.config.freeze,
            "clock": self.config.clock,
            "isolation": self.isolation.state() if self.isolation is not None else None,
            "fronts": self.http.fronts(),
            "provisioned": self.provisioner.rows(),
            "statistics": {
                "dispatcher": self.dispatcher.statistics(),
                "http": asdict(self.http.statistics()),
                "events": self.events.statistics(),
                "loops_ended": self.targets.loops_ended,  # synchronous calls refused; events are counted with theirs
                "forwarded": {"requests": self.forwarder.forwarded, "failed": self.forwarder.failed},
            },
        }

    def queue(self) -> dict[str, Any]:
        """Asynchronous events, by function, and the records of them, by destination."""
        return {**self.events.rows(), "statistics": self.events.statistics()}

    def clock_state(self) -> dict[str, Any]:
        clock = self.clock
        state: dict[str, Any] = {"clock": self.config.clock, "wall_ms": clock.wall_ms()}
        if isinstance(clock, VirtualClock):
            state |= {
                "elapsed_ms": clock.elapsed_ms(),
                "scheduled": clock.pending,
                "next_due_seconds": clock.next_due_seconds,
                "works": clock.works,
            }
        return state

    def advance(self, seconds: float, done: Callable[[], None]) -> str | None:
        clock = self.clock
        if not isinstance(clock, VirtualClock):
            return "This daemon goes by the machine's clock: only that of one started with --clock virtual is advanced."
        if self.plane.auto_scaling.list():
            self._scale_until(clock, clock.elapsed_ms() + seconds * 1000)
        clock.advance_then(seconds, done)
        return None

    def _scale_until(self, clock: VirtualClock, until_ms: float) -> None:
        """Scaling by the calendar looks at each second that passes, as it does without a virtual clock."""

        def tick() -> None:
            self.auto_scaler.tick()
            if clock.elapsed_ms() + _HOUSEKEEPING_SECONDS * 1000 <= until_ms:
                clock.schedule(_HOUSEKEEPING_SECONDS, tick)

        clock.schedule(_HOUSEKEEPING_SECONDS, tick)

    def environments(self) -> list[dict[str, Any]]:
        owners = self.targets.owners()
        rows = []
        for environment in self.dispatcher.environments_all():
            row = environment.snapshot()
            key = owners.get(id(environment.target))
            name, _, version = row.pop("name").partition(":")
            pool = environment.target.pool
            row.pop("provisioned")
            worker = environment.target.spec.worker
            rows.append(
                {
                    **row,
                    "function": name,
                    "version": version,
                    "account": pool.account.account,
                    "region": pool.account.region,
                    "memory_peak_mb": -(-row.pop("memory_peak_kib") // 1024),
                    "current": key is not None,
                    "initialization_type": worker.environ.get(INITIALIZATION_TYPE, ""),
                    "template": bool(worker.template),
                }
            )
        return rows

    def event_sources(self) -> list[dict[str, Any]]:
        return self.sources.rows()

    def log_of(self, key: RecordKey) -> LogGroup | None:
        return self.targets.log_of(key)

    def reset(self) -> str | None:
        if not self.config.ephemeral:
            return "This daemon keeps its functions: only one started with --ephemeral can be reset."
        self.events.clear()
        self.store.clear()
        self.plane.collector.collect()
        return None

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Callable[[], None]:
        return self._loop.call_later(seconds, callback).cancel


def _address_error(config: DaemonConfig, error: OSError) -> FastlamError:
    address = f"{config.host}:{config.port}"
    if error.errno == errno.EADDRINUSE:
        return FastlamError(
            f"Port {config.port} on {config.host} is in use, perhaps by another fastlam: stop it (fastlam stop) or"
            " choose"
            " another --port."
        )
    if error.errno == errno.EACCES:
        return FastlamError(f"{address} may not be listened on by this user: choose a --port above 1023.")
    return FastlamError(f"{address} cannot be listened on: {error.strerror or error}.")


def raise_open_files_limit() -> int:
    """Environments take several descriptors each: uses all that this process is allowed, and returns how many those
    are.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def within_open_files(config: DaemonConfig, open_files: int) -> DaemonConfig:
    """The settings with no more environments than that many descriptors hold while all of them start; says so if that
    is fewer. Calls then wait, instead of failing for want of a descriptor.
    """
    each = limits.DESCRIPTORS_PER_ENVIRONMENT + (limits.DESCRIPTORS_PER_NETWORK if config.network != "host" else 0)
    fit = max(1, (open_files - limits.DESCRIPTORS_BESIDE) // each)
    if config.environments_max <= fit:
        return config
    log.warning(
        "%s open files are allowed: they hold %s execution environments instead of %s (--environments-max); raise"
        " the limit (ulimit -n %d)",
        f"{open_files:,}",
        f"{fit:,}",
        f"{config.environments_max:,}",
        limits.DESCRIPTORS_BESIDE + config.environments_max * each,
    )
    return replace(config, environments_max=fit)


async def serve(config: DaemonConfig, on_ready: Callable[[Daemon], None] | None = None) -> None:
    """Runs a daemon until SIGTERM or SIGINT, which drain it; a second one cuts the drain short."""
    loop = asyncio.get_running_loop()
    daemon = Daemon(config)
    leaving = asyncio.Event()
    hurry = asyncio.Event()

    def on_signal() -> None:
        if leaving.is_set():
            hurry.set()
        leaving.set()

    await daemon.start()
    gc.collect()
    gc.freeze()  # what is there now stays: later collections need not look through a thousand records
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal)
        if on_ready is not None:
            on_ready(daemon)
        await leaving.wait()
    finally:
        stopping = loop.create_task(daemon.stop())
        hurrying = loop.create_task(hurry.wait())
        await asyncio.wait({stopping, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        if not stopping.done():
            stopping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await stopping
            await daemon.stop(drain_seconds=0.0)


def announce(daemon: Daemon) -> None:
    """Tells the person who started the daemon where it is."""
    kept = "keeps nothing" if daemon.config.ephemeral else f"functions in {daemon.config.data_dir}"
    print(f"fastlam {VERSION} is ready on {daemon.url} ({kept})", flush=True)
    if daemon.isolation is not None:
        print(daemon.isolation.summary(), flush=True)


def run_daemon(config: DaemonConfig, on_ready: Callable[[Daemon], None] | None = announce) -> None:
    """Runs a daemon in this process until it is told to stop. Raises FastlamError when it cannot start."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = within_open_files(config, raise_open_files_limit())
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        from setproctitle import setproctitle

        setproctitle(f"fastlam: daemon {config.host}:{config.port}")
    except ImportError:
        pass
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(config, on_ready))
