"""Who calls: what is read from signatures, whole and broken ones."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from fastlam.api.caller import Defaults, caller_of

DEFAULTS = Defaults("000000000000", "us-east-1")


class SignedRequest:
    """The part of an HTTP request that carries a signature."""

    def __init__(self, authorization: bytes | None = None, query: bytes = b"") -> None:
        self.query = query
        self._authorization = authorization

    def header(self, name: bytes) -> bytes | None:
        return self._authorization if name == b"authorization" else None


def who(authorization: bytes | None = None, query: bytes = b"") -> tuple[str, str]:
    request: Any = SignedRequest(authorization, query)
    caller = caller_of(request, DEFAULTS)
    assert caller.principal == f"arn:aws:iam::{caller.account}:root"
    return caller.account, caller.region


@pytest.mark.parametrize(
    ("key", "region", "expected"),
    [
        ("123456789012", "eu-west-1", ("123456789012", "eu-west-1")),
        ("AKIAIOSFODNN7EXAMPLE", "us-gov-west-1", ("000000000000", "us-gov-west-1")),
        ("test", "local", ("000000000000", "us-east-1")),
        ("1234567890123", "", ("000000000000", "us-east-1")),
    ],
)
def test_botocores_signatures(key: str, region: str, expected: tuple[str, str]) -> None:
    request = AWSRequest("GET", "http://127.0.0.1/2015-03-31/functions")
    SigV4Auth(Credentials(key, "secret", "token"), "lambda", region).add_auth(request)
    assert who(request.headers["Authorization"].encode()) == expected
    request = AWSRequest("GET", "http://127.0.0.1/2015-03-31/functions?a=b")
    SigV4QueryAuth(Credentials(key, "secret", "token"), "lambda", region).add_auth(request)
    assert who(query=request.url.partition("?")[2].encode()) == expected


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"",
        b"AWS4-HMAC-SHA256",
        b"AWS4-HMAC-SHA256 Credential=",
        b"AWS4-HMAC-SHA256 Credential=a/b/c",
        b"AWS4-HMAC-SHA256 Credential=a/b/../../etc/x, Signature=1",
        b"AWS4-HMAC-SHA256 Credential=123/1/us-east-1;rm/lambda/aws4_request",
        b"Bearer 123456789012/20260101/eu-west-1/lambda/aws4_request",
        b"AWS4-HMAC-SHA256 SignedHeaders="
        + b"x" * 100_000
        + b", Credential=123456789012/1/eu-west-1/lambda/aws4_request",
        b"AWS4-HMAC-SHA256 Credential=%ff%2f/1/x\xff/lambda/aws4_request",
    ],
)
def test_what_is_malformed_gives_way_to_the_defaults(authorization: bytes | None) -> None:
    assert who(authorization) == DEFAULTS


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_never_anything_but_a_region_and_an_account(authorization: bytes, query: bytes) -> None:
    for prefix in (b"", b"AWS4-HMAC-SHA256 Credential="):
        account, region = who(prefix + authorization, b"X-Amz-Credential=" + query)
        assert len(account) == 12
        assert account.isdecimal()
        assert region == "us-east-1" or region.count("-") >= 2
