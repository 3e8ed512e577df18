"""How many requests a second an account may make of the control plane."""

from __future__ import annotations

import pytest

from fastlam.api.rates import OTHERS, PER_SECOND, RequestRates
from fastlam.clock import VirtualClock
from fastlam.control.authorize import Caller
from fastlam.errors import ApiError
from memory_plane import ACCOUNT, REGION

ME = Caller(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root", REGION)


def taken(rates: RequestRates, operation: str, tries: int, caller: Caller = ME) -> int:
    """How many of so many requests at once are taken."""
    count = 0
    for _ in range(tries):
        try:
            rates.take(caller, operation)
            count += 1
        except ApiError as error:
            assert (error.code, error.message) == ("TooManyRequestsException", "Rate exceeded")
            assert error.fields == {"Reason": "CallerRateLimitExceeded"}
    return count


@pytest.mark.parametrize(
    ("operation", "most"), [("GetFunction", 100), ("GetPolicy", 15), ("CreateFunction", 15), ("ListTags", 15)]
)
def test_so_many_a_second(operation: str, most: int) -> None:
    clock = VirtualClock()
    rates = RequestRates(clock)
    assert taken(rates, operation, 200) == most
    clock.advance(0.4)
    assert taken(rates, operation, 200) == most * 0.4
    clock.advance(3600)
    assert taken(rates, operation, 200) == most, "what is unused does not accumulate"


def test_all_others_together() -> None:
    rates = RequestRates(VirtualClock())
    assert taken(rates, "ListFunctions", 10) == 10
    assert taken(rates, "TagResource", 10) == PER_SECOND[OTHERS] - 10
    assert taken(rates, "GetPolicy", 1) == taken(rates, "GetFunction", 1) == 1


def test_each_account_and_region_for_itself() -> None:
    rates = RequestRates(VirtualClock())
    taken(rates, "GetPolicy", 20)
    assert taken(rates, "GetPolicy", 20, ME._replace(region="eu-west-1")) == 15
    assert taken(rates, "GetPolicy", 20, ME._replace(account="123456789012")) == 15


def test_whoever_has_gone_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastlam.api.rates._BUCKETS_MAX", 100)
    clock = VirtualClock()
    rates = RequestRates(clock)
    for number in range(1000):
        rates.take(ME._replace(account=f"{number:012}"), "GetPolicy")
        clock.advance(0.02)
    assert len(rates._left) <= 100
    assert taken(rates, "GetPolicy", 20, ME._replace(account=f"{999:012}")) == 14, "those that are not full are kept"
