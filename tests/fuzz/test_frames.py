"""Arbitrary messages from an environment: none of them raises in the dispatcher, and only the sender is ended."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastlam.core.dispatcher import Invocation
from lane_bench import LaneBench, encoded

integers = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**64 - 1))
texts = st.one_of(st.sampled_from(["", "Runtime.ExitError", "Sandbox.Timedout", "Sandbox.Unavailable"]), st.text(max_size=40))
scalars = st.one_of(st.none(), st.booleans(), integers, st.floats(allow_nan=False), texts, st.binary(max_size=20))
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=9), st.dictionaries(texts, inner, max_size=3)), max_leaves=12
)
tagged = st.builds(lambda tag, fields: [tag, *fields], st.sampled_from([1, 2, 3, 4, 16, 17, 18, 19, 20]), st.lists(scalars, max_size=9))
plausible = st.one_of(
    st.builds(lambda *fields: [18, *fields], integers, integers, integers, integers, integers, texts, texts),
    st.builds(lambda *fields: [19, *fields], integers, integers, st.booleans()),
    st.builds(lambda *fields: [16, *fields], st.sampled_from([0, 1, 2]), integers, integers, integers),
    st.builds(lambda *fields: [17, *fields], st.sampled_from([1, 2]), integers, integers, integers, texts),
)


def cut(data: bytes, at: int) -> bytes:
    return data[: at % (len(data) + 1)]


headers = st.one_of(st.binary(max_size=60), st.one_of(values, tagged, plausible).map(msgspec.msgpack.encode))
messages = st.one_of(
    st.binary(max_size=80),
    st.builds(encoded, headers, st.binary(max_size=50)),
    st.builds(lambda data, at: cut(data, at), st.builds(encoded, headers), st.integers(0, 200)),
)


@pytest.fixture(scope="module")
def bench() -> Iterator[LaneBench]:
    made = LaneBench()
    yield made
    made.close()


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(sent=st.lists(messages, min_size=1, max_size=6), is_up=st.booleans())
@example(sent=[encoded(msgspec.msgpack.encode([18, 0, 0, 0, 0, 2**64 - 1, "", ""]))], is_up=True)
@example(sent=[encoded(msgspec.msgpack.encode([16, 1, 2**63, 0, 0]))], is_up=False)
@example(sent=[encoded(msgspec.msgpack.encode([17, 1, 0, 0, 0, "AB"]).replace(b"AB", b"\xff\xff"))], is_up=False)
def test_any_messages(bench: LaneBench, sent: list[bytes], is_up: bool) -> None:
    bystander, call = bench.submit(bench.function("bystander")), bench.submit(bench.function("fuzzed"))
    quiet, loud = sorted(bench.peers)[-2:]
    bench.ready(quiet)
    bench.received(quiet)
    if is_up:
        bench.ready(loud)
        bench.received(loud)
    peer = bench.peers[loud]
    for message in sent:
        peer.send(message)
    # This one always ends it, unless something before it has.
    peer.send(b"")
    assert bench.drive_until(lambda: loud not in bench.environments)
    assert not bystander.done
    assert bystander.running
    settle(bench, call)
    bench.environments[quiet].end("enough")
    assert bench.drive_until(lambda: bystander.done)
    assert call.done
    assert bench.dispatcher.statistics()["outstanding"] == 0
    assert bench.environments == {}


def settle(bench: LaneBench, call: Invocation) -> None:
    """A call whose environment did not come up has a second one: that is ended too."""
    while not call.done:
        bench.environments[max(bench.environments)].end("enough")
        bench.drive()
