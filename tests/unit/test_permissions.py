"""Resource policies without HTTP: statements and documents, who may do what, and where a policy's life ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastlam import limits
from fastlam.arn import FunctionAddress
from fastlam.control.authorize import Caller
from fastlam.control.policy_document import read_document, statement_of, text_of
from fastlam.control.policy_evaluation import allows
from fastlam.errors import ApiError
from fastlam.store.records import ALIAS, FUNCTION, POLICY, VERSION
from memory_plane import CALLER, MemoryPlane, refused

ACCOUNT, OTHER = "000000000000", "111122223333"
ARN = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:hello"
ROLE = Caller(ACCOUNT, f"arn:aws:iam::{ACCOUNT}:role/r", "us-east-1")
STRANGER = Caller(OTHER, f"arn:aws:iam::{OTHER}:root", "us-east-1")
INVOKE = "lambda:InvokeFunction"


class Plane(MemoryPlane):
    """A control plane in memory with an active function `hello`, its version 1 and the alias `live` for that."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.create()
        self.publish()
        self.alias("live", "1")

    def add(self, sid: str = "s", name: str = "hello", **more: Any) -> dict[str, Any]:
        request = {"FunctionName": name, "StatementId": sid, "Action": INVOKE, "Principal": OTHER} | more
        return self.permissions.add(CALLER, request)

    def put(self, *statements: dict[str, Any], arn: str = ARN, **more: Any) -> str:
        document = {"Version": "2012-10-17", "Statement": list(statements)}
        request = {"ResourceArn": arn, "Policy": json.dumps(document)} | more
        return self.permissions.put_document(CALLER, request).revision_id

    def statements(self, name: str = "hello") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.permissions.get(CALLER, {"FunctionName": name}).document["Statement"]
        return found

    def revisions(self) -> list[str]:
        """Of $LATEST, version 1 and the alias."""
        return [record.revision_id for kind in (FUNCTION, VERSION, ALIAS) for record in self.store.all(kind)]

    def may(self, caller: Caller, action: str = INVOKE, qualifier: str | None = None) -> bool:
        try:
            self.permissions.check(caller, action, FunctionAddress(ACCOUNT, "us-east-1", "hello", qualifier))
        except ApiError as error:
            assert error.code == "AccessDeniedException"
            return False
        return True


@pytest.fixture
def plane(tmp_path: Path) -> Plane:
    return Plane(tmp_path)


def deny(**more: Any) -> dict[str, Any]:
    return {"Effect": "Deny", "Principal": "*", "Action": "lambda:*", "Resource": "*"} | more


# ---- statements --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"Principal": "s3.amazonaws.com"}, '"Principal":{"Service":"s3.amazonaws.com"},"Action":"A","Resource":"R"'),
        ({"Principal": "alexa-appkit.amazon.com"}, '"Principal":{"Service":"alexa-appkit.amazon.com"},"Action":"A","Resource":"R"'),
        ({"Principal": "*"}, '"Principal":"*","Action":"A","Resource":"R"'),
        ({"Principal": OTHER}, '"Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"A","Resource":"R"'),
        (
            {"Principal": "arn:aws:iam::111122223333:role/x/y"},
            '"Principal":{"AWS":"arn:aws:iam::111122223333:role/x/y"},"Action":"A","Resource":"R"',
        ),
        (
            {"SourceArn": "arn:aws:s3:::b"},
            '"Principal":"*","Action":"A","Resource":"R","Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:s3:::b"}}',
        ),
        (
            {"SourceArn": "arn:aws:s3:::b", "SourceAccount": OTHER, "PrincipalOrgID": "o-0123456789", "EventSourceToken": "t"},
            '"Principal":"*","Action":"A","Resource":"R","Condition":{"StringEquals":{"AWS:SourceAccount":"111122223333",'
            '"aws:PrincipalOrgID":"o-0123456789","lambda:EventSourceToken":"t"},"ArnLike":{"AWS:SourceArn":"arn:aws:s3:::b"}}',
        ),
        (
            {"Action": "lambda:InvokeFunctionUrl", "FunctionUrlAuthType": "NONE"},
            '"Principal":"*","Action":"lambda:InvokeFunctionUrl","Resource":"R","Condition":{"StringEquals":'
            '{"lambda:FunctionUrlAuthType":"NONE"}}',
        ),
        (
            {"InvokedViaFunctionUrl": True},
            '"Principal":"*","Action":"A","Resource":"R","Condition":{"Bool":{"lambda:InvokedViaFunctionUrl":"true"}}',
        ),
    ],
)  # fmt: skip
def test_statements(given: dict[str, Any], text: str) -> None:
    request = {"StatementId": "s", "Action": "A", "Principal": "*"} | given
    assert text_of(statement_of(request, "R")) == '{"Sid":"s","Effect":"Allow",' + text + "}"


