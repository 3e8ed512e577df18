"""Whether the statements of a policy allow a request: IAM's rules as pure functions of the policy's own JSON.

    a Deny applies              DENIED, whatever else the policy says
    else an Allow applies       ALLOWED
    else                        SILENT

A statement applies when its principal, its action, its resource and all of its conditions do. Of the condition keys
those are known that a call to this program has: who calls, on behalf of which resource, and whether through a function
URL. A condition on any other key finds no value, and then does what IAM says of a missing one: `StringEquals` is not
met, `StringNotEquals` and `...IfExists` are. Policy variables (`${aws:...}`) are not replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from fastlam.control.authorize import Caller

Statement = Mapping[str, Any]

_ARN_PARTS: Final = 6


class Decision(Enum):
    ALLOWED = "allowed"
    DENIED = "denied"
    SILENT = "silent"


class AccessRequest(NamedTuple):
    """What somebody asks for."""

    principal: str  # ARN of a user, role or account root, or the name of a service
    account: str  # of the principal
    action: str
    resource: str  # ARN, as addressed
    context: Mapping[str, str]  # condition keys, in lower case


def is_service(caller: Caller) -> bool:
    return not caller.principal.startswith("arn:")


def access_request(
    caller: Caller, action: str, resource: str, context: Mapping[str, str] | None = None
) -> AccessRequest:
    """`context` adds condition keys to those that the caller gives, or replaces them."""
    service = is_service(caller)
    found = {
        "aws:principalisawsservice": "true" if service else "false",
        "aws:requestedregion": caller.region,
        "lambda:invokedviafunctionurl": "false",
    }
    if service:
        found["aws:principalservicename"] = caller.principal
    else:
        found["aws:principalarn"] = caller.principal
        found["aws:principalaccount"] = caller.account
    if caller.source_arn is not None:
        found["aws:sourcearn"] = caller.source_arn
        parts = caller.source_arn.split(":", _ARN_PARTS - 1)
        owner = parts[4] if len(parts) == _ARN_PARTS else ""
        found["aws:sourceaccount"] = owner or caller.account  # a bucket's ARN names no account
    if context:
        found |= {key.lower(): value for key, value in context.items()}
    return AccessRequest(caller.principal, caller.account, action, resource, found)


def decide(statements: Iterable[Statement], request: AccessRequest) -> Decision:
    decision = Decision.SILENT
    for statement in statements:
        if _applies(statement, request):
            if statement["Effect"] == "Deny":
                return Decision.DENIED
            decision = Decision.ALLOWED
    return decision


def allows(statements: Iterable[Statement], caller: Caller, action: str, resource: str) -> bool:
    return decide(statements, access_request(caller, action, resource)) is Decision.ALLOWED


# ---- one statement -----------------------------------------------------------------------------------


def _applies(statement: Statement, request: AccessRequest) -> bool:
    return (
        _element(statement, "Action", lambda wanted: like(wanted.lower(), request.action.lower()))
        and _element(statement, "Resource", lambda wanted: arn_like(wanted, request.resource))
        and _principal_applies(statement, request)
        and all(
            _condition_met(operator, key, wanted, request.context)
            for operator, block in (statement.get("Condition") or {}).items()
            for key, wanted in block.items()
        )
    )


def _element(statement: Statement, name: str, matches: Callable[[str], bool]) -> bool:
    """`Action` or `NotAction`, `Resource` or `NotResource`."""
    if name in statement:
        return any(matches(wanted) for wanted in listed(statement[name]))
    return not any(matches(wanted) for wanted in listed(statement.get(f"Not{name}", "*")))


def _principal_applies(statement: Statement, request: AccessRequest) -> bool:
    if "Principal" in statement:
        return _is_among(statement["Principal"], request)
    return not _is_among(statement.get("NotPrincipal", "*"), request)


def _is_among(principal: Any, request: AccessRequest) -> bool:
    if not isinstance(principal, Mapping):
        return bool(principal == "*")
    return any(_is(kind, wanted, request) for kind, several in principal.items() for wanted in listed(several))


def _is(kind: str, wanted: str, request: AccessRequest) -> bool:
    service = not request.principal.startswith("arn:")
    if kind == "Service":
        return service and wanted == request.principal
    if kind != "AWS":
        return False
    if wanted == "*":
        return True
    if service:
        return False
    return wanted in (request.account, request.principal) or _covers(wanted, request)


def _covers(wanted: str, request: AccessRequest) -> bool:
    """Whether the ARN is that of the principal's account, or of the role behind its session."""
    service, _, account, name = (wanted.split(":", _ARN_PARTS - 1) + [""] * _ARN_PARTS)[2:_ARN_PARTS]
    if service != "iam" or account != request.account:
        return False
    session = request.principal.rpartition(":")[2].split("/")
    assumed = session[0] == "assumed-role" and len(session) > 1
    return name == "root" or (assumed and name.startswith("role/") and name.rpartition("/")[2] == session[1])


