"""How a call may end that a fault has hit, in Lambda's words: functions that look at the answer and fail at any other."""

from __future__ import annotations

from daemon_running import Invoked


def failed(invoked: Invoked, error_type: str, message: str) -> None:
    assert (invoked.status, invoked.error) == (200, "Unhandled"), invoked.raw[:500]
    assert invoked.json == {
        "errorType": error_type,
        "errorMessage": f"RequestId: {invoked.request_id} Error: {message}",
    }


def killed(invoked: Invoked) -> None:
    """By SIGKILL, before the function had an answer."""
    failed(invoked, "Runtime.ExitError", "Runtime exited with error: signal: killed")


def left(invoked: Invoked) -> None:
    """With an exit status of 0."""
    failed(invoked, "Runtime.ExitError", "Runtime exited without providing a reason")


def timed_out(invoked: Invoked, seconds: int) -> None:
    failed(invoked, "Sandbox.Timedout", f"Task timed out after {seconds}.00 seconds")


def exited(invoked: Invoked) -> None:
    """By any signal or with any status but 0."""
    message: str = invoked.json["errorMessage"]
    reason = message.partition("Runtime exited with error: ")[2]
    assert reason != ""
    failed(invoked, "Runtime.ExitError", f"Runtime exited with error: {reason}")


def answered_or_exited(invoked: Invoked) -> None:
    """The function's own answer may have come before its environment's end."""
    if invoked.error is not None:
        exited(invoked)


def suffered(invoked: Invoked) -> bool:
    """Whether the call has failed; that it may, but by its environment's end or its timeout."""
    if invoked.error is None:
        return False
    assert invoked.json["errorType"] in ("Runtime.ExitError", "Sandbox.Timedout"), invoked.raw[:500]
    return True
