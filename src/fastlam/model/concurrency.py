"""Concurrency settings as the store keeps them."""

from __future__ import annotations

import msgspec

from fastlam.model.key import RecordKey


class ReservedConcurrencyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The concurrency set aside for one function; 0 switches the function off."""

    account: str
    region: str
    name: str
    concurrency: int

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.name)