@pytest.mark.parametrize(
    "principal",
    ["invalid.nonaws.com", "12345", "amazonaws.com", "arn:aws:iam::1:root", "arn:aws:iam::111122223333:group/g",
     "arn:aws:s3:::bucket", "s3.amazonaws.com.evil.com", "S3.AMAZONAWS.COM", "١٢٣٤٥٦٧٨٩٠١٢", ""],
)  # fmt: skip
def test_principals_that_are_none(plane: Plane, principal: str) -> None:
    before = plane.revisions()
    message = refused("InvalidParameterValueException", plane.add, Principal=principal)
    assert message == "The provided principal was invalid. Please check the principal and try again."
    assert plane.revisions() == before
    assert plane.store.all(POLICY) == []


def test_the_url_condition_is_for_urls(plane: Plane) -> None:
    refused("InvalidParameterValueException", plane.add, FunctionUrlAuthType="NONE")
    plane.add(Action="lambda:InvokeFunctionUrl", Principal="*", FunctionUrlAuthType="NONE")


# ---- a policy for each qualifier ---------------------------------------------------------------------


def test_each_has_its_own(plane: Plane) -> None:
    for name, arn, changed in (("hello", ARN, 0), ("hello:1", f"{ARN}:1", 1), ("hello:live", f"{ARN}:live", 2)):
        before = plane.revisions()
        assert plane.add(name=name)["Resource"] == arn
        after = plane.revisions()
        assert [old != new for old, new in zip(before, after, strict=True)] == [each == changed for each in range(3)]
        view = plane.permissions.get(CALLER, {"FunctionName": name})
        assert [statement["Resource"] for statement in view.document["Statement"]] == [arn]
        assert view.revision_id == after[changed]
    plane.permissions.remove(CALLER, {"FunctionName": "hello", "Qualifier": "1", "StatementId": "s"})
    assert len(plane.statements("hello")) == len(plane.statements("hello:live")) == 1
    assert (
        refused("ResourceNotFoundException", plane.statements, "hello:1")
        == "The resource you requested does not exist."
    )


def test_what_goes_with_what(plane: Plane) -> None:
    for name in ("hello", "hello:1", "hello:live"):
        plane.add(name=name)
    plane.put(deny(Effect="Allow"), arn=f"{ARN}:$LATEST")
    plane.aliases.delete(CALLER, {"FunctionName": "hello", "Name": "live"})
    assert {policy.qualifier for policy in plane.store.all(POLICY)} == {"", "1", "$LATEST"}
    plane.functions.delete(CALLER, {"FunctionName": "hello", "Qualifier": "1"})
    assert {policy.qualifier for policy in plane.store.all(POLICY)} == {"", "$LATEST"}
    plane.functions.delete(CALLER, {"FunctionName": "hello"})
    assert plane.store.all(POLICY) == []


def test_publishing_copies_no_policy(plane: Plane) -> None:
    plane.add()
    plane.functions.update_configuration(CALLER, {"FunctionName": "hello", "Timeout": 9})
    plane.clock.advance(1)
    assert plane.versions.publish(CALLER, {"FunctionName": "hello"}).version == "2"
    refused("ResourceNotFoundException", plane.statements, "hello:2")


def test_latest_takes_whole_policies_only(plane: Plane) -> None:
    for request in ({"name": "hello:$LATEST"}, {"Qualifier": "$LATEST"}):
        message = refused("InvalidParameterValueException", plane.add, **request)
        assert message == "We currently do not support adding policies for $LATEST."
    before = plane.revisions()
    revision = plane.put(deny(Effect="Allow"), arn=f"{ARN}:$LATEST")
    assert plane.revisions()[0] == revision != before[0]
    assert (plane.may(STRANGER, qualifier="$LATEST"), plane.may(STRANGER)) == (True, False)


# ---- refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", f"Function not found: {ARN.replace('hello', 'nobody')}"),
        ("hello:7", f"Function not found: {ARN}:7"),
        ("hello:gone", f"Cannot find alias arn: {ARN}:gone"),
        ("nobody:gone", f"Cannot find alias arn: {ARN.replace('hello', 'nobody')}:gone"),
        ("hello:$LATEST.PUBLISHED", f"Function not found: {ARN}:$LATEST.PUBLISHED"),
    ],
)
def test_adding_to_what_is_not_there(plane: Plane, name: str, message: str) -> None:
    assert refused("ResourceNotFoundException", plane.add, name=name) == message
    assert plane.store.all(POLICY) == []


