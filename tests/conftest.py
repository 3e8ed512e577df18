"""Options, fixtures and checks for all tests: a seed that is printed, a clean environment, the lanes, a daemon where one
is asked for, and nothing left behind at the end.

All of this is done in each process of `pytest -n`; these have their environment from the process that starts them.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from turns import longest_first, turn

if TYPE_CHECKING:
    from daemon_running import Gate, RunningDaemon

SEED = os.environ.setdefault("FASTLAM_TEST_SEED", secrets.token_hex(4))

# FASTLAM_LANE=zmq has all tests run on that lane. Otherwise those marked `lanes` run on each of `lanes_tested`, and all
# others on the one that is used unless told otherwise.
LANE = os.environ.setdefault("FASTLAM_TEST_LANE", os.environ.get("FASTLAM_LANE", ""))

# The directories of sockets that tests make lie in one of their own, which must be empty at the end. A short path: a
# socket's may have 107 bytes.
RUNTIME_DIRECTORY = tempfile.mkdtemp(prefix="flt-")

IS_ONE_OF_SEVERAL = "PYTEST_XDIST_WORKER" in os.environ
# In the directory of the process that has started the others.
LOCK = Path(os.environ.setdefault("FASTLAM_TEST_LOCK", f"{RUNTIME_DIRECTORY}/lock"))

# Whatever the shell says about AWS or about us must not decide what a test sees.
for _name in list(os.environ):
    if _name.startswith("AWS_") or (
        _name.startswith("FASTLAM_") and not _name.startswith(("FASTLAM_TEST_", "FASTLAM_FUZZ_"))
    ):
        del os.environ[_name]
os.environ.update(
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    AWS_EC2_METADATA_DISABLED="true",
    XDG_RUNTIME_DIR=RUNTIME_DIRECTORY,
)

# A shell starts what it puts into the background with SIGINT ignored, and so would be all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Shared machines are slow at times: no example fails for the time that it takes. A failure prints how to repeat it.
settings.register_profile("fastlam", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fastlam")


def pytest_report_header() -> str:
    lanes = ", ".join(lanes_tested())
    return f"fastlam: seed {SEED} (FASTLAM_TEST_SEED={SEED} gives the same `rng` again); lanes {lanes}"


# ---- lanes ---------------------------------------------------------------------------------------


def lanes_tested() -> tuple[str, ...]:
    from fastlam.config import LANE_KINDS  # here, since the environment must be clean before

    return (LANE,) if LANE else tuple(lane for lane in LANE_KINDS if lane != "libzmq")  # which is there to compare with


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("lanes") is not None:
        lanes = lanes_tested()
        ids = [f"lane:{lane}" for lane in lanes]
        metafunc.parametrize("lane_in_use", lanes, ids=ids, indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def lane_in_use(request: pytest.FixtureRequest) -> Iterator[str]:
    """The lane on which the module's daemons, runtimes and executors feed their environments."""
    lane: str = getattr(request, "param", LANE)
    with pytest.MonkeyPatch.context() as patch:
        if lane:
            patch.setenv("FASTLAM_LANE", lane)
        yield lane or lanes_tested()[0]


# ---- several processes ---------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if IS_ONE_OF_SEVERAL:
        longest_first(items)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    if not IS_ONE_OF_SEVERAL:
        return (yield)
    with turn(item, LOCK):
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from shares import ByFileAndLane  # here, since not everybody has pytest-xdist

    config.option.loadscopereorder = False  # the order of `longest_first` holds
    return ByFileAndLane(config, log)


# ---- fixtures ------------------------------------------------------------------------------------


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Randomness that the seed in pytest's header repeats, another one for each test."""
    return random.Random(f"{SEED} {request.node.nodeid}")


@pytest.fixture(scope="module")
def daemon(lane_in_use: str) -> Iterator[RunningDaemon]:
    """One daemon for all tests of a module; they tell their functions apart by name."""
    from daemon_running import running_daemon  # here, since the environment must be clean before

    with running_daemon() as running:
        yield running


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Where invocations wait for the test; see GATE_CODE."""
    from daemon_running import Gate

    own = Gate()
    yield own
    own.close()


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """After the last test: no child process, no thread of ours, no directory of sockets."""
    yield
    assert _children() == [], "processes are left"
    threads = [thread.name for thread in threading.enumerate() if thread.name.startswith("fastlam")]
    assert threads == [], "threads are left"
    assert os.listdir(RUNTIME_DIRECTORY) == [], "runtime directories are left"


def pytest_unconfigure() -> None:
    shutil.rmtree(RUNTIME_DIRECTORY, ignore_errors=True)


def _children() -> list[str]:
    """Command lines of this process's children, without those that have ended and only wait to be reaped."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            for pid in (task / "children").read_text().split():
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                if command:  # a zombie has none
                    found.append(f"{pid}: {command}")
    return found
