"""What the service was seen to answer about resource policies of functions, and about tags."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from daemon_running import RunningDaemon
from recorded_answers import (
    ANY,
    FUNCTION,
    FUNCTIONS,
    LAMBDA,
    UUID,
    Differs,
    Error,
    Has,
    Json,
    Keep,
    Row,
    Script,
    ask,
    conflict,
    constraint,
    creation,
    invalid,
    locator,
    missing,
    ok,
    refusal,
    set_up,
    staged,
    unchanging,
)

POLICY: Final = f"{FUNCTIONS}/staged/policy"
TAGS: Final = "/2017-03-31/tags/"
NO_RESOURCE: Final = missing("The resource you requested does not exist.")
INVOKE: Final = "lambda:InvokeFunction"


def _stale(api: str) -> Error:
    return Error(
        "PreconditionFailed",
        f"The Revision Id provided does not match the latest Revision Id. Call the {api} API to retrieve the latest"
        " Revision Id",
    )


def _permission(sid: str = "new", principal: str = "s3.amazonaws.com", **more: Any) -> dict[str, Any]:
    return {"StatementId": sid, "Action": INVOKE, "Principal": principal, **more}


def _statement(sid: str, principal: Any, arn: str, condition: Any = None, action: str = INVOKE) -> dict[str, Any]:
    statement = {"Sid": sid, "Effect": "Allow", "Principal": principal, "Action": action, "Resource": arn}
    return statement if condition is None else statement | {"Condition": condition}


SERVICE: Final = {"Service": "s3.amazonaws.com"}
STAGED: Final = f"{FUNCTION}:staged"

REFUSED: Final[list[Row]] = [
    refusal(
        "a statement twice",
        f"POST {POLICY}",
        conflict(
            "The statement id (held) provided already exists. Please provide a new statement id, or remove the existing"
            " statement."
        ),
        _permission("held"),
    ),
    refusal(
        "a statement twice goes before a stale revision",
        f"POST {POLICY}",
        conflict(
            "The statement id (held) provided already exists. Please provide a new statement id, or remove the existing"
            " statement."
        ),
        _permission("held", RevisionId="0"),
    ),
    refusal("a stale revision", f"POST {POLICY}", _stale("GetPolicy"), _permission(RevisionId="0")),
    refusal("a stale revision at removal", f"DELETE {POLICY}/held?RevisionId=0", _stale("GetFunction/GetAlias")),
    refusal(
        "a principal that is none",
        f"POST {POLICY}",
        invalid("The provided principal was invalid. Please check the principal and try again."),
        _permission(principal="nobody"),
    ),
    refusal(
        "$LATEST",
        f"POST {POLICY}?Qualifier=$LATEST",
        invalid("We currently do not support adding policies for $LATEST."),
        _permission(),
    ),
    refusal(
        "a statement id that is none",
        f"POST {POLICY}",
        constraint("'a b' at 'statementId': Member must satisfy regular expression pattern: ([a-zA-Z0-9-_]+)"),
        _permission("a b"),
    ),
    refusal(
        "a permission for no alias",
        f"POST {POLICY}?Qualifier=gone",
        missing(f"Cannot find alias arn: {STAGED}:gone"),
        _permission(),
    ),
    refusal(
        "a permission for a qualifier with a dollar",
        f"POST {POLICY}?Qualifier=valid-with-$-but",
        missing(f"Function not found: {STAGED}:valid-with-$-but"),
        _permission(),
    ),
    refusal(
        "a permission for no function",
        f"POST {FUNCTIONS}/nowhere/policy",
        missing(f"Function not found: {FUNCTION}:nowhere"),
        _permission(),
    ),
    refusal(
        "a permission for no version",
        f"POST {POLICY}?Qualifier=77",
        missing(f"Function not found: {STAGED}:77"),
        _permission(),
    ),
    refusal("GetPolicy of nothing", f"GET {FUNCTIONS}/plain/policy", NO_RESOURCE),
    refusal("GetPolicy of no function", f"GET {FUNCTIONS}/nowhere/policy", NO_RESOURCE),
    refusal("GetPolicy of no version", f"GET {POLICY}?Qualifier=77", NO_RESOURCE),
    refusal("publishing copies no policy", f"GET {POLICY}?Qualifier=1", NO_RESOURCE),
    refusal(
        "removal of no statement", f"DELETE {POLICY}/gone", missing("Statement gone is not found in resource policy.")
    ),
    refusal(
        "removal of no statement goes before a stale revision",
        f"DELETE {POLICY}/gone?RevisionId=0",
        missing("Statement gone is not found in resource policy."),
    ),
    refusal(
        "removal without a policy",
        f"DELETE {FUNCTIONS}/plain/policy/gone",
        missing("No policy is associated with the given resource."),
    ),
    refusal(
        "removal from no function",
        f"DELETE {FUNCTIONS}/nowhere/policy/gone",
        missing(f"No policy found for: {FUNCTION}:nowhere"),
    ),
    refusal(
        "removal from no alias",
        f"DELETE {POLICY}/held?Qualifier=gone",
        missing(f"Cannot find alias arn: {STAGED}:gone"),
    ),
    refusal(
        "tags of a version",
        f"POST {TAGS}{locator(f'{STAGED}:1')}",
        invalid("Tags on function aliases and versions are not supported. Please specify a function ARN."),
        {"Tags": {"a": "b"}},
    ),
    refusal(
        "tags of an alias",
        f"GET {TAGS}{locator(f'{STAGED}:live')}",
        invalid("Tags on function aliases and versions are not supported. Please specify a function ARN."),
    ),
    refusal(
        "no tags to set",
        f"POST {TAGS}{locator(STAGED)}",
        invalid("An error occurred and the request cannot be processed."),
        {"Tags": {}},
    ),
    refusal(
        "50 tags and one more",
        f"POST {TAGS}{locator(STAGED)}",
        invalid("Number of tags exceeds resource tag limit."),
        {"Tags": {f"k{number}": "v" for number in range(50)}},
    ),
    refusal(
        "no keys to untag", f"DELETE {TAGS}{locator(STAGED)}", constraint("null at 'tagKeys': Member must not be null")
    ),
    *(
        refusal(
            f"{what} of what is not there", f"{request}{locator(arn)}{query}", missing(f"{kind} not found: {arn}"), body
        )
        for what, request, query, body in (
            ("ListTags", f"GET {TAGS}", "", None),
            ("TagResource", f"POST {TAGS}", "", {"Tags": {"a": "b"}}),
            ("UntagResource", f"DELETE {TAGS}", "?tagKeys=a", None),
        )
        for kind, arn in (
            ("Function", f"{FUNCTION}:nowhere"),
            ("Event source mapping", f"{LAMBDA}:event-source-mapping:00000000-0000-4000-8000-000000000000"),
            ("Capacity provider", f"{LAMBDA}:capacity-provider:nowhere"),
        )
    ),
    refusal(
        "a reserved key",
        f"POST {TAGS}{locator(STAGED)}",
        Error("InvalidParameterValue", re.compile(".+")),
        {"Tags": {"aws:mine": "x"}},
    ),
]

LONG_ARN: Final = "arn:aws:s3:::" + "b" * 9000
ARN: Final = f"{FUNCTION}:fresh"
OWN: Final = f"{FUNCTIONS}/fresh"
PERMISSIONS: Final[list[tuple[str, dict[str, Any], Any, Any]]] = [
    ("a service", _permission("p1"), SERVICE, None),
    ("an account", _permission("p2", "111122223333"), {"AWS": "arn:aws:iam::111122223333:root"}, None),
    (
        "a role",
        _permission("p3", "arn:aws:iam::111122223333:role/r"),
        {"AWS": "arn:aws:iam::111122223333:role/r"},
        None,
    ),
    ("everybody", _permission("p4", "*"), "*", None),
    (
        "a source",
        _permission("p5", SourceArn="arn:aws:s3:::bucket"),
        SERVICE,
        {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::bucket"}},
    ),
    (
        "a source's account",
        _permission("p6", SourceAccount="111122223333"),
        SERVICE,
        {"StringEquals": {"AWS:SourceAccount": "111122223333"}},
    ),
    (
        "both",
        _permission("p7", SourceAccount="111122223333", SourceArn="arn:aws:s3:::bucket"),
        SERVICE,
        {
            "StringEquals": {"AWS:SourceAccount": "111122223333"},
            "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::bucket"},
        },
    ),
    (
        "an organization",
        _permission("p8", "*", PrincipalOrgID="o-1234567890"),
        "*",
        {"StringEquals": {"aws:PrincipalOrgID": "o-1234567890"}},
    ),
    (
        "a token",
        _permission("p9", "alexa-appkit.amazon.com", EventSourceToken="amzn1.ask.skill.x"),
        {"Service": "alexa-appkit.amazon.com"},
        {"StringEquals": {"lambda:EventSourceToken": "amzn1.ask.skill.x"}},
    ),
    (
        "a URL",
        _permission("p10", "*", FunctionUrlAuthType="NONE") | {"Action": "lambda:InvokeFunctionUrl"},
        "*",
        {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}},
    ),
    (
        "by a URL",
        _permission("p11", "*", InvokedViaFunctionUrl=True),
        "*",
        {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}},
    ),
    (
        "an action that does not exist",
        _permission("p12") | {"Action": "lambda:DefinitelyNotReal"},
        SERVICE,
        None,
    ),
]

ADDED: Final[list[Row]] = [
    ok(
        f"a permission for {what}",
        f"POST {OWN}/policy",
        201,
        {"Statement": Json(_statement(body["StatementId"], principal, ARN, condition, body["Action"]))},
        body,
    )
    for what, body, principal, condition in PERMISSIONS
]

LIFE: Final[list[Row]] = [
    ok(
        "a revision", f"GET {OWN}/configuration", 200, Has({"RevisionId": Keep("latest"), "LastModified": Keep("time")})
    ),
    *ADDED,
    ok(
        "permissions change the function's revision, which is the policy's",
        f"GET {OWN}/policy",
        200,
        {
            "Policy": Json(
                {
                    "Version": "2012-10-17",
                    "Id": "default",
                    "Statement": [
                        _statement(body["StatementId"], principal, ARN, condition, body["Action"])
                        for _, body, principal, condition in PERMISSIONS
                    ],
                }
            ),
            "RevisionId": Keep("policy", Differs("latest")),
        },
    ),
    ok("the function's", f"GET {OWN}/configuration", 200, Has({"RevisionId": "<<policy>>"})),
    ok(
        "with the right revision",
        f"POST {OWN}/policy",
        201,
        {"Statement": Json(_statement("right", SERVICE, ARN))},
        _permission("right", RevisionId="<<policy>>"),
    ),
    ok("a version's policy", f"POST {OWN}/versions", 201, Has({"Version": "1"}), {}),
    ok(
        "names the version",
        f"POST {OWN}/policy?Qualifier=1",
        201,
        {"Statement": Json(_statement("one", SERVICE, f"{ARN}:1"))},
        _permission("one"),
    ),
    ok("an alias's policy", f"POST {OWN}/aliases", 201, Has({}), {"Name": "live", "FunctionVersion": "1"}),
    ok(
        "names the alias",
        f"POST {FUNCTIONS}/fresh:live/policy",
        201,
        {"Statement": Json(_statement("one", SERVICE, f"{ARN}:live"))},
        _permission("one"),
    ),
    ok(
        "its revision",
        f"GET {OWN}/policy?Qualifier=live",
        200,
        {"Policy": Keep("text"), "RevisionId": Keep("alias", UUID)},
    ),
    ok("is the alias's", f"GET {OWN}/aliases/live", 200, Has({"RevisionId": "<<alias>>"})),
    *(ok("removal", f"DELETE {OWN}/policy/{body['StatementId']}", 204) for _, body, _, _ in PERMISSIONS),
    ok("removal of the last", f"DELETE {OWN}/policy/right", 204),
    refusal("then there is no policy", f"GET {OWN}/policy", NO_RESOURCE),
    refusal(
        "and nothing to remove",
        f"DELETE {OWN}/policy/right",
        missing("No policy is associated with the given resource."),
    ),
    *(
        ok(
            f"a long statement, {sid}",
            f"POST {OWN}/policy",
            201,
            {"Statement": ANY},
            _permission(sid, SourceArn=LONG_ARN),
        )
        for sid in ("long1", "long2")
    ),
    refusal(
        "a policy beyond 20 KB",
        f"POST {OWN}/policy",
        Error("PolicyLengthExceeded", re.compile(".+")),
        _permission("long3", SourceArn=LONG_ARN),
    ),
    ok("the alias goes", f"DELETE {OWN}/aliases/live", 204),
    ok("and comes", f"POST {OWN}/aliases", 201, Has({}), {"Name": "live", "FunctionVersion": "1"}),
    refusal("without its policy", f"GET {OWN}/policy?Qualifier=live", NO_RESOURCE),
]

OWN_TAGS: Final = f"{TAGS}{locator(ARN)}"
TAGGED: Final[list[Row]] = [
    ok("no tags", f"GET {OWN_TAGS}", 200, {"Tags": {}}),
    ok(
        "a revision", f"GET {OWN}/configuration", 200, Has({"RevisionId": Keep("latest"), "LastModified": Keep("time")})
    ),
    ok("tags", f"POST {OWN_TAGS}", 204, None, {"Tags": {"team": "größe 1/2", "empty": ""}}),
    ok("are listed", f"GET {OWN_TAGS}", 200, {"Tags": {"team": "größe 1/2", "empty": ""}}),
    ok(
        "are shown, and change revision and time",
        f"GET {OWN}",
        200,
        Has(
            {
                "Tags": {"team": "größe 1/2", "empty": ""},
                "Configuration": Has(
                    {"RevisionId": Keep("latest", Differs("latest")), "LastModified": Differs("time")}
                ),
            }
        ),
    ),
    ok("only at the plain name", f"GET {OWN}?Qualifier=$LATEST", 200, Has({}, without=("Tags",))),
    ok("the same again", f"POST {OWN_TAGS}", 204, None, {"Tags": {"team": "größe 1/2"}}),
    ok("is a change", f"GET {OWN}/configuration", 200, Has({"RevisionId": Keep("latest", Differs("latest"))})),
    ok("a key that is not there", f"DELETE {OWN_TAGS}?tagKeys=gone", 204),
    ok("is a change, too", f"GET {OWN}/configuration", 200, Has({"RevisionId": Keep("latest", Differs("latest"))})),
    ok("two keys", f"DELETE {OWN_TAGS}?tagKeys=team&tagKeys=empty", 204),
    ok("none are left", f"GET {OWN_TAGS}", 200, {"Tags": {}}),
]


PLAIN: Final = f"{FUNCTION}:plain"
RESOURCES: Final = "/2026-07-09/resource-policy/"
WHOLE: Final = f"{RESOURCES}{locator(PLAIN)}"
DOCUMENT: Final = {
    "Version": "2012-10-17",
    "Statement": [_statement("one", {"AWS": "arn:aws:iam::111122223333:root"}, PLAIN)],
}
LATEST_DOCUMENT: Final = {
    "Version": "2012-10-17",
    "Statement": [_statement("one", {"AWS": "arn:aws:iam::111122223333:root"}, f"{PLAIN}:$LATEST")],
}
STALE_ID: Final = "00000000-0000-4000-8000-000000000000"

RESOURCE_POLICIES: Final[list[Row]] = [
    refusal("no policy", f"GET {WHOLE}", NO_RESOURCE),
    refusal("of no function", f"GET {RESOURCES}{locator(f'{FUNCTION}:nowhere')}", missing(re.compile(".+"))),
    ok("a statement", f"POST {FUNCTIONS}/plain/policy", 201, ANY, _permission("old")),
    ok("is a policy", f"GET {WHOLE}", 200, {"Policy": Keep("text"), "RevisionId": Keep("policy", UUID)}),
    refusal(
        "a stale revision",
        f"PUT {WHOLE}",
        Error("PreconditionFailed", re.compile(".+")),
        {"Policy": json.dumps(DOCUMENT), "RevisionId": STALE_ID},
    ),
    ok(
        "replaced as a whole",
        f"PUT {WHOLE}",
        200,
        {"Policy": Json(DOCUMENT), "RevisionId": Keep("policy", Differs("policy"))},
        {"Policy": json.dumps(DOCUMENT), "RevisionId": "<<policy>>"},
    ),
    ok("for GetPolicy as well", f"GET {FUNCTIONS}/plain/policy", 200, Has({"RevisionId": "<<policy>>"})),
    refusal(
        "the old statement is gone",
        f"DELETE {FUNCTIONS}/plain/policy/old",
        missing("Statement old is not found in resource policy."),
    ),
    ok(
        "$LATEST can have one",
        f"PUT {RESOURCES}{locator(f'{PLAIN}:$LATEST')}",
        200,
        {"Policy": Json(LATEST_DOCUMENT), "RevisionId": UUID},
        {"Policy": json.dumps(LATEST_DOCUMENT)},
    ),
    refusal(
        "a stale revision at deletion",
        f"DELETE {WHOLE}?RevisionId={STALE_ID}",
        Error("PreconditionFailed", re.compile(".+")),
    ),
    ok("the revision is the function's", f"GET {WHOLE}", 200, Has({"RevisionId": Keep("policy", Differs("policy"))})),
    ok("deletion", f"DELETE {WHOLE}?RevisionId=<<policy>>", 204),
    refusal("and gone", f"GET {WHOLE}", NO_RESOURCE),
    ok("deletion of none", f"DELETE {WHOLE}", 204),
]


@staged
def before(daemon: RunningDaemon) -> None:
    set_up(daemon)
    ask(daemon, f"POST {POLICY}", _permission("held"))
    ask(daemon, f"POST {TAGS}{locator(STAGED)}", {"Tags": {"kept": "yes"}})


test_refused = unchanging(REFUSED)


def test_life(daemon: RunningDaemon) -> None:
    """The permissions of one function, then its tags."""
    ask(daemon, f"POST {FUNCTIONS}", creation("fresh"))
    daemon.settle("fresh")
    Script(daemon).run(LIFE)
    Script(daemon).run(TAGGED)
    Script(daemon).run(RESOURCE_POLICIES)
