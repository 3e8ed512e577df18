"""AWS's own Python client, package awslambdaric, beside our worker: what tests that compare the two have in common."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fastlam.worker import marshaller

ric: Final = pytest.importorskip("awslambdaric.bootstrap")
ric_client: Final = importlib.import_module("awslambdaric.lambda_runtime_client")
ric_fault: Final = importlib.import_module("awslambdaric.lambda_runtime_exception").FaultException
ric_marshaller: Final = importlib.import_module("awslambdaric.lambda_runtime_marshaller")

ENVIRONMENTS: Final = ("AWS_Lambda_python3.11", "AWS_Lambda_python3.13")
REQUEST_ID: Final = "8f507cfc-xmpl-4697-b07a-ac58fc914c95"
ARN: Final = "arn:aws:lambda:us-east-1:000000000000:function:hello"
JSON_VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


def generated(examples: int) -> settings:
    """Fresh random examples at every run; a failure prints the blob that reproduces it."""
    return settings(
        max_examples=examples,
        derandomize=False,
        print_blob=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def theirs_of(execution_env: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_EXECUTION_ENV", execution_env)
        return ric_marshaller.LambdaMarshaller()


OURS: Final = {name: marshaller.Marshaller(name) for name in ENVIRONMENTS}
THEIRS: Final = {name: theirs_of(name) for name in ENVIRONMENTS}


class Recorder:
    """Stands for the C half of AWS's client: it keeps what would have gone out."""

    def __init__(self) -> None:
        self.sent: tuple[Any, ...] = ()

    def post_invocation_result(self, request_id: str, payload: bytes, content_type: str, _: Any) -> None:
        self.sent = ("payload", payload, content_type)

    def post_error(self, request_id: str, payload: str, xray_fault: str, _: Any) -> None:
        # The C half takes texts as UTF-8.
        self.sent = ("error", payload.encode())


@contextmanager
def recording() -> Iterator[Recorder]:
    """What AWS's client sends goes to a recorder."""
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder()
        patch.setattr(ric_client, "runtime_client", recorder)
        yield recorder
