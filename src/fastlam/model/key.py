"""The key of every record: who owns it, what it is called, and which part of that it is."""

from __future__ import annotations

from typing import NamedTuple


class RecordKey(NamedTuple):
    """Records of one function (versions, aliases, policies ...) share its first three fields and differ in `part`."""

    account: str
    region: str
    name: str
    part: str = ""  # a version, an alias, a statement ...; "": the whole

    @property
    def owner(self) -> RecordKey:
        """The key of what this is a part of; of itself for a whole."""
        return self if not self.part else RecordKey(self.account, self.region, self.name)
