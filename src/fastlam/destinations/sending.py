"""Sends parcels: one attempt each, on threads that are started when there is something to send."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from fastlam import limits
from fastlam.abc import EventInvoker
from fastlam.destinations import eventbridge, function, s3, sns, sqs
from fastlam.destinations.clients import Clients, delivery_error
from fastlam.destinations.parcel import IMPOSSIBLE, DeliveryError, Parcel

log = logging.getLogger(__name__)

Sent = Callable[[DeliveryError | None], None]
"""`sent(None)`: it is there."""

# What takes a message has a limit on it; attributes count.
MESSAGE_BYTES_MAX: Final = 1_048_576
_LIMITED: Final = frozenset({"sqs", "sns", "events"})
_KINDS: Final[dict[str, Callable[[Parcel, Clients], None]]] = {
    "sqs": sqs.send,
    "sns": sns.send,
    "events": eventbridge.send,
    "s3": s3.send,
}


class Sender(Protocol):
    def send(self, parcel: Parcel, sent: Sent) -> None:
        """One attempt; `sent` is called once, in the owner's thread, perhaps at once."""


class Destinations:
    """`in_owner` has the owner's thread run a callback, whichever thread asks."""

    def __init__(
        self,
        clients: Clients,
        invoke_event: EventInvoker,
        in_owner: Callable[[Callable[[], None]], object],
    ) -> None:
        self._clients = clients
        self._invoke_event = invoke_event
        self._in_owner = in_owner
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False

    def send(self, parcel: Parcel, sent: Sent) -> None:
        service = parcel.service
        if service == "lambda":
            function.send(parcel, self._invoke_event, sent)
            return
        send = _KINDS.get(service)
        if send is None:
            sent(DeliveryError(IMPOSSIBLE, f"{parcel.target_arn} is no destination"))
            return
        size = len(parcel.body) + sum(
            len(name) + len(kind) + len(value.encode()) for name, (kind, value) in parcel.attributes.items()
        )
        if service in _LIMITED and size > MESSAGE_BYTES_MAX:
            sent(DeliveryError(IMPOSSIBLE, f"it has {size} bytes, and {MESSAGE_BYTES_MAX} are the most there"))
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(limits.DELIVERY_THREADS_MAX, thread_name_prefix="fastlam-deliver")
        self._threads.submit(self._attempt, send, parcel, sent)

    def _attempt(self, send: Callable[[Parcel, Clients], None], parcel: Parcel, sent: Sent) -> None:
        failure: DeliveryError | None = None
        try:
            send(parcel, self._clients)
        except Exception as error:  # noqa: BLE001 - whoever sent it decides what is next
            failure = delivery_error(error, self._clients.endpoint_of(parcel.service))
        if not self._closed:
            self._in_owner(lambda: sent(failure))

    def close(self) -> None:
        """What is under way ends within its own timeouts, and is not told."""
        self._closed = True
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
        self._clients.close()