# ---- conditions --------------------------------------------------------------------------------------


def _unknown_here(wanted: str, value: str) -> bool:
    """Of values that no key of ours has (numbers, dates, addresses): nothing to compare, so never asked."""
    return False


# Operator -> (whether it is met by what does not compare, the comparison of a wanted and an actual value).
_OPERATORS: Final[Mapping[str, tuple[bool, Callable[[str, str], bool]]]] = {
    "StringEquals": (False, lambda wanted, value: wanted == value),
    "StringNotEquals": (True, lambda wanted, value: wanted == value),
    "StringEqualsIgnoreCase": (False, lambda wanted, value: wanted.casefold() == value.casefold()),
    "StringNotEqualsIgnoreCase": (True, lambda wanted, value: wanted.casefold() == value.casefold()),
    "StringLike": (False, lambda wanted, value: like(wanted, value)),
    "StringNotLike": (True, lambda wanted, value: like(wanted, value)),
    "ArnEquals": (False, lambda wanted, value: arn_like(wanted, value)),
    "ArnLike": (False, lambda wanted, value: arn_like(wanted, value)),
    "ArnNotEquals": (True, lambda wanted, value: arn_like(wanted, value)),
    "ArnNotLike": (True, lambda wanted, value: arn_like(wanted, value)),
    "Bool": (False, lambda wanted, value: wanted.lower() == value.lower()),
    "BinaryEquals": (False, lambda wanted, value: wanted == value),
    "IpAddress": (False, _unknown_here),
    "NotIpAddress": (True, _unknown_here),
    **{
        f"{kind}{comparison}": (comparison == "NotEquals", _unknown_here)
        for kind in ("Numeric", "Date")
        for comparison in ("Equals", "NotEquals", "LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals")
    },
}


def is_operator(text: str) -> bool:
    """Whether IAM has this condition operator, with its prefixes and suffix."""
    _, name, _ = _operator(text)
    return name == "Null" or name in _OPERATORS


def _operator(text: str) -> tuple[str, str, bool]:
    """Quantifier, bare name, whether a missing key will do."""
    for quantifier in ("ForAllValues", "ForAnyValue"):
        if text.startswith(f"{quantifier}:"):
            text = text.removeprefix(f"{quantifier}:")
            break
    else:
        quantifier = ""
    return quantifier, text.removesuffix("IfExists"), text.endswith("IfExists")


def _condition_met(operator: str, key: str, wanted: Any, context: Mapping[str, str]) -> bool:
    quantifier, name, if_exists = _operator(operator)
    value = context.get(key.lower())
    texts = [_text(each) for each in listed(wanted)]
    if name == "Null":
        return ("true" in [text.lower() for text in texts]) == (value is None)
    negated, compares = _OPERATORS[name]
    if value is None:
        return negated or if_exists or quantifier == "ForAllValues"
    return any(compares(text, value) for text in texts) != negated


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


# ---- matching ----------------------------------------------------------------------------------------


def listed(value: Any) -> list[Any]:
    """What policies may write as one value or as several."""
    return value if isinstance(value, list) else [value]


def arn_like(pattern: str, arn: str) -> bool:
    """Each of the six parts of an ARN matched by itself; a `*` reaches over colons in the last one only."""
    if pattern == "*":
        return True
    wanted, actual = pattern.split(":", _ARN_PARTS - 1), arn.split(":", _ARN_PARTS - 1)
    return len(wanted) == len(actual) == _ARN_PARTS and all(map(like, wanted, actual))


def like(pattern: str, text: str) -> bool:
    """Whether the text is one that the pattern describes: `*` any characters, `?` one of them.

    Takes time in proportion to the product of both lengths at most, whatever they are: policies come from outside.
    """
    at = seen = 0  # in the pattern, in the text
    star = resumed = -1  # where the last `*` is, and how far into the text it has been let reach
    while seen < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, resumed = at, seen
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[seen]):
            at += 1
            seen += 1
        elif star >= 0:
            resumed += 1
            at, seen = star + 1, resumed
        else:
            return False
    return not pattern[at:].strip("*")
