"""Amazon MQ: whichever of its two brokers it is."""

from __future__ import annotations

from fastlam.sources.brokers import engine_of
from fastlam.sources.context import Context
from fastlam.sources.messages import MessagePoller
from fastlam.sources.pollers.activemq import ActivemqPoller
from fastlam.sources.pollers.rabbitmq import RabbitmqPoller


class MqPoller:
    """One queue of one broker."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        engine = await engine_of(self._context)
        poller: MessagePoller
        poller = RabbitmqPoller(self._context) if engine == "RABBITMQ" else ActivemqPoller(self._context)
        await poller.run()
