"""Changes provisioned concurrency by its use and by the calendar, as Application Auto Scaling does for Lambda.

Target tracking looks at the highest utilization of each period (a minute): three in a row above the target make more of
it, fifteen in a row below nine tenths of the target make less, each time as much as would have met the target. Lives in
the driver's thread.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from fastlam.clock import Clock
from fastlam.errors import ApiError
from fastlam.model import schedule
from fastlam.model.autoscaling import AutoScalingRecord
from fastlam.model.key import RecordKey
from fastlam.model.provisioned_concurrency import ALLOCATING
from fastlam.store.records import AUTO_SCALING, PROVISIONED_CONCURRENCY, RecordStore

log = logging.getLogger(__name__)

PERIODS_ABOVE: Final = 3
PERIODS_BELOW: Final = 15
_LOW: Final = 0.9  # of the target


class _State:
    """Of one setting, while it stays what it is."""

    def __init__(self, record: AutoScalingRecord, now_ms: int) -> None:
        self.record = record
        self.looked_ms = now_ms
        self.above = 0
        self.below = 0


class AutoScaler:
    """`put` asks for so much provisioned concurrency, and raises ApiError where that cannot be."""

    def __init__(
        self,
        store: RecordStore,
        clock: Clock,
        utilization_most: Callable[[RecordKey], float | None],
        put: Callable[[RecordKey, int], object],
    ) -> None:
        self._store = store
        self._clock = clock
        self._utilization_most = utilization_most
        self._put = put
        self._states: dict[RecordKey, _State] = {}
        self._ticked_ms = clock.wall_ms()

    def tick(self) -> None:
        """Whatever is due since the last time."""
        now_ms = self._clock.wall_ms()
        after_ms, self._ticked_ms = self._ticked_ms, now_ms
        records = self._store.all(AUTO_SCALING)
        if len(records) != len(self._states):
            keys = {record.key for record in records}
            self._states = {key: state for key, state in self._states.items() if key in keys}
        for record in records:
            state = self._states.get(record.key)
            if state is None or state.record is not record:
                state = self._states[record.key] = _State(record, now_ms)
                self._bring_within(record)
            changed = self._by_calendar(record, after_ms, now_ms)
            if changed != record:
                state.record = changed
                self._store.put(AUTO_SCALING, changed)
                self._bring_within(changed)
            if now_ms - state.looked_ms >= record.period_seconds * 1000:
                state.looked_ms = now_ms
                self._track(changed, state)

    def _by_calendar(self, record: AutoScalingRecord, after_ms: int, now_ms: int) -> AutoScalingRecord:
        """The setting with the bounds that are due."""
        changed = record
        for action in record.scheduled:
            if schedule.parse(action.schedule).due(after_ms, now_ms, record.created_ms):
                minimum = changed.minimum if action.minimum is None else action.minimum
                maximum = changed.maximum if action.maximum is None else action.maximum
                # One bound alone may pass the other, which then goes along.
                maximum = max(minimum, maximum) if action.maximum is None else maximum
                changed = replace(changed, minimum=min(minimum, maximum), maximum=maximum)
        return changed

    def _bring_within(self, record: AutoScalingRecord) -> None:
        config = self._store.get(PROVISIONED_CONCURRENCY, record.key)
        requested = 0 if config is None else config.requested
        self._ask(record, requested, max(record.minimum, min(record.maximum, requested)))

    def _track(self, record: AutoScalingRecord, state: _State) -> None:
        config = self._store.get(PROVISIONED_CONCURRENCY, record.key)
        utilization = self._utilization_most(record.key)
        if record.target_utilization is None or config is None or utilization is None or config.status == ALLOCATING:
            return
        state.above = state.above + 1 if utilization > record.target_utilization else 0
        state.below = state.below + 1 if utilization < record.target_utilization * _LOW else 0
        if state.above >= PERIODS_ABOVE or state.below >= PERIODS_BELOW:
            state.above = state.below = 0
            wanted = math.ceil(config.requested * utilization / record.target_utilization - 1e-9)
            self._ask(record, config.requested, max(record.minimum, min(record.maximum, wanted)))

    def _ask(self, record: AutoScalingRecord, requested: int, wanted: int) -> None:
        if wanted == requested:
            return
        try:
            self._put(record.key, wanted)
        except ApiError as error:
            log.warning("%s:%s cannot be scaled to %d: %s", record.function, record.qualifier, wanted, error)
