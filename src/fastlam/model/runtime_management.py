"""When a function version is given a new version of its managed runtime."""

from __future__ import annotations

import msgspec

from fastlam.model.key import RecordKey


class RuntimeManagementRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The setting of one version; `$LATEST` has the qualifier ""."""

    account: str
    region: str
    function: str
    qualifier: str = ""
    update_runtime_on: str
    runtime_version_arn: str | None = None

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.function, self.qualifier)
