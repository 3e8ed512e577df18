"""Who calls, read from the request's signature. Signatures are not verified: this is a service of one's own machine.

The region is that of the credential scope, the account the access key id when that is twelve digits; whatever is
missing or malformed gives way to the daemon's defaults, so that `curl` without a signature works too.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote

from fastlam.arn import PARTITION, is_account, is_region
from fastlam.control.authorize import Caller
from fastlam.http.server import Request


class Defaults(NamedTuple):
    account: str
    region: str


_HEADER: Final = re.compile(rb"AWS4-[A-Z0-9-]+\s.*?Credential=([^,\s]{1,512})")
_QUERY: Final = re.compile(rb"(?:^|&)X-Amz-Credential=([^&]{1,1024})")


def caller_of(request: Request, defaults: Defaults) -> Caller:
    authorization = request.header(b"authorization")
    found = _HEADER.match(authorization[:4096]) if authorization else _QUERY.search(request.query[:8192])
    if found is None:
        return _caller(defaults.account, defaults.region)
    scope = unquote(found[1].decode("latin-1")).split("/")  # key id / date / region / service / aws4_request
    account = scope[0] if is_account(scope[0]) else defaults.account
    region = scope[2] if len(scope) == 5 and is_region(scope[2]) else defaults.region
    return _caller(account, region)


def _caller(account: str, region: str) -> Caller:
    return Caller(account, f"arn:{PARTITION}:iam::{account}:root", region)
