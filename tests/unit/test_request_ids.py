"""Request ids: random UUIDs of version 4, never the same in two processes that have forked, or the caller's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from counted_calls import account_of
from fastlam.core.dispatcher import FunctionPool, Invocation, Target, request_id

FUNCTION = Target("f", None, FunctionPool(account_of(1), "f"))

# A program that embeds fastlam and forks: the hook that comes with Runtime is all that helps it.
BY_HOOK = """
import os, sys
import fastlam
from fastlam import Runtime
from fastlam.core.dispatcher import request_id
Runtime  # what a program that forks has at hand
request_id()  # there is randomness in stock
"""
# Without that hook, the same by hand.
BY_HAND = """
import os, sys
from fastlam.core.dispatcher import forget_randomness, request_id
assert "fastlam.embed" not in sys.modules
request_id()
os.register_at_fork(after_in_child=forget_randomness)
"""
FORKING = """
pids = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        break
    pids.append(pid)
os.write(1, "".join(request_id() + "\\n" for _ in range(100)).encode())
for pid in pids:
    os.waitpid(pid, 0)
"""


def test_they_are_random_uuids() -> None:
    count = 20_000
    ids = {request_id() for _ in range(count)}
    assert len(ids) == count
    form = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    assert all(form.fullmatch(one) for one in ids)
    for position in range(36):
        seen = {one[position] for one in ids}
        expected = {8: "-", 13: "-", 14: "4", 18: "-", 19: "89ab", 23: "-"}.get(position, "0123456789abcdef")
        assert seen == set(expected), f"position {position}"
    assert 9_000 < sum(one[0] in "89abcdef" for one in ids) < 11_000, "the first bit is no coin"


@pytest.mark.parametrize("preparation", [BY_HOOK, BY_HAND], ids=["by hook", "by hand"])
def test_forks_share_none(preparation: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", preparation + FORKING],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    ids = done.stdout.split()
    assert (len(ids), len(set(ids))) == (400, 400)


def test_a_given_one_is_kept() -> None:
    own = "01234567-89ab-4cde-8f01-23456789abcd"
    assert Invocation(FUNCTION, b"", own).request_id == own
    assert Invocation(FUNCTION, b"").request_id != Invocation(FUNCTION, b"").request_id


def test_a_task_has_none() -> None:
    assert Invocation(Target("tasks", None), b"").request_id is None
