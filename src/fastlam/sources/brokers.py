"""Where a message broker is: what Amazon MQ says of its broker, or the URL of a mapping of fastlam's own."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastlam.sources.aws.reach import reach
from fastlam.sources.aws.service import AwsService
from fastlam.sources.context import Context, SourceProblem
from fastlam.sources.local import url_of, url_with_user
from fastlam.sources.secrets import user_of


async def broker_urls(context: Context, *schemes: str) -> list[str]:
    """The addresses of the broker for one of these schemes, with user and password in them."""
    if context.mapping.source != "mq":
        return [await url_with_user(context)]
    broker = context.arn.rpartition(":")[2]

    async def described(client: AwsService) -> Any:
        return await client.call("DescribeBroker", BrokerId=broker)

    _, answer = await reach(context, "mq", described)
    user = await user_of(context)
    found = []
    for instance in answer.get("BrokerInstances") or ():
        for endpoint in instance.get("Endpoints") or ():
            scheme, _, address = endpoint.partition("://")
            if scheme in schemes:
                name = "" if user is None else f"{quote(user[0], safe='')}:{quote(user[1], safe='')}@"
                found.append(f"{scheme}://{name}{address}")
    if not found:
        raise SourceProblem(f"The broker {context.arn} has no endpoint for {' or '.join(schemes)}.")
    return found


async def engine_of(context: Context) -> str:
    """RABBITMQ or ACTIVEMQ."""
    if context.mapping.source != "mq":
        return "RABBITMQ" if url_of(context).startswith("amqp") else "ACTIVEMQ"
    broker = context.arn.rpartition(":")[2]

    async def described(client: AwsService) -> Any:
        return await client.call("DescribeBroker", BrokerId=broker)

    _, answer = await reach(context, "mq", described)
    return str(answer.get("EngineType", "ACTIVEMQ")).upper()
