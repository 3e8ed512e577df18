"""How much of an account's code storage is taken up."""

from __future__ import annotations

from fastlam.store.records import FUNCTION, LAYER_VERSION, VERSION, RecordStore


def stored_bytes(store: RecordStore, account: str, region: str) -> int:
    """The zips of all functions, versions and layer versions; what several share counts for each, as the service
    counts.
    """
    functions = sum(record.code_bytes for kind in (FUNCTION, VERSION) for record in store.list(kind, account, region))
    return functions + sum(record.code_bytes for record in store.list(LAYER_VERSION, account, region))