def test_a_qualifier_with_a_dollar(plane: Plane) -> None:
    message = refused("ResourceNotFoundException", plane.add, Qualifier="valid-with-$-but-not")
    assert message == f"Function not found: {ARN}:valid-with-$-but-not"


def test_a_taken_sid_comes_before_a_stale_revision(plane: Plane) -> None:
    plane.add()
    before = plane.revisions()
    assert refused("ResourceConflictException", plane.add, RevisionId="stale") == (
        "The statement id (s) provided already exists. Please provide a new statement id, or remove the existing statement."
    )
    assert refused("PreconditionFailedException", plane.add, "t", RevisionId="stale") == (
        "The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to retrieve the latest"
        " Revision Id"
    )
    assert plane.revisions() == before
    plane.add("t", RevisionId=before[0])
    assert [statement["Sid"] for statement in plane.statements()] == ["s", "t"]


def test_removing(plane: Plane) -> None:
    def remove(sid: str = "s", name: str = "hello", **more: Any) -> None:
        plane.permissions.remove(CALLER, {"FunctionName": name, "StatementId": sid, **more})

    missing = "ResourceNotFoundException"
    assert refused(missing, remove, name="nobody") == f"No policy found for: {ARN.replace('hello', 'nobody')}"
    assert refused(missing, remove, name="hello:9") == f"No policy found for: {ARN}:9"
    assert refused(missing, remove, name="hello:gone") == f"Cannot find alias arn: {ARN}:gone"
    for name in ("hello", "hello:$LATEST"):
        assert refused(missing, remove, name=name) == "No policy is associated with the given resource."
    plane.add("a")
    plane.add("b")
    before = plane.revisions()
    assert refused(missing, remove, "c", RevisionId="stale") == "Statement c is not found in resource policy."
    assert refused("PreconditionFailedException", remove, "a", RevisionId="stale").endswith(
        "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
    )
    assert plane.revisions() == before
    remove("a", RevisionId=before[0])
    assert [statement["Sid"] for statement in plane.statements()] == ["b"]
    remove("b")
    assert plane.store.all(POLICY) == []
    assert len({before[0], plane.revisions()[0]}) == 2
    refused(missing, plane.statements)


def test_twenty_kilobytes(plane: Plane) -> None:
    taken = len(text_of({"Version": "2012-10-17", "Id": "default", "Statement": []}))
    one = len(text_of(plane.add("s000", SourceArn="arn:aws:s3:::" + "b" * 200))) + 1
    fit = (limits.POLICY_BYTES_MAX - taken + 1) // one
    for number in range(1, fit):
        plane.add(f"s{number:03}", SourceArn="arn:aws:s3:::" + "b" * 200)
    left = limits.POLICY_BYTES_MAX - (taken + fit * one - 1)
    assert 0 <= left < one
    before = plane.revisions()
    message = refused("PolicyLengthExceededException", plane.add, "last", SourceArn="arn:aws:s3:::" + "b" * 200)
    assert (
        message == f"The final policy size ({limits.POLICY_BYTES_MAX - left + one}) is bigger than the limit (20480)."
    )
    assert (plane.revisions(), len(plane.statements())) == (before, fit)


# ---- whole documents ---------------------------------------------------------------------------------


def test_a_document_replaces_everything(plane: Plane) -> None:
    plane.add()
    first = plane.put(deny(Sid="x"))
    assert plane.revisions()[0] == first
    view = plane.permissions.get_document(CALLER, {"ResourceArn": ARN})
    assert (view.document, view.revision_id) == ({"Version": "2012-10-17", "Statement": [deny(Sid="x")]}, first)
    assert plane.statements() == [deny(Sid="x")]
    assert refused("PreconditionFailedException", plane.put, deny(), RevisionId="stale")
    assert plane.statements() == [deny(Sid="x")]
    plane.put(deny(Sid="y"), RevisionId=first)
    plane.add("z")
    assert [statement["Sid"] for statement in plane.statements()] == ["y", "z"]
    plane.permissions.remove(CALLER, {"FunctionName": "hello", "StatementId": "y"})
    assert [statement["Sid"] for statement in plane.statements()] == ["z"]


