"""Recursion: how often one chain of invocations has come by a function, as its trace header tells.

    Root=...;Parent=...;Sampled=0;Lineage=<hop>:<function>:<count>

Each invocation writes itself in: one hop more, and how often the function has been executed in this chain before. Who
calls on passes the header on, as AWS's SDKs do. Functions that the chain has come by before, with their counts, follow
behind commas.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

from fastlam import limits
from fastlam.arn import function_arn
from fastlam.errors import ApiError

_FIELD: Final = re.compile(
    r";Lineage=(\d{1,6}):([0-9a-f]{8}):(\d{1,6})((?:,[0-9a-f]{8}:\d{1,6})*)(?=;|$)", re.IGNORECASE | re.ASCII
)
_ANY: Final = re.compile(r";Lineage=[^;]*", re.IGNORECASE)
_OTHERS_MAX: Final = 15  # the header has a bound; the functions that were met first are forgotten


class Step(NamedTuple):
    """One invocation within its chain."""

    trace: str  # the header with this invocation in it
    before: int = 0  # executions of the function in this chain before

    @property
    def too_often(self) -> bool:
        return self.before >= limits.RECURSIONS_MAX


def mark_of(account: str, region: str, name: str) -> str:
    """The function in a header, whatever its version."""
    return hashlib.sha256(function_arn(region, account, name).encode()).hexdigest()[:8]


def begun(request_id: str, mark: str) -> Step:
    """The header of an invocation that begins its own trace, not sampled, from a random UUID."""
    digits = request_id.replace("-", "")
    return Step(
        f"Root=1-{digits[:8]}-{digits[8:]};Parent={digits[-12:]}{digits[:4]};Sampled=0;Lineage=1:{mark}:0"
    )


def step(trace: str, mark: str) -> Step:
    """The header of an invocation of that function, from the one that it came with."""
    found = _FIELD.search(trace)
    if found is None:
        return Step(f"{_ANY.sub('', trace)};Lineage=1:{mark}:0")
    counts = {found[2].lower(): int(found[3])}
    for other in found[4].lower().split(",")[1:]:
        function, _, count = other.partition(":")
        counts.setdefault(function, int(count))
    before = counts.pop(mark, None)
    count = 0 if before is None else before + 1
    others = "".join(f",{function}:{times}" for function, times in list(counts.items())[:_OTHERS_MAX])
    lineage = f";Lineage={int(found[1]) + 1}:{mark}:{count}{others}"
    return Step(f"{trace[: found.start()]}{lineage}{trace[found.end() :]}", count)


def recursive() -> ApiError:
    return ApiError(
        "RecursiveInvocationException",
        "Lambda has detected that your function is being invoked in a recursive loop with other Amazon Web Services"
        " resources and stopped your function's invocation.",
    )
