"""How the processes of `pytest -n` share the tests out. A file's tests stay together and in order, since they share a
daemon; the same file on another lane counts as another file.
"""

from __future__ import annotations

import re
from typing import Final

from xdist.scheduler import LoadScopeScheduling

_LANE: Final = re.compile(r"[\[-]lane:(\w+)")


class ByFileAndLane(LoadScopeScheduling):
    """Whoever is done gets the next file."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        lane = _LANE.search(test)
        return file if lane is None else f"{file} {lane[1]}"