def test_deleting_a_document(plane: Plane) -> None:
    def delete(arn: str = ARN, **more: Any) -> None:
        plane.permissions.delete_document(CALLER, {"ResourceArn": arn, **more})

    before = plane.revisions()
    delete()
    delete(RevisionId="stale")
    assert plane.revisions() == before
    plane.add()
    plane.add(name="hello:live")
    refused("PreconditionFailedException", delete, RevisionId=before[0])
    assert len(plane.store.all(POLICY)) == 2
    delete(RevisionId=plane.revisions()[0])
    assert [policy.qualifier for policy in plane.store.all(POLICY)] == ["live"]
    assert refused("ResourceNotFoundException", delete, f"{ARN}:gone") == f"Cannot find alias arn: {ARN}:gone"
    assert refused("ResourceNotFoundException", delete, f"{ARN}x") == f"Function not found: {ARN}x"


def test_arns_of_documents(plane: Plane) -> None:
    def get(arn: str) -> Any:
        return plane.permissions.get_document(CALLER, {"ResourceArn": arn})

    nothing = "The resource you requested does not exist."
    for arn in (ARN, f"{ARN}:9", f"{ARN}x", f"arn:aws:lambda:us-east-1:{ACCOUNT}:runtime/mine"):
        assert refused("ResourceNotFoundException", get, arn) == nothing
    far = ARN.replace("us-east-1", "eu-west-1")
    assert refused("ResourceNotFoundException", get, far) == (
        "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"
    )
    assert "no resource-based policy allows the lambda:GetResourcePolicy action" in refused(
        "AccessDeniedException", get, ARN.replace(ACCOUNT, OTHER)
    )


GOOD = {"Sid": "s", "Effect": "Allow", "Principal": "*", "Action": "lambda:*", "Resource": "*"}


@pytest.mark.parametrize(
    "document",
    [
        "", "{", "[]", "null", '"text"', "{}", '{"a": "\ud800"}', "[" * 5000, "1e999",
        {"Statement": [GOOD]},
        {"Version": "2030-01-01", "Statement": [GOOD]},
        {"Version": "2012-10-17"},
        {"Version": "2012-10-17", "Statement": []},
        {"Version": "2012-10-17", "Statement": ["text"]},
        {"Version": "2012-10-17", "Statement": [GOOD], "Extra": 1},
        {"Version": "2012-10-17", "Statement": [GOOD], "Id": 1},
        {"Version": "2012-10-17", "Statement": [GOOD, GOOD]},
        *(
            {"Version": "2012-10-17", "Statement": GOOD | change}
            for change in (
                {"Extra": 1}, {"Sid": 1}, {"Effect": "allow"}, {"Effect": None}, {"Principal": None}, {"Principal": {}},
                {"Principal": "123456789012"}, {"Principal": {"AWS": []}}, {"Principal": {"AWS": "me"}},
                {"Principal": {"AWS": f"arn:aws:iam::{OTHER}:*"}}, {"Principal": {"Service": "s3"}},
                {"Principal": {"Nobody": "*"}}, {"Principal": {"AWS": [["*"]]}}, {"NotPrincipal": "*"}, {"Action": []},
                {"Action": "InvokeFunction"}, {"Action": 1}, {"NotAction": "lambda:*"}, {"Resource": "hello"},
                {"Resource": {}}, {"NotResource": "*"}, {"Condition": []}, {"Condition": {"Equals": {}}},
                {"Condition": {"StringEquals": "x"}}, {"Condition": {"StringEquals": {"k": {}}}},
                {"Condition": {"StringEquals": {"k": [None]}}},
            )
        ),
        *({"Version": "2012-10-17", "Statement": {key: value for key, value in GOOD.items() if key != missing}}
          for missing in ("Effect", "Principal", "Action", "Resource")),
    ],
)  # fmt: skip
def test_documents_that_are_none(plane: Plane, document: Any) -> None:
    plane.add()
    before = plane.revisions()
    text = document if isinstance(document, str) else json.dumps(document)
    refused(
        "InvalidParameterValueException", plane.permissions.put_document, CALLER, {"ResourceArn": ARN, "Policy": text}
    )
    assert plane.revisions() == before
    assert [statement["Sid"] for statement in plane.statements()] == ["s"]


