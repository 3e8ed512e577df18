"""Locators: every form that the service accepts, against the pattern of its own model."""

from __future__ import annotations

import re

import pytest
from botocore.session import get_session
from hypothesis import example, given
from hypothesis import strategies as st

from fastlam.arn import FunctionAddress, function_arn, is_account, is_region, parse_locator, resolve
from fastlam.errors import ApiError

MODEL = get_session().get_service_model("lambda")
PATTERN = MODEL.shape_for("NamespacedFunctionName").metadata["pattern"]

names = st.from_regex(r"[a-zA-Z0-9-_]{1,64}", fullmatch=True)
qualifiers = st.one_of(st.none(), st.just("$LATEST"), st.from_regex(r"[a-zA-Z0-9-_]{1,30}", fullmatch=True))
regions = st.sampled_from(
    ["us-east-1", "eu-west-3", "us-gov-west-1", "us-iso-east-1", "us-isob-east-1", "eusc-de-east-1"]
)
accounts = st.from_regex(r"[0-9]{12}", fullmatch=True)
PIECES = ["arn", "aws", "aws-cn", "lambda", ":", "::", "us-east-1", "123456789012", "function", "$LATEST", "$LATEST.PUBLISHED",
          "name", "1", "$", ".", "/", " ", "\n", "é", ""]  # fmt: skip


@given(names, qualifiers, regions, accounts)
def test_every_form_gives_its_parts_back(name: str, qualifier: str | None, region: str, account: str) -> None:
    suffix = "" if qualifier is None else f":{qualifier}"
    for text, expected_region, expected_account in (
        (f"function:{name}{suffix}", None, None),
        (f"{account}:function:{name}{suffix}", None, account),
        (f"{region}:{account}:function:{name}{suffix}", region, account),
        (f"arn:aws:lambda:{region}:{account}:function:{name}{suffix}", region, account),
        (f"arn:aws-cn:lambda:{region}:{account}:function:{name}{suffix}", region, account),
    ):
        assert parse_locator(text) == (name, qualifier, expected_region, expected_account)
    assert (
        function_arn(region, account, name, qualifier) == f"arn:aws:lambda:{region}:{account}:function:{name}{suffix}"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello", ("hello", None, None, None)),
        ("hello:live", ("hello", "live", None, None)),
        ("function", ("function", None, None, None)),
        ("function:function", ("function", None, None, None)),
        ("arn:aws:lambda:us-east-1:123456789012:function", ("function", None, "us-east-1", "123456789012")),
        ("arn:aws:lambda:us-east-1:123456789012:function:f:$LATEST:1", None),
        ("123456789012", ("123456789012", None, None, None)),
        ("us-east-1:f", ("f", None, "us-east-1", None)),
        ("f:$latest", None),
        ("f:$LATEST", ("f", "$LATEST", None, None)),
        ("", None),
        ("f\n", None),
        ("f:", None),
        ("١٢٣", None),
    ],
)
def test_forms(text: str, expected: tuple[str | None, ...] | None) -> None:
    assert parse_locator(text) == expected


@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)))
@example("arn::lambda:name")
def test_accepts_exactly_what_the_model_accepts(text: str) -> None:
    assert (parse_locator(text) is not None) == (re.fullmatch(PATTERN, text, re.ASCII) is not None)


def complete(text: str, qualifier: str | None = None, creating: bool = False) -> FunctionAddress:
    return resolve(
        text,
        qualifier,
        account="000000000000",
        region="us-east-1",
        principal="me",
        action="lambda:GetFunction",
        creating=creating,
    )


def test_resolving() -> None:
    address = complete("hello")
    assert address == ("000000000000", "us-east-1", "hello", None)
    assert address.arn == address.unqualified_arn == "arn:aws:lambda:us-east-1:000000000000:function:hello"
    assert address.arn_with_version == address.arn + ":$LATEST"
    assert complete("hello:1").arn == address.arn + ":1"
    assert complete("hello", "1") == complete("hello:1") == complete("hello:1", "1")
    assert complete(address.arn, "live").arn_with_version == address.arn + ":live"


@pytest.mark.parametrize(
    ("text", "qualifier", "creating", "code", "message"),
    [
        (
            "hello:1",
            "2",
            False,
            "InvalidParameterValueException",
            "The derived qualifier from the function name does not match the specified qualifier.",
        ),
        (
            "arn:aws:lambda:eu-west-1:000000000000:function:hello",
            None,
            False,
            "ResourceNotFoundException",
            "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')",
        ),
        ("111111111111:function:hello", None, True, "AccessDeniedException", None),
        (
            "111111111111:function:hello",
            "$LATEST",
            False,
            "AccessDeniedException",
            (
                "User: me is not authorized to perform: lambda:GetFunction on resource:"
                " arn:aws:lambda:us-east-1:111111111111:function:hello:$LATEST because no resource-based policy allows the"
                " lambda:GetFunction action"
            ),
        ),
    ],
)
def test_refusals(text: str, qualifier: str | None, creating: bool, code: str, message: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        complete(text, qualifier, creating)
    assert (caught.value.code, caught.value.message) == (code, message)


def test_regions_and_accounts() -> None:
    assert is_region("us-east-1")
    assert not is_region("../../etc")
    assert not is_region("us-east-1\n")
    assert is_account("000000000000")
    assert not is_account("0000000000001")
    assert not is_account("AKIAIOSFODNN")
