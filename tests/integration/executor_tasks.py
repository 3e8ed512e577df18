"""What the executor tests run in workers, and gates: points that a task passes only when the test lets it."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from pathlib import Path
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    from fastlam import Executor

INITIALIZED: list[Any] = []
ARRIVAL_SECONDS = 45  # less than a test's own time, so that a failure is one of the test


class Gate:
    """A named pipe. `wait` (in a task) returns once `open` (in the test) has been called, and the other way round."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        os.mkfifo(path)

    def wait(self) -> int:
        """The pid of the process that waited."""
        with open(self.path, "rb") as pipe:
            pipe.read()
        return os.getpid()

    def open(self) -> None:
        """Lets the one task through that stands at this gate, or will."""
        deadline = time.monotonic() + ARRIVAL_SECONDS
        while True:
            try:
                os.close(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK))
                return
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            assert time.monotonic() < deadline, "no task has come to this gate"
            time.sleep(0.0005)

    def abandon(self) -> None:
        """Lets everybody through, now and later: after a failure, so that nobody waits for its tasks for ever."""
        descriptor = os.open(self.path, os.O_RDWR)
        os.unlink(self.path)
        Path(self.path).touch()
        os.close(descriptor)


class Hold:
    """Fills workers with tasks that stand at a gate: when it is entered all of them run, each in a worker of its
    own.
    """

    def __init__(self, executor: Executor, directory: Path, count: int) -> None:
        Hold.made += 1
        arrivals = [Gate(directory / f"arrival{Hold.made}-{number}") for number in range(count)]
        self.gates = [Gate(directory / f"leave{Hold.made}-{number}") for number in range(count)]
        self.futures = [
            executor.submit(meet_and_wait, arrival, leave) for arrival, leave in zip(arrivals, self.gates, strict=True)
        ]
        try:
            for arrival in arrivals:
                arrival.open()
        except BaseException:
            for gate in arrivals + self.gates:
                gate.abandon()
            raise
        self.held = True

    made = 0

    def release(self) -> list[int]:
        """Lets them go; the pids of their workers."""
        if self.held:
            self.held = False
            for gate in self.gates:
                gate.open()
        return [future.result() for future in self.futures]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def workers_of(executor: Executor) -> list[Any]:
    """Environments of the executor whose workers are up."""
    every = executor._dispatcher.environments_of(executor._target)
    return [one for one in every if one.snapshot()["state"] in ("idle", "busy")]


def kill(environment: Any) -> bool:
    """SIGKILL for a worker, by its descriptor: a number may be another process's by now, or -1, which is everybody's."""
    try:
        pidfd = os.dup(environment.pidfd)
    except OSError:
        return False  # not told of yet, or gone
    try:
        with open(f"/proc/self/fdinfo/{pidfd}") as file:
            if "Pid:" not in file.read():
                return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def square(number: int) -> int:
    return number * number


def add(left: int, right: int = 0) -> int:
    return left + right


def pid_of_worker(_: Any = None) -> int:
    return os.getpid()


def meet_and_wait(arrived: Gate, leave: Gate) -> int:
    """Tells the test that it runs, then stands at a gate."""
    arrived.wait()
    return leave.wait()


def write_line(path: str, text: str) -> None:
    """Appends a line at once, whoever else writes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def note(path: str, number: int) -> int:
    write_line(path, str(number))
    return number


def initialize(*values: Any) -> None:
    INITIALIZED.append(values)


def initialized() -> list[Any]:
    return INITIALIZED


def fail(error: BaseException) -> NoReturn:
    raise error


def fail_initializer() -> NoReturn:
    raise LookupError("no license found")


def leave(status: int) -> NoReturn:
    os._exit(status)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def segfault() -> None:
    import faulthandler

    faulthandler.disable()
    ctypes.string_at(0)


DEATHS = {"exit": (leave, 3, "exit status 3"), "kill": (kill_self, None, "signal: killed")}


def environment(name: str) -> tuple[str | None, str]:
    return os.environ.get(name), os.getcwd()


class Unpicklable:
    def __reduce__(self) -> NoReturn:
        raise TypeError("this one stays at home")


def return_unpicklable() -> Unpicklable:
    return Unpicklable()


class UnpicklableError(Exception):
    def __reduce__(self) -> NoReturn:
        raise TypeError("an error that cannot travel")


class AwkwardError(Exception):
    """Is pickled, but cannot be rebuilt: its arguments are not those of its constructor."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


class SpeechlessError(Exception):
    """Can neither be pickled nor be shown."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("no")

    def __str__(self) -> str:
        raise ValueError("no words")


class Bomb:
    """Is pickled, but explodes when it is unpickled."""

    def __reduce__(self) -> Any:
        return _explode, ()


def _explode() -> NoReturn:
    raise ArithmeticError("unpickled")


def return_bomb() -> Bomb:
    return Bomb()


def raise_unpicklable() -> NoReturn:
    raise UnpicklableError("secret")


def raise_awkward() -> NoReturn:
    raise AwkwardError(7, "odd")


def raise_speechless() -> NoReturn:
    raise SpeechlessError


def raise_group() -> NoReturn:
    raise ExceptionGroup("several", [ValueError(1), KeyError("two")])


def raise_from_deep(depth: int) -> NoReturn:
    if depth == 0:
        raise ValueError("at the bottom")  # the line that a traceback must show
    raise_from_deep(depth - 1)


class Counter:
    """A mutable object: every task must get it as it was sent."""

    def __init__(self) -> None:
        self.count = 0

    def increment(self) -> int:
        self.count += 1
        return self.count


class Block:
    """A mutable array of bytes whose contents travel out of band, as those of numpy's arrays do."""

    def __init__(self, data: Any) -> None:
        self.data = memoryview(data)

    def __reduce_ex__(self, protocol: Any) -> Any:
        assert protocol >= 5
        return Block, (PickleBuffer(self.data),)


def upset(blocks: list[Block]) -> list[Block]:
    """Adds one to the first byte of each block, in place."""
    for block in blocks:
        if block.data:
            block.data[0] += 1
    return blocks


def read_only(block: Block) -> bool:
    return block.data.readonly


def reverse(data: Any) -> Any:
    return data[::-1]


def out_of_band(value: Any) -> tuple[str, int, Any]:
    """(type, length, the value itself)."""
    return type(value).__name__, len(value), value


def stand_or_note(item: tuple[str, Any]) -> Any:
    """One function for long and short tasks: ("wait", gate) or ("note", value)."""
    kind, value = item
    return value.wait() if kind == "wait" else value
