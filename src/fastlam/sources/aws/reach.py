"""Who a source is read as: the function's role, or the credentials themselves where that has no such resource."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastlam.sources.aws.service import AwsError, AwsService
from fastlam.sources.context import Context

_T = TypeVar("_T")


async def reach(
    context: Context, service: str, attempt: Callable[[AwsService], Awaitable[_T]]
) -> tuple[AwsService, _T]:
    """The client with which the attempt went well, and its result.

    An emulator gives everybody a role, perhaps of an account in which it keeps nothing: there the credentials
    themselves are tried next. AWS is asked as the role only.
    """
    client = await context.aws(service)
    try:
        return client, await attempt(client)
    except AwsError as refusal:
        if refusal.busy or context.around.aws.is_aws(service):
            raise
    client = await context.aws(service, plain=True)
    return client, await attempt(client)
