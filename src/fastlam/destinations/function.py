"""To a function of ours: the body as an asynchronous event."""

from __future__ import annotations

from collections.abc import Callable

from fastlam.abc import EventInvoker
from fastlam.destinations.parcel import IMPOSSIBLE, REFUSED, UNREACHABLE, DeliveryError, Parcel
from fastlam.errors import ApiError


def send(parcel: Parcel, invoke_event: EventInvoker, done: Callable[[DeliveryError | None], None]) -> None:
    """No thread is needed: it is accepted in the calling one."""

    def accepted(error: ApiError | None) -> None:
        done(None if error is None else _failure(error))

    try:
        invoke_event(parcel.target_arn, parcel.body, parcel.trace, accepted)
    except ApiError as error:
        done(_failure(error))


def _failure(error: ApiError) -> DeliveryError:
    if error.status >= 500 or error.status == 429:
        return DeliveryError(UNREACHABLE, f"{error.code}: {error}")
    return DeliveryError(IMPOSSIBLE if error.status == 413 else REFUSED, f"{error.code}: {error}")
