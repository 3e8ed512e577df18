"""The function URL record: an HTTP address of a function, or of one of its aliases."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fastlam.arn import function_arn
from fastlam.model.key import RecordKey

BUFFERED: Final = "BUFFERED"


class FunctionUrlRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One URL. The host name and port depend on where the daemon is reached: only what tells URLs apart is kept."""

    account: str
    region: str
    function: str
    qualifier: str = ""  # an alias; "": $LATEST
    url_id: str  # the first label of the host name
    auth_type: str  # NONE or AWS_IAM
    cors: dict[str, Any] | None = None  # in the API's form
    invoke_mode: str = BUFFERED
    created: str  # 2026-09-15T11:59:39.307000000Z
    last_modified: str

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.function, self.qualifier)

    @property
    def arn(self) -> str:
        """Of the function or alias behind it."""
        return function_arn(self.region, self.account, self.function, self.qualifier or None)
