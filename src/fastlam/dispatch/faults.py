"""The error documents of calls whose runtime could not answer itself: timeouts and processes that ended."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from fastlam.core.dispatcher import Invocation

_encode: Final = msgspec.json.Encoder().encode

# The words of Go's os package, in which Lambda's own supervisor is written.
_SIGNAL_NAMES: Final = {
    signal.SIGABRT: "aborted",
    signal.SIGALRM: "alarm clock",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "floating point exception",
    signal.SIGHUP: "hangup",
    signal.SIGILL: "illegal instruction",
    signal.SIGINT: "interrupt",
    signal.SIGKILL: "killed",
    signal.SIGPIPE: "broken pipe",
    signal.SIGQUIT: "quit",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGTERM: "terminated",
    signal.SIGTRAP: "trace/breakpoint trap",
}


class Faults:
    """Words the error payloads; see Lambda's documentation on function errors."""

    def timeout(self, invocation: Invocation) -> bytes:
        """The payload of a call that ran longer than the function's timeout."""
        seconds = invocation.target.timeout_ns / 1e9
        return _encode(
            {
                "errorType": "Sandbox.Timedout",
                "errorMessage": f"RequestId: {invocation.request_id} Error: Task timed out after {seconds:.2f} seconds",
            }
        )

    def exited(self, invocation: Invocation, wait_status: int) -> tuple[str, bytes]:
        """(error type, payload) of a call whose process ended; `wait_status` as of wait(2)."""
        message = f"RequestId: {invocation.request_id} Error: {describe_exit(wait_status)}"
        return "Runtime.ExitError", _encode({"errorType": "Runtime.ExitError", "errorMessage": message})


def describe_exit(wait_status: int) -> str:
    """How Lambda words the end of a runtime process."""
    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        try:
            name = _SIGNAL_NAMES.get(signal.Signals(number), f"signal {number}")
        except ValueError:
            name = f"signal {number}"
        return f"Runtime exited with error: signal: {name}"
    code = os.waitstatus_to_exitcode(wait_status)
    if code == 0:
        return "Runtime exited without providing a reason"
    return f"Runtime exited with error: exit status {code}"
