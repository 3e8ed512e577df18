"""The context object's own behaviour over time; its shape is compared with AWS's client elsewhere."""

from __future__ import annotations

import time

import pytest

from fastlam.worker import context, faults


def test_remaining_time_ends_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    made = context.ContextFactory({}).make("id", 5_000, "arn")
    remaining = []
    for now_seconds in (2.0, 4.9994, 4.9999, 5.0, 6.5):
        monkeypatch.setattr(time, "time", lambda now=now_seconds: now)
        remaining.append(made.get_remaining_time_in_millis())
    assert remaining == [3000, 1, 1, 0, 0]


def test_contexts_share_nothing_that_can_change() -> None:
    factory = context.ContextFactory({"AWS_LAMBDA_FUNCTION_NAME": "hello"})
    first, second = factory.make("1", 0, "arn"), factory.make("2", 0, "arn")
    first.identity.cognito_identity_id = "changed"
    first.function_name = "changed"
    first.added = True  # type: ignore[attr-defined]
    first.w3c()["traceparent"] = "changed"
    assert (second.identity.cognito_identity_id, second.function_name, second.w3c()) == (None, "hello", {})
    assert not hasattr(second, "added")


def test_later_changes_of_the_environment_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128"}
    factory = context.ContextFactory(environ)
    environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] = "256"
    assert factory.make("id", 0, "arn").memory_limit_in_mb == "128"


def test_texts_that_are_not_json_are_faults() -> None:
    factory = context.ContextFactory({})
    with pytest.raises(faults.Fault) as caught:
        factory.make("id", 0, "arn", "{")
    assert caught.value.error_type == "Runtime.LambdaContextUnmarshalError"
    assert caught.value.message.startswith("Unable to parse Client Context JSON: Expecting property name")
    with pytest.raises(faults.Fault, match="Unable to parse Cognito Identity JSON: "):
        factory.make("id", 0, "arn", None, "{")
