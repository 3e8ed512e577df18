"""Function names as clients write them: every locator form of the Lambda API, read, checked and written back as
ARNs.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

from fastlam.errors import ApiError, access_denied, invalid_parameter, not_found

PARTITION: Final = "aws"
LATEST: Final = "$LATEST"

# One form after the other, each part optional but the name. Group order is the order of an ARN.
_LOCATOR: Final = re.compile(
    r"(?:arn:(?P<partition>aws[a-zA-Z-]*)?:lambda:)?"
    r"(?:(?P<region>(?:eusc-)?[a-z]{2}(?:-gov|-iso[a-z]?)?-[a-z]+-\d):)?"
    r"(?:(?P<account>\d{12}):)?"
    r"(?:function:)?"
    r"(?P<name>[a-zA-Z0-9-_.]+)"
    r"(?::(?P<qualifier>\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9-_]+))?",
    re.ASCII,
)
_REGION: Final = re.compile(r"(?:eusc-)?[a-z]{2}(?:-gov|-iso[a-z]?)?-[a-z]+-\d", re.ASCII)
_ACCOUNT: Final = re.compile(r"\d{12}", re.ASCII)


class Locator(NamedTuple):
    """What a client wrote in the place of a function name."""

    name: str
    qualifier: str | None
    region: str | None  # None: the region of the endpoint
    account: str | None  # None: the account of the caller


class FunctionAddress(NamedTuple):
    """A function as one request means it: the locator made complete, its qualifiers made one."""

    account: str
    region: str
    name: str
    qualifier: str | None  # None: the client gave none, which is not always the same as $LATEST

    @property
    def unqualified_arn(self) -> str:
        return function_arn(self.region, self.account, self.name)

    @property
    def arn(self) -> str:
        return function_arn(self.region, self.account, self.name, self.qualifier)

    @property
    def arn_with_version(self) -> str:
        return function_arn(self.region, self.account, self.name, self.qualifier or LATEST)


def is_region(text: str) -> bool:
    return _REGION.fullmatch(text) is not None


def is_account(text: str) -> bool:
    return _ACCOUNT.fullmatch(text) is not None


def function_arn(region: str, account: str, name: str, qualifier: str | None = None) -> str:
    arn = f"arn:{PARTITION}:lambda:{region}:{account}:function:{name}"
    return arn if qualifier is None else f"{arn}:{qualifier}"


def parse_locator(text: str) -> Locator | None:
    """None when the text has none of the forms. A cut ARN such as `arn:aws:lambda:us-east-1:123456789012:function` has
    one: the name it carries is `function`, as the service reads it too."""
    match = _LOCATOR.fullmatch(text)
    if match is None:
        return None
    return Locator(match["name"], match["qualifier"], match["region"], match["account"])


def resolve(
    text: str,
    qualifier: str | None,
    *,
    account: str,
    region: str,
    principal: str,
    action: str,
    creating: bool = False,
    any_account: bool = False,
) -> FunctionAddress:
    """Complete what a client wrote from who it is and where it asked; `text` has passed validation.

    `action` and `principal` appear in the refusal of another account's function. With `any_account` such a function is
    not refused: whoever asks so has its resource policy decide.
    """
    locator = parse_locator(text)
    if locator is None:
        raise not_found(f"Function not found: {function_arn(region, account, text)}")
    if locator.region is not None and locator.region != region:
        raise not_found(f"Functions from '{locator.region}' are not reachable in this region ('{region}')")
    if qualifier is not None and locator.qualifier is not None and qualifier != locator.qualifier:
        raise invalid_parameter("The derived qualifier from the function name does not match the specified qualifier.")
    address = FunctionAddress(locator.account or account, region, locator.name, qualifier or locator.qualifier)
    if address.account != account:
        if creating:
            raise access_denied(None)
        if not any_account:
            raise denied_by_resource_policy(principal, action, address.arn)
    return address


def denied_by_resource_policy(principal: str, action: str, resource: str) -> ApiError:
    return access_denied(
        f"User: {principal} is not authorized to perform: {action} on resource: {resource}"
        f" because no resource-based policy allows the {action} action"
    )


def runtime_version_arn(region: str, runtime: str) -> str:
    """A stable stand-in for the version of the managed runtime that a function runs on."""
    digest = hashlib.sha256(f"fastlam runtime {runtime}".encode()).hexdigest()
    return f"arn:{PARTITION}:lambda:{region}::runtime:{digest}"
