"""Chains of invocations in trace headers."""

from __future__ import annotations

import pytest

from fastlam.dispatch.lineage import begun, mark_of, step

ROOT = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
A = mark_of("000000000000", "us-east-1", "a")
B = mark_of("000000000000", "us-east-1", "b")


def test_a_function_has_one_mark() -> None:
    assert A != B and len(A) == 8 and int(A, 16) >= 0
    assert mark_of("111111111111", "us-east-1", "a") != A != mark_of("000000000000", "eu-west-1", "a")


def test_a_new_chain() -> None:
    assert step(ROOT, A) == (f"{ROOT};Lineage=1:{A}:0", 0)
    assert begun("01234567-89ab-4cde-8f01-23456789abcd", A).trace == (
        f"Root=1-01234567-89ab4cde8f0123456789abcd;Parent=23456789abcd0123;Sampled=0;Lineage=1:{A}:0"
    )


def test_a_function_that_calls_itself() -> None:
    trace = ROOT
    for count in range(16):
        found = step(trace, A)
        assert found.trace == f"{ROOT};Lineage={count + 1}:{A}:{count}"
        assert not found.too_often
        trace = found.trace
    assert step(trace, A).too_often


def test_two_functions_that_call_each_other() -> None:
    trace = ROOT
    seen = []
    for hop in range(1, 34):
        found = step(trace, A if hop % 2 else B)
        seen.append(found.too_often)
        trace = found.trace
    assert seen == [False] * 32 + [True], "sixteen executions of each"


@pytest.mark.parametrize("lineage", ["", "x", f"1:{A}", f"1:{A}:-1", f"1:{A}:0,", "1:2:3", f"1:{A}:{'9' * 30}"])
def test_what_is_no_lineage_begins_anew(lineage: str) -> None:
    assert step(f"{ROOT};Lineage={lineage}", A) == (f"{ROOT};Lineage=1:{A}:0", 0)


def test_what_stands_behind_it_stays() -> None:
    assert step(f"Root=x;Lineage=3:{A}:1;Self=y", A) == (f"Root=x;Lineage=4:{A}:2;Self=y", 2)


def test_a_long_chain_stays_short() -> None:
    trace = ROOT
    for number in range(100):
        trace = step(trace, mark_of("000000000000", "us-east-1", f"f{number}")).trace
    assert len(trace) < 400
