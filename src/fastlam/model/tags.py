"""The tags record: tags of what is not a function (a function's are in its own record)."""

from __future__ import annotations

import msgspec

from fastlam.model.key import RecordKey


class TagsRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The tags of one resource that has any."""

    account: str
    region: str
    resource: str  # the end of its ARN, from the type on: event-source-mapping:<uuid>
    tags: dict[str, str]

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.resource)
