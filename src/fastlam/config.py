"""What a daemon is started with: one frozen record, checked when it is made."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from fastlam.errors import FastlamError
from fastlam.limits import (
    ACCOUNT_CONCURRENCY,
    ENVIRONMENTS_MAX,
    EVENT_AGE_SECONDS_MAX,
    EVENT_RETRY_SECONDS,
    FRONTS_MAX,
    KEEPALIVE_SECONDS,
    RECYCLE_AFTER_SECONDS,
)

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 4566
DEFAULT_ACCOUNT: Final = "000000000000"
DEFAULT_REGION: Final = "us-east-1"

LANE_KINDS: Final = ("ring", "zmq", "libzmq")  # sandbox.lanes tells them apart
ISOLATION_LEVELS: Final = ("auto", "full", "process")  # and sandbox.isolation these
NETWORKS: Final = ("host", "loopback", "none")  # and these
CPU_MODES: Final = ("free", "lambda")
CLOCKS: Final = ("system", "virtual")  # of retries, event age and schedules: this machine's, or one that users advance
NETWORK_RATE_MB: Final = 75  # AWS names no figure; 600 Mbit/s is what functions are often measured to have
DISK_RATE_MB: Final = 250  # AWS names no figure; a SATA disk without moving parts holds this one
RATES: Final = ("free", "lambda")  # what comes too fast: runs all the same, or is throttled as Lambda does

# As browsers state it: nothing behind the port. Extensions and applications have schemes of their own.
_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_REGION: Final = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d{1,2}")


def default_data_dir() -> Path:
    """$FASTLAM_DATA_DIR, else fastlam in $XDG_DATA_HOME, else in ~/.local/share."""
    own = os.environ.get("FASTLAM_DATA_DIR")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_DATA_HOME", "")
    base = Path(shared) if os.path.isabs(shared) else Path.home() / ".local" / "share"
    return base / "fastlam"


def lane_kind() -> str:
    """What $FASTLAM_LANE asks for, where no option does."""
    return os.environ.get("FASTLAM_LANE") or LANE_KINDS[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """The settings of one daemon. A FastlamError names the first mistake in one sentence."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT  # 0: any free one
    data_dir: Path | None = field(default_factory=default_data_dir)  # None only with ephemeral
    ephemeral: bool = False  # keep everything in memory and temporary files
    account: str = DEFAULT_ACCOUNT  # of requests whose access key id names none
    region: str = DEFAULT_REGION  # of requests without a signature
    aws_endpoint: str | None = None  # where requests for other AWS services are forwarded to
    concurrency: int = ACCOUNT_CONCURRENCY  # the account's limit; beyond it invocations are throttled
    environments_max: int = ENVIRONMENTS_MAX  # live at a time on this machine; beyond it invocations wait
    lane: str = LANE_KINDS[0]  # how environments are fed
    isolation: str = ISOLATION_LEVELS[0]  # which walls environments have
    network: str = NETWORKS[0]  # what functions reach
    cpu: str = CPU_MODES[0]  # whether they have the CPU share of their memory, or what is free
    disk_rate_mb: int = DISK_RATE_MB  # that a function with a whole CPU reads and writes in a second; 0: no bound
    network_rate_mb: int = NETWORK_RATE_MB  # likewise, over a network of its own
    criu: str | None = None  # what copies processes that cannot be forked; None: this machine's, "": none
    freeze: bool = False  # environments stand still between invocations
    rates: str = RATES[0]  # whether the rates of requests and of new environments are limited
    keepalive_seconds: float = KEEPALIVE_SECONDS  # after which an unused environment is stopped; 0: after each call
    recycle_after_seconds: float = RECYCLE_AFTER_SECONDS  # the age at which an environment is stopped; 0: none
    clock: str = CLOCKS[0]
    retry_seconds: float = EVENT_RETRY_SECONDS  # before an event's second attempt; twice as long before the third
    fronts: int = 0  # processes that accept and read requests for the daemon's; 0: it does so itself
    cors_origins: tuple[str, ...] = ()  # of pages that may call, beside this machine's own; "*" allows all

    def __post_init__(self) -> None:
        if not self.host or any(character.isspace() for character in self.host):
            raise FastlamError(f"--host {self.host!r} is no host name or address: give one such as 127.0.0.1.")
        if not 0 <= self.port <= 65535:
            raise FastlamError(f"--port {self.port} is no port: give a number from 1 to 65535, or 0 for any free one.")
        if re.fullmatch(r"\d{12}", self.account, re.ASCII) is None:
            raise FastlamError(f"--account {self.account!r} is no account id: give twelve digits.")
        if _REGION.fullmatch(self.region) is None:
            raise FastlamError(f"--region {self.region!r} is no region name: give one such as us-east-1.")
        if self.aws_endpoint is not None:
            _check_endpoint(self.aws_endpoint)
        if self.concurrency < 1:
            raise FastlamError(f"--concurrency {self.concurrency} leaves nothing to run: give at least 1.")
        if self.environments_max < 1:
            raise FastlamError(f"--environments-max {self.environments_max} leaves nothing to run: give at least 1.")
        if self.lane not in LANE_KINDS:
            raise FastlamError(f"--lane {self.lane!r} is none: give {' or '.join(LANE_KINDS)}.")
        if self.isolation not in ISOLATION_LEVELS:
            raise FastlamError(f"--isolation {self.isolation!r} is no level: give {' or '.join(ISOLATION_LEVELS)}.")
        if self.network not in NETWORKS:
            raise FastlamError(f"--network {self.network!r} is none: give {' or '.join(NETWORKS)}.")
        if self.network != "host" and self.isolation == "process":
            raise FastlamError(
                f"--network {self.network} needs walls around environments, and --isolation process has none: use"
                " --isolation auto."
            )
        if self.freeze and self.isolation == "process":
            raise FastlamError(
                "--freeze needs the control groups of environments, and --isolation process makes none: use --isolation"
                " auto."
            )
        if self.cpu not in CPU_MODES:
            raise FastlamError(f"--cpu {self.cpu!r} is no mode: give {' or '.join(CPU_MODES)}.")
        if self.clock not in CLOCKS:
            raise FastlamError(f"--clock {self.clock!r} is none: give {' or '.join(CLOCKS)}.")
        if not 0 <= self.retry_seconds <= EVENT_AGE_SECONDS_MAX:
            raise FastlamError(
                f"--retry-delay {self.retry_seconds:g} is no delay: give seconds, 0 to {EVENT_AGE_SECONDS_MAX}."
            )
        if self.disk_rate_mb < 0:
            raise FastlamError(f"--disk-rate {self.disk_rate_mb} is no rate: give MB a second, or 0 for no bound.")
        if self.network_rate_mb < 0:
            rate = self.network_rate_mb
            raise FastlamError(f"--network-rate {rate} is no rate: give MB a second, or 0 for no bound.")
        if not 0 <= self.fronts <= FRONTS_MAX:
            raise FastlamError(f"--fronts {self.fronts} is no number of front processes: give 0 to {FRONTS_MAX}.")
        if self.rates not in RATES:
            raise FastlamError(f"--rates {self.rates!r} is none: give {' or '.join(RATES)}.")
        if not self.keepalive_seconds >= 0:
            raise FastlamError(f"--keepalive {self.keepalive_seconds:g} is no time: give seconds, 0 or more.")
        if not self.recycle_after_seconds >= 0:
            raise FastlamError(
                f"--recycle-after {self.recycle_after_seconds:g} is no age: give seconds, or 0 for none."
            )
        for origin in self.cors_origins:
            if origin not in ("*", "null") and _ORIGIN.fullmatch(origin) is None:
                raise FastlamError(
                    f"--cors-origin {origin!r} is no origin: give scheme, host and port such as http://app.example:3000,"
                    " or * for any."
                )
        if self.data_dir is None:
            if not self.ephemeral:
                raise FastlamError("A daemon that keeps its functions needs a data directory: give --data-dir.")
        elif self.data_dir.exists() and not self.data_dir.is_dir():
            raise FastlamError(f"--data-dir {self.data_dir} is a file: give a directory, existing or not.")


def _check_endpoint(url: str) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or the brackets of an address do not match
        valid = False
    if not valid:
        raise FastlamError(f"--aws-endpoint {url!r} is no URL: give one such as http://127.0.0.1:5000.")
