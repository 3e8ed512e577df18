"""Policies against requests: wildcards and ARNs by their definition, principals, conditions, and what beats what."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastlam.control.authorize import Caller
from fastlam.control.policy_evaluation import (
    Decision,
    access_request,
    allows,
    arn_like,
    decide,
    is_operator,
    like,
)

OWNER, OTHER = "000000000000", "111122223333"
FUNCTION = f"arn:aws:lambda:us-east-1:{OWNER}:function:hello"
INVOKE = "lambda:InvokeFunction"
ROOT = Caller(OTHER, f"arn:aws:iam::{OTHER}:root", "us-east-1")
ROLE = Caller(OTHER, f"arn:aws:iam::{OTHER}:role/team/deploy", "us-east-1")
SESSION = Caller(OTHER, f"arn:aws:sts::{OTHER}:assumed-role/deploy/me", "us-east-1")
BUCKET = Caller(OWNER, "s3.amazonaws.com", "us-east-1", "arn:aws:s3:::pictures")


def statement(**more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Principal": "*", "Action": INVOKE, "Resource": FUNCTION} | more


def allowed(caller: Caller = ROOT, action: str = INVOKE, resource: str = FUNCTION, **more: Any) -> bool:
    return allows([statement(**more)], caller, action, resource)


# ---- wildcards ---------------------------------------------------------------------------------------

letters = st.text("ab", max_size=8)
patterns = st.text("ab*?", max_size=8)


@given(patterns, letters)
@example("*", "")
@example("a*b*a", "abba")
def test_wildcards_mean_what_they_say(pattern: str, text: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(character, character) for character in pattern)
    assert like(pattern, text) == (re.fullmatch(expression, text) is not None)


def test_a_hostile_pattern_takes_no_time() -> None:
    """Backtracking would take longer than the universe."""
    assert not like("*a" * 5000 + "b", "a" * 250)
    assert like("*a" * 100 + "*", "a" * 250)


segments = st.text("abc-/", max_size=5)
arns = st.lists(segments, min_size=6, max_size=8).map(":".join)


@given(arns)
def test_an_arn_is_like_itself_and_like_stars(arn: str) -> None:
    assert arn_like(arn, arn)
    assert arn_like("*:*:*:*:*:*", arn)
    assert arn_like("*", arn)
    assert not arn_like("*:*:*:*:*", arn)  # a part is missing


@given(st.lists(segments, min_size=6, max_size=6), st.integers(0, 4))
def test_a_star_does_not_reach_over_the_colons_of_an_arn(parts: list[str], part: int) -> None:
    merged = [*parts[:part], "*", *parts[part + 2 :]]  # one star in the place of two parts
    assert not arn_like(":".join(merged), ":".join(parts))


def test_a_star_reaches_over_colons_in_the_resource() -> None:
    assert arn_like(f"{FUNCTION}:*", f"{FUNCTION}:live")
    assert arn_like(
        "arn:aws:execute-api:us-east-1:*:api/*/GET/*", f"arn:aws:execute-api:us-east-1:{OWNER}:api/p/GET/a:b"
    )
    assert not arn_like(f"{FUNCTION}:*", FUNCTION)
    assert not arn_like(FUNCTION, f"{FUNCTION}:live")
    assert not arn_like("arn:aws:lambda:us-*:function:hello", FUNCTION)


# ---- who ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("principal", "meant"),
    [
        ("*", {ROOT, ROLE, SESSION, BUCKET}),
        ({"AWS": "*"}, {ROOT, ROLE, SESSION, BUCKET}),
        ({"AWS": f"arn:aws:iam::{OTHER}:root"}, {ROOT, ROLE, SESSION}),
        ({"AWS": OTHER}, {ROOT, ROLE, SESSION}),
        ({"AWS": [OWNER, OTHER]}, {ROOT, ROLE, SESSION}),
        ({"AWS": OWNER}, set()),
        ({"AWS": ROLE.principal}, {ROLE, SESSION}),
        ({"AWS": f"arn:aws:iam::{OWNER}:role/team/deploy"}, set()),
        ({"AWS": f"arn:aws:iam::{OTHER}:user/deploy"}, set()),
        ({"AWS": SESSION.principal}, {SESSION}),
        ({"AWS": f"arn:aws:iam::{OTHER}:*"}, set()),
        ({"Service": "s3.amazonaws.com"}, {BUCKET}),
        ({"Service": ["sns.amazonaws.com", "s3.amazonaws.com"]}, {BUCKET}),
        ({"Service": "sns.amazonaws.com"}, set()),
        ({"AWS": "s3.amazonaws.com"}, set()),
        ({"Service": ROOT.principal}, set()),
        ({"Federated": "accounts.google.com", "AWS": OTHER}, {ROOT, ROLE, SESSION}),
        (OTHER, set()),
    ],
)
def test_principals(principal: Any, meant: set[Caller]) -> None:
    callers = (ROOT, ROLE, SESSION, BUCKET)
    assert {caller for caller in callers if allowed(caller, Principal=principal)} == meant
    other_way = {key: value for key, value in statement(NotPrincipal=principal).items() if key != "Principal"}
    assert {caller for caller in callers if allows([other_way], caller, INVOKE, FUNCTION)} == set(callers) - meant


# ---- what, and on what -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "covers"),
    [
        ("lambda:InvokeFunction", True),
        ("LAMBDA:invokefunction", True),
        ("lambda:*", True),
        ("lambda:Invoke*", True),
        ("*", True),
        (["lambda:GetFunction", "lambda:InvokeFunction"], True),
        ("lambda:InvokeFunctionUrl", False),
        ("lambda:Get*", False),
        ("lambda:DefinitelyNotReal", False),
        ([], False),
    ],
)
def test_actions(action: Any, covers: bool) -> None:
    assert allowed(Action=action) == covers
    turned = {key: value for key, value in statement(NotAction=action).items() if key != "Action"}
    assert allows([turned], ROOT, INVOKE, FUNCTION) != covers


def test_resources_are_as_addressed() -> None:
    for resource in (FUNCTION, f"{FUNCTION}:$LATEST", f"{FUNCTION}:7", f"{FUNCTION}:live"):
        assert allowed(resource=resource, Resource=resource)
        assert allowed(resource=resource, Resource="*")
        assert allowed(resource=resource, Resource=[FUNCTION, f"{FUNCTION}:*"])
        assert allowed(resource=resource) == (resource == FUNCTION)
    turned = {key: value for key, value in statement(NotResource=f"{FUNCTION}:*").items() if key != "Resource"}
    assert allows([turned], ROOT, INVOKE, FUNCTION)
    assert not allows([turned], ROOT, INVOKE, f"{FUNCTION}:live")


@pytest.mark.parametrize("missing", ["Principal", "Action", "Resource"])
def test_what_says_nothing_allows_nothing(missing: str) -> None:
    rest = {key: value for key, value in statement().items() if key != missing}
    assert not allows([rest], ROOT, INVOKE, FUNCTION)


# ---- conditions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ({}, True),
        ({"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::pictures"}}, True),
        ({"ArnLike": {"aws:sourcearn": "arn:aws:s3:::pict*"}}, True),
        ({"ArnLike": {"AWS:SourceArn": "arn:aws:s3:*:*:pictures"}}, True),
        ({"ArnLike": {"AWS:SourceArn": "arn:aws:sns:::pictures"}}, False),
        ({"ArnNotLike": {"AWS:SourceArn": "arn:aws:s3:::pictures"}}, False),
        ({"ArnEquals": {"AWS:SourceArn": "arn:aws:s3:::p?ctures"}}, True),
        ({"StringEquals": {"AWS:SourceAccount": OWNER}}, True),
        ({"StringEquals": {"AWS:SourceAccount": OTHER}}, False),
        ({"StringEquals": {"AWS:SourceAccount": [OTHER, OWNER]}}, True),
        ({"StringNotEquals": {"AWS:SourceAccount": [OTHER, OWNER]}}, False),
        ({"StringNotEquals": {"AWS:SourceAccount": OTHER}}, True),
        ({"StringLike": {"AWS:SourceAccount": "0*"}}, True),
        ({"StringEqualsIgnoreCase": {"aws:PrincipalServiceName": "S3.AmazonAWS.com"}}, True),
        ({"StringEquals": {"aws:PrincipalServiceName": "S3.AmazonAWS.com"}}, False),
        ({"Bool": {"aws:PrincipalIsAWSService": "true"}}, True),
        ({"Bool": {"aws:PrincipalIsAWSService": True}}, True),
        ({"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}, False),
        ({"Bool": {"lambda:InvokedViaFunctionUrl": "false"}}, True),
        # Keys without a value.
        ({"StringEquals": {"aws:PrincipalOrgID": "o-0123456789"}}, False),
        ({"StringEqualsIfExists": {"aws:PrincipalOrgID": "o-0123456789"}}, True),
        ({"StringNotEquals": {"aws:PrincipalOrgID": "o-0123456789"}}, True),
        ({"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}}, False),
        ({"StringEquals": {"lambda:EventSourceToken": "token"}}, False),
        ({"Null": {"aws:PrincipalOrgID": "true"}}, True),
        ({"Null": {"aws:PrincipalOrgID": "false"}}, False),
        ({"Null": {"aws:SourceArn": "true"}}, False),
        ({"Null": {"aws:SourceArn": False}}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": "a"}}, True),
        ({"ForAnyValue:StringEquals": {"aws:TagKeys": "a"}}, False),
        ({"ForAnyValue:StringLike": {"AWS:SourceAccount": "0*"}}, True),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, False),
        ({"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}, True),
        ({"DateLessThan": {"aws:CurrentTime": "2030-01-01T00:00:00Z"}}, False),
        ({"NumericLessThanIfExists": {"s3:max-keys": 10}}, True),
        # All of them.
        ({"StringEquals": {"AWS:SourceAccount": OWNER, "aws:RequestedRegion": "eu-west-1"}}, False),
        ({"StringEquals": {"AWS:SourceAccount": OWNER}, "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::other"}}, False),
        ({"StringEquals": {"AWS:SourceAccount": OWNER}, "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::*"}}, True),
    ],
)
def test_conditions(condition: dict[str, Any], met: bool) -> None:
    assert allowed(BUCKET, Condition=condition) == met
    assert all(is_operator(operator) for operator in condition)


def test_where_the_source_account_comes_from() -> None:
    topic = Caller(OWNER, "sns.amazonaws.com", "us-east-1", f"arn:aws:sns:us-east-1:{OTHER}:topic")
    for caller, account in ((topic, OTHER), (BUCKET, OWNER)):
        assert access_request(caller, INVOKE, FUNCTION).context["aws:sourceaccount"] == account
    assert "aws:sourceaccount" not in access_request(ROOT, INVOKE, FUNCTION).context


def test_a_function_url_gives_its_own_keys() -> None:
    condition = {
        "StringEquals": {"lambda:FunctionUrlAuthType": "NONE"},
        "Bool": {"lambda:InvokedViaFunctionUrl": "true"},
    }
    request = access_request(
        ROOT, INVOKE, FUNCTION, {"lambda:FunctionUrlAuthType": "NONE", "lambda:InvokedViaFunctionUrl": "true"}
    )
    assert decide([statement(Condition=condition)], request) is Decision.ALLOWED


def test_operators() -> None:
    for operator in (
        "StringEquals",
        "ArnLikeIfExists",
        "ForAllValues:StringLike",
        "ForAnyValue:ArnNotEqualsIfExists",
        "Null",
    ):
        assert is_operator(operator)
    for operator in (
        "",
        "IfExists",
        "StringEqual",
        "stringequals",
        "ForSomeValues:StringEquals",
        "StringEqualsIfexists",
    ):
        assert not is_operator(operator)


# ---- what beats what ---------------------------------------------------------------------------------

statements = st.builds(
    statement,
    Effect=st.sampled_from(["Allow", "Deny"]),
    Principal=st.sampled_from(["*", {"AWS": OTHER}, {"AWS": OWNER}, {"Service": "s3.amazonaws.com"}]),
    Action=st.sampled_from([INVOKE, "lambda:*", "lambda:GetFunction"]),
    Resource=st.sampled_from([FUNCTION, "*", f"{FUNCTION}:live"]),
    Condition=st.sampled_from(
        [{}, {"StringEquals": {"aws:PrincipalAccount": OTHER}}, {"Null": {"aws:SourceArn": "true"}}]
    ),
)
policies = st.lists(statements, max_size=6)
callers = st.sampled_from([ROOT, ROLE, SESSION, BUCKET])


@given(policies, statements, callers)
def test_a_statement_more(policy: list[dict[str, Any]], more: dict[str, Any], caller: Caller) -> None:
    """An Allow takes nothing away, a Deny gives nothing; a Deny that applies settles it; order does not matter."""
    request = access_request(caller, INVOKE, FUNCTION)
    before, after, alone = decide(policy, request), decide([*policy, more], request), decide([more], request)
    assert decide([more, *policy], request) is after
    if alone is Decision.SILENT:
        assert after is before
    elif alone is Decision.DENIED or before is Decision.DENIED:
        assert after is Decision.DENIED
    else:
        assert after is Decision.ALLOWED


@given(policies)
def test_only_allows_allow(policy: list[dict[str, Any]]) -> None:
    denials = [each for each in policy if each["Effect"] == "Deny"]
    assert decide(denials, access_request(ROOT, INVOKE, FUNCTION)) is not Decision.ALLOWED
    assert decide([], access_request(ROOT, INVOKE, FUNCTION)) is Decision.SILENT
