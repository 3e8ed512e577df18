"""Snapshots (SnapStart): each published version that asks for one has a template, from which its environments come.

    version (Pending) ──► template ──INIT, hooks──► Active
                              └──fails──► Failed, with the reason

Environments are forks of their template. Where INIT has left threads, which a fork has not, and the machine has criu,
there is another template, of which environments are copies; if no copy can be made of it, they are forks all the same.

The control plane writes that a version is Pending, this module how that ends. A template lives as long as the daemon
and the version do: one that dies is made again at once. Those of an earlier daemon are gone with it: a version that was
Active stays so, and its template is made when it is first called. Lives in the driver's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Final
from uuid import uuid4

from msgspec.structs import replace

from fastlam import limits
from fastlam.clock import Schedule
from fastlam.core.dispatcher import Dispatcher, ProvisionedTarget
from fastlam.dispatch.launching import takes_snapshots
from fastlam.dispatch.targets import Targets
from fastlam.errors import ApiError
from fastlam.model.function import ACTIVE, FAILED, PENDING, SUCCESSFUL, FunctionRecord
from fastlam.model.key import RecordKey
from fastlam.store.records import VERSION, Change, RecordStore
from fastlam.wire import control

log = logging.getLogger(__name__)

# By why a template could not be made: the kind that is tried instead.
_NEXT_KIND: Final = {control.THREADS_LEFT: control.COPIED, control.NOT_COPIED: control.FORKED}
_NOT_STARTED: Final = "Sandbox.Unavailable"
# By the failure of a template: StateReasonCode and StateReason of its version.
_REASONS: Final = {
    "Sandbox.Timedout": ("FunctionError.InitTimeout", "Initialization has timed out for this function."),
    "Runtime.ExitError": ("FunctionError.RuntimeInitError", "The function's process ended during its initialization."),
    "Runtime.BeforeSnapshotError": ("FunctionError", "A hook that runs before the snapshot failed."),
    _NOT_STARTED: ("InternalError", "The execution environment could not be started."),
}


class Snapshots:
    """Owner of the templates. `begin` once the functions' endpoint is known. `give_up(name, reason)` ends what waits
    for the template of that name. `impossible` says why this machine can make none of a version: its environments then
    have their own INIT.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: RecordStore,
        targets: Targets,
        schedule: Schedule,
        give_up: Callable[[str, str], None] = lambda name, reason: None,
        impossible: Callable[[FunctionRecord], str] = lambda record: "",
        copies: bool = False,
    ) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._targets = targets
        self._schedule = schedule
        self._give_up = give_up
        self._impossible = impossible
        self._copies = copies  # what cannot be forked soundly
        self._kinds: dict[RecordKey, str] = {}  # of templates that are not what is tried first
        self._templates: dict[RecordKey, ProvisionedTarget] = {}
        self._retry_seconds: dict[RecordKey, float] = {}
        self._retrying: set[RecordKey] = set()
        self._asked: set[RecordKey] = set()

    def begin(self) -> None:
        """Makes the templates of versions that wait for one."""
        self._store.watch(self._changed)
        for record in self._store.all(VERSION):
            if record.state == PENDING and takes_snapshots(record):
                self._ask(record.key)

    def want(self, key: RecordKey) -> None:
        """Environments are about to be restored from the template of this version."""
        if key not in self._templates:
            self._ask(key)

    def _changed(self, change: Change) -> None:
        if change.kind is not VERSION:
            return
        if change.record is None:
            self._forget(change.key)
        elif change.record.state == PENDING and takes_snapshots(change.record):
            self._ask(change.key)

    def _forget(self, key: RecordKey) -> None:
        self._templates.pop(key, None)
        self._retry_seconds.pop(key, None)
        self._kinds.pop(key, None)

    def _ask(self, key: RecordKey) -> None:
        """Not at once: the dispatcher may be in the middle of its work."""
        if not self._asked:
            self._schedule(0.0, self._look_at_all)
        self._asked.add(key)

    def _look_at_all(self) -> None:
        asked, self._asked = self._asked, set()
        for key in asked:
            record = self._store.get(VERSION, key)
            if record is None:
                self._forget(key)
            elif key in self._templates:
                self._look(record, self._templates[key])
            elif reason := self._impossible(record):
                if record.state == PENDING:
                    self._write(record, ACTIVE, f"No snapshot can be made on this machine: {reason}", None)
            elif record.state in (PENDING, ACTIVE):
                self._make(record)

    def _make(self, record: FunctionRecord) -> None:
        try:
            kind = self._kinds.get(record.key)
            template = self._targets.make_template(
                record.key, kind or control.FORKED, keeps_threads=kind is None and self._copies
            )
        except ApiError as error:
            code = "InvalidRuntime" if error.code == "InvalidRuntimeException" else "InternalError"
            self._failed(record, code, str(error))
            return
        template.on_progress = partial(self._ask, record.key)
        self._templates[record.key] = template
        self._dispatcher.provide(template, 1, 0)

    def _look(self, record: FunctionRecord, template: ProvisionedTarget) -> None:
        kind = self._kinds.get(record.key)
        if template.failure in _NEXT_KIND or (kind == control.COPIED and template.failure == _NOT_STARTED):
            self._kinds[record.key] = _NEXT_KIND.get(template.failure, control.FORKED)
            self._make(record)
        elif template.failure is not None:
            code, reason = _REASONS.get(
                template.failure,
                ("FunctionError", f"Initialization of the function failed with {template.failure}."),
            )
            if template.failure_reason:
                reason = f"{reason} {template.failure_reason}"
            self._failed(record, code, reason)
        elif template.up:
            self._retry_seconds.pop(record.key, None)
            if record.state == PENDING:
                self._write(record, ACTIVE, None, None)

    def _failed(self, record: FunctionRecord, code: str, reason: str) -> None:
        template = self._templates.get(record.key)
        if record.state == PENDING:
            self._forget(record.key)
            self._targets.drop_template(record.key)
            self._write(record, FAILED, reason, code)
        elif template is not None:
            # It had a snapshot, and cannot get it back: its calls fail until it can.
            self._give_up(template.spec.snapshot, reason)
            self._retry_later(record.key, template)

    def _retry_later(self, key: RecordKey, template: ProvisionedTarget) -> None:
        if key in self._retrying:
            return
        self._retrying.add(key)
        seconds = self._retry_seconds.get(key, 0.0)
        seconds = min(limits.PROVISIONED_RETRY_SECONDS_MAX, seconds * 2 or limits.PROVISIONED_RETRY_SECONDS)
        self._retry_seconds[key] = seconds

        def retry() -> None:
            self._retrying.discard(key)
            if self._templates.get(key) is template:
                self._dispatcher.provide(template, 1, 0)

        self._schedule(seconds, retry)

    def _write(self, record: FunctionRecord, state: str, reason: str | None, code: str | None) -> None:
        self._store.put(
            VERSION,
            replace(
                record,
                revision_id=str(uuid4()),
                state=state,
                state_reason=reason,
                state_reason_code=code,
                last_update_status=SUCCESSFUL if state == ACTIVE else record.last_update_status,
                last_update_status_reason=None,
                last_update_status_reason_code=None,
            ),
        )