def test_documents_that_are_good(plane: Plane) -> None:
    for statement in (
        GOOD,
        {key: value for key, value in GOOD.items() if key != "Sid"},
        deny(Principal={"AWS": ["*", OTHER, f"arn:aws:iam::{OTHER}:role/a"], "Service": "s3.amazonaws.com"}),
        deny(Action=["lambda:Invoke*", "*"], Resource=[ARN, f"{ARN}:*"]),
        deny(
            Condition={"NumericLessThan": {"k": 3}, "Bool": {"k": True}, "ForAllValues:StringLike": {"k": ["a", "b"]}}
        ),
        {"Effect": "Allow", "NotPrincipal": {"AWS": OTHER}, "NotAction": "lambda:Get*", "NotResource": ARN},
    ):
        document = {"Version": "2012-10-17", "Id": "mine", "Statement": statement}
        assert read_document(json.dumps(document)) == document | {"Statement": [statement]}
        plane.put(statement)
        plane.may(STRANGER)
    wide = deny(Sid="ü" * 10_200)  # within the limit counted in characters
    assert refused(
        "PolicyLengthExceededException", plane.put, wide, Policy=text_of({"Version": "2012-10-17", "Statement": [wide]})
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*GOOD, "NotAction", "Condition", "Null", "AWS"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(json_values, st.fixed_dictionaries({}, optional=dict.fromkeys([*GOOD, "Condition"], json_values)))
@example({}, {"Condition": {"Null": {"k": 0.5}}})
def test_whatever_is_read_can_be_decided_on(anything: Any, change: dict[str, Any]) -> None:
    """A document is refused in the service's way, or everything that is done with it goes well."""
    for document in (anything, {"Version": "2012-10-17", "Statement": GOOD | change}):
        try:
            found = read_document(json.dumps(document))
        except ApiError as error:
            assert error.code == "InvalidParameterValueException"
            continue
        assert json.loads(text_of(found)) == found
        allows(found["Statement"], STRANGER, INVOKE, ARN)


# ---- who may -----------------------------------------------------------------------------------------


def test_another_account_may_what_it_is_allowed(plane: Plane) -> None:
    assert plane.may(CALLER) and plane.may(ROLE) and not plane.may(STRANGER)
    plane.add()
    assert plane.may(STRANGER)
    assert not plane.may(STRANGER, "lambda:GetFunction")
    assert not plane.may(STRANGER._replace(account="444455556666", principal="arn:aws:iam::444455556666:root"))
    for qualifier in ("$LATEST", "1", "live"):
        assert not plane.may(STRANGER, qualifier=qualifier)
    plane.add(name="hello:live", Principal="*", Action="lambda:*")
    assert plane.may(STRANGER, "lambda:UpdateAlias", "live")
    plane.permissions.remove(CALLER, {"FunctionName": "hello", "StatementId": "s"})
    assert not plane.may(STRANGER)


def test_conditions_that_are_not_met(plane: Plane) -> None:
    plane.add(Principal="*", PrincipalOrgID="o-0123456789")
    plane.add("url", Principal="*", InvokedViaFunctionUrl=True)
    plane.add("source", Principal="*", SourceArn="arn:aws:s3:::bucket")
    assert not plane.may(STRANGER)


def test_services_need_a_statement(plane: Plane) -> None:
    bucket = Caller(ACCOUNT, "s3.amazonaws.com", "us-east-1", "arn:aws:s3:::pictures")
    assert not plane.may(bucket)
    plane.add(Principal="s3.amazonaws.com", SourceArn="arn:aws:s3:::pict*", SourceAccount=ACCOUNT)
    assert plane.may(bucket)
    assert not plane.may(bucket._replace(source_arn="arn:aws:s3:::other"))
    assert not plane.may(bucket._replace(principal="sns.amazonaws.com"))
    assert not plane.may(bucket._replace(source_arn=None))


def test_a_denial_counts_for_the_owner_too(plane: Plane) -> None:
    plane.put(deny(Principal={"AWS": [ACCOUNT, OTHER]}), deny(Effect="Allow", Sid="all"))
    assert not plane.may(CALLER) and not plane.may(ROLE) and not plane.may(STRANGER)
    address = FunctionAddress(ACCOUNT, "us-east-1", "hello", None)
    message = refused("AccessDeniedException", plane.permissions.check, ROLE, INVOKE, address)
    assert message == (
        f"User: {ROLE.principal} is not authorized to perform: {INVOKE} on resource: {ARN} with an explicit deny in a"
        " resource-based policy"
    )
    # Nobody is locked out for good.
    assert plane.may(CALLER, "lambda:DeleteResourcePolicy")
    assert not plane.may(ROLE, "lambda:DeleteResourcePolicy")
    assert not plane.may(STRANGER, "lambda:DeleteResourcePolicy")
    plane.permissions.delete_document(CALLER, {"ResourceArn": ARN})
    assert plane.may(CALLER) and plane.may(ROLE) and not plane.may(STRANGER)
