"""Real servers of event sources on free ports of this machine, started by tests and stopped with them: Redis, NATS,
Mosquitto, PostgreSQL. Each says what to install where it is not there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from needs import missing
from waiting import POLL_SECONDS, WAIT_SECONDS

if TYPE_CHECKING:
    from certificates import Authority

_PLACES: Final = ("/usr/sbin", "/usr/local/sbin")


def free_ports(count: int) -> list[int]:
    """Different ones that nobody has now; servers that choose for themselves do not say which."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in listeners]


def free_port() -> int:
    return free_ports(1)[0]


def program(name: str, package: str, *places: str) -> str:
    """Its path; the test is skipped (in CI: fails) where it is not installed."""
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", ""), *_PLACES]))
    if found is None:
        missing(f"install {name} (Debian: apt-get install {package})")
    return found


def await_port(port: int, process: subprocess.Popen[Any], log: Path) -> None:
    """Returns when the process listens there."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(POLL_SECONDS)


class Server:
    """A server that tests can take away and bring back."""

    def __init__(self, command: Sequence[str], port: int, directory: Path, user: str | None = None, **environment: str):
        self.command = list(command)
        self.port = port
        self.directory = directory
        self._user = user
        self._environment = environment
        self.stop_signal = signal.SIGTERM
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self.directory / "log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self._environment},
                user=self._user,
                start_new_session=True,
            )
        await_port(self.port, self.process, log)

    def stop(self) -> None:
        """Ends it, and all that it has started."""
        if self.process is not None:
            for number in (self.stop_signal, signal.SIGKILL):
                try:
                    os.killpg(self.process.pid, number)
                    self.process.wait(10)
                except ProcessLookupError:
                    break
                except subprocess.TimeoutExpired:
                    continue
            self.process.wait()
            self.process = None


@contextmanager
def running(server: Server) -> Iterator[Server]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


@contextmanager
def directory() -> Iterator[Path]:
    """Outside of pytest's own: a server of another user must be able to look into it."""
    path = Path(tempfile.mkdtemp(prefix="fastlam-server-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def running_redis(authority: Authority | None = None) -> Iterator[Server]:
    """With an authority, as each of these: TLS and nothing else."""
    port = free_port()
    command = [program("redis-server", "redis-server"), "--bind", "127.0.0.1", "--appendonly", "yes"]
    if authority is None:
        command += ["--port", str(port)]
    else:
        files = ["--tls-cert-file", str(authority.certificate_path), "--tls-key-file", str(authority.key_path)]
        command += ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", *files]
    with directory() as path, running(Server(command, port, path)) as server:
        yield server


@contextmanager
def running_nats(authority: Authority | None = None) -> Iterator[Server]:
    port = free_port()
    with directory() as path:
        command = [program("nats-server", "nats-server"), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(path)]
        if authority is not None:
            command += ["--tls", "--tlscert", str(authority.certificate_path), "--tlskey", str(authority.key_path)]
        with running(Server(command, port, path)) as server:
            yield server


@contextmanager
def running_mosquitto(authority: Authority | None = None) -> Iterator[Server]:
    port = free_port()
    with directory() as path:
        config = path / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {path}/\n"
            + ("user root\n" if os.geteuid() == 0 else "")
            + (f"certfile {authority.certificate_path}\nkeyfile {authority.key_path}\n" if authority else "")
        )
        with running(Server([program("mosquitto", "mosquitto"), "-c", str(config)], port, path)) as server:
            yield server


@contextmanager
def running_postgresql() -> Iterator[Server]:
    """Everybody on this machine may connect as the user `postgres`."""
    port = free_port()
    places = sorted((str(path) for path in Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    initdb = program("initdb", "postgresql", *places)
    postgres = program("postgres", "postgresql", *places)
    user = "postgres" if os.geteuid() == 0 else None  # it refuses root
    with directory() as path:
        if user is not None:
            shutil.chown(path, user)
        data = path / "data"
        options = ["-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        subprocess.run([initdb, "-D", str(data), *options], check=True, capture_output=True, user=user, cwd=path)
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        command = [postgres, "-D", str(data), "-p", str(port)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        server = Server(command, port, path, user)
        server.stop_signal = signal.SIGINT  # another one would wait for all who are connected
        with running(server):
            yield server
