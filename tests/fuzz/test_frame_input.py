"""Arbitrary messages from an environment: none of them raises in the dispatcher, and only the sender is ended."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastlam.core.dispatcher import OUTCOME_OK
from played_environments import staged

pytestmark = pytest.mark.lanes

integers = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**64 - 1))
texts = st.one_of(
    st.sampled_from(["", "Runtime.ExitError", "Sandbox.Timedout", "Sandbox.Unavailable"]), st.text(max_size=40)
)
scalars = st.one_of(st.none(), st.booleans(), integers, st.floats(allow_nan=False), texts, st.binary(max_size=20))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=9), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=12,
)
tagged = st.builds(
    lambda tag, fields: [tag, *fields],
    st.sampled_from([1, 2, 3, 4, 16, 17, 18, 19, 20, 21]),
    st.lists(scalars, max_size=9),
)
plausible = st.one_of(
    st.builds(lambda *fields: [18, *fields], integers, integers, integers, integers, integers, texts, texts),
    st.builds(lambda *fields: [19, *fields], integers, integers, st.booleans()),
    st.builds(lambda *fields: [20, *fields], integers, texts),
    st.builds(lambda *fields: [16, *fields], st.sampled_from([0, 1, 2, 3]), integers, integers, integers),
    st.builds(lambda *fields: [17, *fields], st.sampled_from([1, 2, 3]), integers, integers, integers, texts),
)


def encoded(header: bytes, payload: bytes = b"") -> bytes:
    return len(header).to_bytes(4, "little") + header + payload


def cut(data: bytes, at: int) -> bytes:
    return data[: at % (len(data) + 1)]


headers = st.one_of(st.binary(max_size=60), st.one_of(values, tagged, plausible).map(msgspec.msgpack.encode))
messages = st.one_of(
    st.binary(max_size=80),
    st.builds(encoded, headers, st.binary(max_size=50)),
    st.builds(lambda data, at: cut(data, at), st.builds(encoded, headers), st.integers(0, 200)),
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(sent=st.lists(messages, min_size=1, max_size=6), state=st.sampled_from(["starting", "posted", "begun"]))
@example(sent=[encoded(msgspec.msgpack.encode([18, 0, 0, 0, 0, 2**64 - 1, "", ""]))], state="begun")
@example(sent=[encoded(msgspec.msgpack.encode([16, 2, 2**63, 0, 0]))], state="starting")
@example(sent=[encoded(msgspec.msgpack.encode([17, 2, 0, 0, 0, "AB"]).replace(b"AB", b"\xff\xff"))], state="starting")
def test_any_messages(sent: list[bytes], state: str) -> None:
    with staged() as stage:
        bystander = stage.call(stage.function(timeout_ms=600_000))
        quiet = stage.played[0]
        quiet.ready()
        stage.drive()
        quiet.begin()
        call = stage.call(stage.function(timeout_ms=600_000))
        loud = stage.played[1]
        if state != "starting":
            loud.ready()
            stage.drive()
        if state == "begun":
            loud.begin()
        for data in sent:
            loud.say(data)
        stage.drive()
        if loud.state != "dead":
            loud.say(b"")  # this one always ends it
            stage.drive()
        assert loud.state == "dead"
        # Whatever it said: the other one has not noticed, and the call itself ends, at the latest in another environment.
        assert not bystander.done
        assert quiet.state == "busy"
        while not call.done:
            assert len(stage.played) <= 5
            stage.played[-1].say(b"")
            stage.drive()
        quiet.answer(0, b"null")
        stage.drive()
        assert bystander.outcome == OUTCOME_OK
        assert stage.dispatcher.statistics()["outstanding"] == 0
