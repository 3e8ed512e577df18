"""Every operation that has a handler, by name: one line a resource."""

from __future__ import annotations

from typing import Final

from fastlam.api import (
    account_settings,
    aliases,
    capacity_providers,
    code_signing,
    concurrency,
    durable,
    event_invoke,
    event_source_mappings,
    functions,
    layers,
    permissions,
    provisioned_concurrency,
    recursion,
    runtime_management,
    scaling,
    tags,
    urls,
    versions,
)
from fastlam.api.code import CodeLinks
from fastlam.api.support import Entries
from fastlam.control.plane import ControlPlane

# Invocations are supported too; each has a route of its own, which reads its requests itself (api/invoke*.py). What a
# reader should know of it, "" mostly:
INVOCATIONS: Final[dict[str, str]] = {
    "Invoke": "an event (InvocationType Event) is on disk before it is acknowledged, and runs at least once; with"
    " --ephemeral it is kept in memory",
    "InvokeAsync": "as Invoke with an event",
    "InvokeWithResponseStream": "",
}


def entries(plane: ControlPlane, links: CodeLinks) -> Entries:
    return permissions.guarded(plane.permissions, _entries(plane, links))


def _entries(plane: ControlPlane, links: CodeLinks) -> Entries:
    return {
        **functions.entries(plane.functions, links),
        **versions.entries(plane.versions, plane.functions),
        **aliases.entries(plane.aliases),
        **permissions.entries(plane.permissions),
        **tags.entries(plane.tags),
        **urls.entries(plane.urls, links),
        **event_invoke.entries(plane.event_invoke),
        **event_source_mappings.entries(plane.event_source_mappings),
        **layers.entries(plane.layers, links),
        **concurrency.entries(plane.reserved_concurrency),
        **provisioned_concurrency.entries(plane.provisioned_concurrency),
        **account_settings.entries(plane.account_settings),
        **code_signing.entries(plane.code_signing),
        **runtime_management.entries(plane.runtime_management),
        **recursion.entries(plane.recursion),
        **scaling.entries(plane.scaling),
        **capacity_providers.entries(plane.capacity_providers),
        **durable.entries(plane.durable_executions),
    }
