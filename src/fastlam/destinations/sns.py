"""To a topic: the body as the message, without a subject."""

from __future__ import annotations

from typing import Any

from fastlam.destinations.clients import Clients
from fastlam.destinations.parcel import Parcel


def send(parcel: Parcel, clients: Clients) -> None:
    message: dict[str, Any] = {"TopicArn": parcel.target_arn, "Message": parcel.body.decode()}
    if parcel.attributes:
        message["MessageAttributes"] = {
            name: {"DataType": kind, "StringValue": value} for name, (kind, value) in parcel.attributes.items()
        }
    clients.client("sns", parcel).publish(**message)
