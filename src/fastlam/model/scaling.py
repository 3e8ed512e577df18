"""How many environments a function version on a capacity provider has at least and at most."""

from __future__ import annotations

from typing import Final

import msgspec

from fastlam.model.key import RecordKey

MIN_ENVIRONMENTS_DEFAULT: Final = 3


class Scale(msgspec.Struct, frozen=True, array_like=True):
    """Bounds of the number of environments; both 0 switch the version off."""

    min_environments: int = MIN_ENVIRONMENTS_DEFAULT
    max_environments: int | None = None  # None: as many as the capacity provider has room for

    @property
    def off(self) -> bool:
        return self.max_environments == 0


class FunctionScalingRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one version: those that were asked for last, and those in force."""

    account: str
    region: str
    function: str
    qualifier: str
    requested: Scale
    applied: Scale

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.function, self.qualifier)
