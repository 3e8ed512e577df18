"""What a function has answered about its batch: which of the records have failed (ReportBatchItemFailures)."""

from __future__ import annotations

from typing import Any, Final

import msgspec


class WholeBatch:
    """Every record has failed: the answer says so, or cannot be understood."""


WHOLE_BATCH: Final = WholeBatch()


def failed_items(payload: bytes) -> list[Any] | WholeBatch:
    """The identifiers of records that the function says have failed, as it has given them: texts, or what else a kind
    of source has.
    """
    try:
        answer = msgspec.json.decode(payload) if payload else None
    except msgspec.DecodeError:
        return WHOLE_BATCH
    if not answer:
        return []
    if not isinstance(answer, dict):
        return WHOLE_BATCH
    failures = answer.get("batchItemFailures")
    if not failures:
        return []
    if not isinstance(failures, list):
        return WHOLE_BATCH
    found = []
    for failure in failures:
        if failure == {}:
            continue  # names nothing
        identifier = failure.get("itemIdentifier") if isinstance(failure, dict) else None
        if not identifier:
            return WHOLE_BATCH
        found.append(identifier)
    return found


def failed_texts(payload: bytes, known: set[str] | dict[str, Any]) -> set[str] | WholeBatch:
    """As `failed_items`, where identifiers are texts: one that was never sent makes it the whole batch."""
    items = failed_items(payload)
    if isinstance(items, WholeBatch):
        return items
    if not all(isinstance(item, str) and item in known for item in items):
        return WHOLE_BATCH
    return set(items)
