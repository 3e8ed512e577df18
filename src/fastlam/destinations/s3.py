"""To a bucket: the body as an object. An attempt that is repeated writes the same one."""

from __future__ import annotations

from fastlam.destinations.clients import Clients
from fastlam.destinations.parcel import Parcel, resource_of


def send(parcel: Parcel, clients: Clients) -> None:
    clients.client("s3", parcel).put_object(
        Bucket=resource_of(parcel.target_arn),
        Key=parcel.object_key,
        Body=parcel.body,
        ContentType="application/octet-stream",
    )
