"""Provisioned concurrency as the control plane knows it: requests and refusals, and how the account's concurrency is
divided. What makes environments is played.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlam.control.concurrency import AccountConcurrency
from fastlam.model.concurrency import ReservedConcurrencyRecord
from fastlam.model.key import RecordKey
from fastlam.model.provisioned_concurrency import ProvisionedConcurrencyRecord
from fastlam.store.memory import MemoryStore
from fastlam.store.records import PROVISIONED_CONCURRENCY, RESERVED_CONCURRENCY
from memory_plane import CALLER, MemoryPlane, refused

KEY = RecordKey(CALLER.account, CALLER.region, "hello", "live")
ALREADY = "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"


@pytest.fixture
def plane(tmp_path: Path) -> MemoryPlane:
    """With a function of two versions, the first of which is also `live`."""
    plane = MemoryPlane(tmp_path)
    plane.create()
    plane.publish(content="one")
    plane.publish(content="two")
    plane.alias("live", "1")
    return plane


def on(qualifier: str, wanted: int | None = None, name: str = "hello") -> dict[str, Any]:
    asked = {"FunctionName": name, "Qualifier": qualifier}
    return asked if wanted is None else asked | {"ProvisionedConcurrentExecutions": wanted}


def put(plane: MemoryPlane, qualifier: str, wanted: int, name: str = "hello") -> ProvisionedConcurrencyRecord:
    return plane.provisioned_concurrency.put(CALLER, on(qualifier, wanted, name))


def get(plane: MemoryPlane, qualifier: str = "live") -> ProvisionedConcurrencyRecord:
    return plane.provisioned_concurrency.get(CALLER, on(qualifier))


def progress(record: ProvisionedConcurrencyRecord) -> tuple[str, int, int]:
    return record.status, record.requested, record.allocated


def test_allocation(plane: MemoryPlane) -> None:
    made = put(plane, "live", 5)
    assert progress(made) == progress(get(plane)) == ("IN_PROGRESS", 5, 0)
    assert made.last_modified == "2026-01-01T00:00:05+0000"
    plane.clock.advance(1)
    assert progress(get(plane)) == ("READY", 5, 5)
    assert get(plane).last_modified == made.last_modified


def test_what_is_allocated_goes_on_serving(plane: MemoryPlane) -> None:
    put(plane, "live", 5)
    plane.clock.advance(1)
    assert progress(put(plane, "live", 8)) == ("IN_PROGRESS", 8, 5)
    plane.clock.advance(1)
    assert progress(put(plane, "live", 2)) == ("IN_PROGRESS", 2, 2)


def test_deleted_before_it_is_ready(plane: MemoryPlane) -> None:
    put(plane, "live", 5)
    plane.provisioned_concurrency.delete(CALLER, on("live"))
    plane.clock.advance(1)
    assert plane.store.get(PROVISIONED_CONCURRENCY, KEY) is None
    plane.provisioned_concurrency.delete(CALLER, on("live"))  # once more


@pytest.mark.parametrize(
    ("move", "again"),
    [
        ({"FunctionVersion": "2"}, True),
        ({"RoutingConfig": {"AdditionalVersionWeights": {"2": 0.5}}}, True),
        ({"FunctionVersion": "1", "Description": "the same"}, False),
    ],
)
def test_moving_an_alias_allocates_again(plane: MemoryPlane, move: dict[str, Any], again: bool) -> None:
    put(plane, "live", 5)
    plane.clock.advance(1)
    before = get(plane)
    plane.aliases.update(CALLER, {"FunctionName": "hello", "Name": "live", **move})
    assert progress(get(plane)) == (("IN_PROGRESS", 5, 5) if again else ("READY", 5, 5))
    plane.clock.advance(1)
    assert get(plane) == before


def test_one_configuration_for_a_version(plane: MemoryPlane) -> None:
    put(plane, "live", 5)
    assert refused("ResourceConflictException", put, plane, "1", 1) == (
        "Version is pointed by a Provisioned Concurrency alias"
    )
    plane.alias("other", "1")
    assert refused("ResourceConflictException", put, plane, "other", 1) == ALREADY
    put(plane, "2", 1)
    plane.alias("second", "2")
    assert refused("ResourceConflictException", put, plane, "second", 1) == ALREADY
    plane.alias("both", "1", RoutingConfig={"AdditionalVersionWeights": {"2": 0.1}})
    assert refused("ResourceConflictException", put, plane, "both", 1) == ALREADY
    assert len(plane.store.all(PROVISIONED_CONCURRENCY)) == 2


def test_an_alias_does_not_move_onto_a_provisioned_version(plane: MemoryPlane) -> None:
    put(plane, "live", 5)
    put(plane, "2", 5)
    update = {"FunctionName": "hello", "Name": "live"}
    assert refused("ResourceConflictException", plane.aliases.update, CALLER, update | {"FunctionVersion": "2"}) == (
        ALREADY
    )
    assert refused(
        "InvalidParameterValueException", plane.aliases.update, CALLER, update | {"FunctionVersion": "$LATEST"}
    ) == "Provisioned Concurrency Configs cannot be applied to unpublished function versions."  # fmt: skip
    assert plane.aliases.get(CALLER, update).function_version == "1"
    plane.provisioned_concurrency.delete(CALLER, on("live"))
    plane.aliases.update(CALLER, update | {"FunctionVersion": "2"})  # an alias without a configuration may


def test_goes_with_what_it_was_set_on(plane: MemoryPlane) -> None:
    put(plane, "live", 5)
    put(plane, "2", 5)
    plane.aliases.delete(CALLER, {"FunctionName": "hello", "Name": "live"})
    assert [record.qualifier for record in plane.store.all(PROVISIONED_CONCURRENCY)] == ["2"]
    plane.functions.delete(CALLER, {"FunctionName": "hello", "Qualifier": "2"})
    assert plane.store.all(PROVISIONED_CONCURRENCY) == []
    put(plane, "1", 5)
    plane.functions.delete(CALLER, {"FunctionName": "hello"})
    assert plane.store.all(PROVISIONED_CONCURRENCY) == []


def test_within_the_reservation(plane: MemoryPlane) -> None:
    reserve = plane.reserved_concurrency.put
    reserve(CALLER, {"FunctionName": "hello", "ReservedConcurrentExecutions": 10})
    put(plane, "live", 6)
    too_many = (
        "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
    )
    assert refused("InvalidParameterValueException", put, plane, "2", 5) == too_many
    put(plane, "2", 4)
    put(plane, "live", 6)  # in the place of the first
    assert refused("InvalidParameterValueException", put, plane, "live", 7) == too_many
    assert refused(
        "InvalidParameterValueException", reserve, CALLER, {"FunctionName": "hello", "ReservedConcurrentExecutions": 9}
    ) == " ReservedConcurrentExecutions  9 should not be lower than function's total provisioned concurrency [10]."  # fmt: skip
    assert plane.account_settings.get(CALLER).unreserved_concurrency == 990
    plane.reserved_concurrency.delete(CALLER, {"FunctionName": "hello"})
    assert plane.account_settings.get(CALLER).unreserved_concurrency == 990


def test_within_the_account(plane: MemoryPlane) -> None:
    below = "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its"
    put(plane, "live", 900)
    put(plane, "live", 900)  # in the place of the first, not beside it
    assert refused("InvalidParameterValueException", put, plane, "live", 901) == f"{below} minimum value of [100]."
    assert refused("InvalidParameterValueException", put, plane, "2", 1) == f"{below} minimum value of [100]."
    assert refused("InvalidParameterValueException", put, plane, "2", 101) == (
        "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency [100]."
    )
    plane.create("other")
    reserve = plane.reserved_concurrency.put
    assert "below its minimum value of [100]" in refused(
        "InvalidParameterValueException", reserve, CALLER, {"FunctionName": "other", "ReservedConcurrentExecutions": 1}
    )
    reserve(
        CALLER, {"FunctionName": "hello", "ReservedConcurrentExecutions": 900}
    )  # takes its own into the reservation
    assert plane.account_settings.get(CALLER).unreserved_concurrency == 100


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"TenancyConfig": {"TenantIsolationMode": "PER_TENANT"}},
            "Provisioned concurrency is not supported for functions with tenancy configuration.",
        ),
        (
            {"SnapStart": {"ApplyOn": "PublishedVersions"}, "Runtime": "python3.13"},
            "Provisioned concurrency is not supported for SnapStart enabled functions.",
        ),
    ],
)
def test_not_beside(plane: MemoryPlane, more: dict[str, Any], message: str) -> None:
    plane.create("apart", **more)
    plane.publish("apart")
    assert refused("InvalidParameterValueException", put, plane, "1", 1, "apart") == message
    assert plane.store.all(PROVISIONED_CONCURRENCY) == []


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(0, 50)),
    st.dictionaries(st.tuples(st.sampled_from("abc"), st.sampled_from("123")), st.integers(1, 50)),
)
def test_the_parts_make_up_the_account(reserved: dict[str, int], provisioned: dict[tuple[str, str], int]) -> None:
    store = MemoryStore()
    place: dict[str, Any] = {"account": CALLER.account, "region": CALLER.region}
    for name, concurrency in reserved.items():
        store.put(RESERVED_CONCURRENCY, ReservedConcurrencyRecord(**place, name=name, concurrency=concurrency))
    for (name, qualifier), requested in provisioned.items():
        record = ProvisionedConcurrencyRecord(
            **place, function=name, qualifier=qualifier, requested=requested, last_modified=""
        )
        store.put(PROVISIONED_CONCURRENCY, record)
    account = AccountConcurrency(store, 1000)
    unreserved = account.unreserved(CALLER.account, CALLER.region)
    apart = sum(count for (name, _), count in provisioned.items() if name not in reserved)
    assert unreserved + sum(reserved.values()) + apart == 1000
    for name, count in reserved.items():
        key = RecordKey(CALLER.account, CALLER.region, name)
        assert account.unreserved(CALLER.account, CALLER.region, besides=key) == unreserved + count
    for (name, qualifier), count in provisioned.items():
        key = RecordKey(CALLER.account, CALLER.region, name, qualifier)
        freed = 0 if name in reserved else count
        assert account.unreserved(CALLER.account, CALLER.region, besides=key) == unreserved + freed
        total = sum(each for (owner, _), each in provisioned.items() if owner == name)
        assert account.provisioned(key) == total
        assert account.provisioned(key, besides=key) == total - count
    assert account.unreserved("111111111111", CALLER.region) == 1000
