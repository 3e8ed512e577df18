"""To an event bus: the body as the detail of an event."""

from __future__ import annotations

from fastlam.destinations.clients import Clients
from fastlam.destinations.parcel import REFUSED, UNREACHABLE, DeliveryError, Parcel


def send(parcel: Parcel, clients: Clients) -> None:
    answer = clients.client("events", parcel).put_events(
        Entries=[
            {
                "EventBusName": parcel.target_arn,
                "Source": "lambda",
                "DetailType": f"Lambda Function Invocation Result - {'Success' if parcel.succeeded else 'Failure'}",
                "Detail": parcel.body.decode(),
                "Resources": [parcel.target_arn, parcel.function_arn],
            }
        ]
    )
    if answer.get("FailedEntryCount"):
        entry = answer["Entries"][0]
        code = str(entry.get("ErrorCode", ""))
        kind = UNREACHABLE if code.startswith(("Internal", "Throttling")) else REFUSED
        raise DeliveryError(kind, f"{code}: {entry.get('ErrorMessage', '')}")
