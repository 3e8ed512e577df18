"""To a queue: the body as the message."""

from __future__ import annotations

from typing import Any

from fastlam.destinations.clients import Clients
from fastlam.destinations.parcel import Parcel, account_of, resource_of


def send(parcel: Parcel, clients: Clients) -> None:
    client = clients.client("sqs", parcel)
    arn = parcel.target_arn
    # Asked each time: a queue may have been deleted and made anew since.
    url = client.get_queue_url(QueueName=resource_of(arn), QueueOwnerAWSAccountId=account_of(arn))["QueueUrl"]
    message: dict[str, Any] = {"QueueUrl": url, "MessageBody": parcel.body.decode()}
    if parcel.attributes:
        message["MessageAttributes"] = {
            name: {"DataType": kind, "StringValue": value} for name, (kind, value) in parcel.attributes.items()
        }
    if parcel.trace:
        message["MessageSystemAttributes"] = {"AWSTraceHeader": {"DataType": "String", "StringValue": parcel.trace}}
    client.send_message(**message)
