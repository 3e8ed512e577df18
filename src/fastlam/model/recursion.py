"""Whether a function may go on invoking itself."""

from __future__ import annotations

from typing import Final

import msgspec

from fastlam.model.key import RecordKey

TERMINATE: Final = "Terminate"
ALLOW: Final = "Allow"


class RecursionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The setting of one function; without one its loops are ended."""

    account: str
    region: str
    function: str
    recursive_loop: str

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.function)
