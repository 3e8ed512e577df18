"""How the parts of asynchronous invocation are put together, and in which order they are closed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastlam.clock import Clock, Schedule
from fastlam.core.dispatcher import Dispatcher
from fastlam.destinations.clients import Clients
from fastlam.destinations.sending import Destinations
from fastlam.dispatch.targets import Targets
from fastlam.invoke.deliveries import Deliveries
from fastlam.invoke.event import Events
from fastlam.invoke.settings import StoredSettings
from fastlam.store.queue import EventQueue, MemoryQueue
from fastlam.store.queue_sqlite import SqliteQueue
from fastlam.store.records import RecordStore

Soon = Callable[[Callable[[], None]], object]


def open_events(
    dispatcher: Dispatcher,
    targets: Targets,
    store: RecordStore,
    *,
    path: Path | None,
    clients: Clients,
    clock: Clock,
    schedule: Schedule,
    later: Schedule,
    soon: Soon,
    in_owner: Soon,
    retry_seconds: float,
    closers: list[Callable[[], Any]],
) -> Events:
    """With a queue in memory where there is no `path`. `soon` runs a callback at the end of the owner's turn,
    `in_owner` from whichever thread; `later` is real time, `schedule` goes by `clock`.
    """
    keeper: EventQueue = MemoryQueue(soon)
    if path is not None:
        keeper = SqliteQueue(path, soon=soon, from_writer=in_owner, later=later)
    closers.append(keeper.close)
    events: Events
    destinations = Destinations(clients, lambda *asked: events.invoke(*asked), in_owner)
    closers.append(destinations.close)
    events = Events(
        dispatcher,
        keeper,
        Deliveries(keeper, destinations, schedule=schedule, clock=clock),
        resolve=targets.resolve,
        resolve_accepted=targets.resolve_accepted,
        settings=StoredSettings(store),
        schedule=schedule,
        clock=clock,
        later=later,
        retry_seconds=retry_seconds,
    )
    closers.append(events.close)
    return events
