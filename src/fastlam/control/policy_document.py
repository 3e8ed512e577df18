"""Policy documents: the statement that AddPermission makes of its parameters, and what is asked of a document that
comes whole. They are kept, and given back, as JSON of IAM's form.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from fastlam import limits
from fastlam.arn import PARTITION
from fastlam.control.policy_evaluation import is_operator, listed
from fastlam.control.settings import Request
from fastlam.errors import ApiError, invalid_parameter

Document = dict[str, Any]
Statement = dict[str, Any]

_VERSIONS: Final = ("2012-10-17", "2008-10-17")
_URL_ACTION: Final = "lambda:InvokeFunctionUrl"

_ACCOUNT: Final = re.compile(r"\d{12}", re.ASCII)
_SERVICE: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*\.(amazonaws\.com(\.cn)?|amazon\.com)", re.ASCII)
_IDENTITY: Final = re.compile(
    r"arn:aws[a-z-]*:(iam|sts)::\d{12}:(root|(user|role|assumed-role|federated-user)/\S+)", re.ASCII
)
_ACTION: Final = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+", re.ASCII)
_RESOURCE: Final = re.compile(r"\*|arn:[^:\s]*:[^:\s]*:[^:\s]*:[^:\s]*:\S+")

_DOCUMENT_ELEMENTS: Final = frozenset({"Version", "Id", "Statement"})
_STATEMENT_ELEMENTS: Final = frozenset(
    {
        "Sid",
        "Effect",
        "Principal",
        "NotPrincipal",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Condition",
    }
)
_PRINCIPAL_KINDS: Final = frozenset({"AWS", "Service", "Federated", "CanonicalUser"})


def new_document() -> Document:
    """What statements are added to where there is no policy yet."""
    return {"Version": _VERSIONS[0], "Id": "default", "Statement": []}


def text_of(document: Mapping[str, Any]) -> str:
    """A document, or one statement, as the API shows it."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)


def check_size(document: Document) -> None:
    size = len(text_of(document).encode())
    if size > limits.POLICY_BYTES_MAX:
        raise ApiError(
            "PolicyLengthExceededException",
            f"The final policy size ({size}) is bigger than the limit ({limits.POLICY_BYTES_MAX}).",
        )


# ---- AddPermission -----------------------------------------------------------------------------------


def statement_of(request: Request, resource: str) -> Statement:
    """The statement that a request to AddPermission means."""
    if request.get("FunctionUrlAuthType") is not None and request["Action"] != _URL_ACTION:
        raise invalid_parameter(f"FunctionUrlAuthType is only supported for {_URL_ACTION} action.")
    statement: Statement = {
        "Sid": request["StatementId"],
        "Effect": "Allow",
        "Principal": _principal(request["Principal"]),
        "Action": request["Action"],
        "Resource": resource,
    }
    condition = _condition(request)
    if condition:
        statement["Condition"] = condition
    return statement


def _principal(text: str) -> str | dict[str, str]:
    if text == "*":
        return "*"
    if _ACCOUNT.fullmatch(text):
        return {"AWS": f"arn:{PARTITION}:iam::{text}:root"}
    if _IDENTITY.fullmatch(text):
        return {"AWS": text}
    if _SERVICE.fullmatch(text):
        return {"Service": text}
    raise _invalid_principal()


def _condition(request: Request) -> dict[str, dict[str, str]]:
    equal = {
        key: request[member]
        for member, key in (
            ("SourceAccount", "AWS:SourceAccount"),
            ("PrincipalOrgID", "aws:PrincipalOrgID"),
            ("EventSourceToken", "lambda:EventSourceToken"),
            ("FunctionUrlAuthType", "lambda:FunctionUrlAuthType"),
        )
        if request.get(member) is not None
    }
    condition: dict[str, dict[str, str]] = {}
    if equal:
        condition["StringEquals"] = equal
    if request.get("InvokedViaFunctionUrl") is not None:
        condition["Bool"] = {"lambda:InvokedViaFunctionUrl": str(request["InvokedViaFunctionUrl"]).lower()}
    if request.get("SourceArn") is not None:
        condition["ArnLike"] = {"AWS:SourceArn": request["SourceArn"]}
    return condition


def _invalid_principal() -> ApiError:
    return invalid_parameter("The provided principal was invalid. Please check the principal and try again.")


# ---- PutResourcePolicy -------------------------------------------------------------------------------


def read_document(text: str) -> Document:
    """The document, checked, its statements as a list; raises the refusal."""
    try:
        document = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise _invalid("it is not JSON") from None
    if not isinstance(document, dict):
        raise _invalid("it is not a JSON object")
    _check_elements(document, _DOCUMENT_ELEMENTS, "the document")
    if document.get("Version") not in _VERSIONS:
        raise _invalid(f"Version must be one of {', '.join(_VERSIONS)}")
    if not isinstance(document.get("Id", ""), str):
        raise _invalid("Id must be a string")
    statements = listed(document.get("Statement"))
    if not statements or not all(isinstance(statement, dict) for statement in statements):
        raise _invalid("Statement must be a list of at least one statement")
    for statement in statements:
        _check_statement(statement)
    sids = [statement["Sid"] for statement in statements if "Sid" in statement]
    if len(set(sids)) < len(sids):
        raise _invalid("Statement ids (SID) in a single policy must be unique")
    return document | {"Statement": statements}


def _check_statement(statement: Statement) -> None:
    _check_elements(statement, _STATEMENT_ELEMENTS, "a statement")
    if not isinstance(statement.get("Sid", ""), str):
        raise _invalid("Sid must be a string")
    if statement.get("Effect") not in ("Allow", "Deny"):
        raise _invalid("Effect must be Allow or Deny")
    _check_principal(_either(statement, "Principal"))
    _check_texts(_either(statement, "Action"), _ACTION, "Action")
    _check_texts(_either(statement, "Resource"), _RESOURCE, "Resource")
    _check_condition(statement.get("Condition", {}))


def _check_elements(found: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    unknown = sorted(found.keys() - known)
    if unknown:
        raise _invalid(f"{where} has the unknown element {unknown[0]}")


def _either(statement: Statement, name: str) -> Any:
    """The value of `name` or `Not<name>`, of which a statement has exactly one."""
    if (name in statement) == (f"Not{name}" in statement):
        raise _invalid(f"a statement has either {name} or Not{name}")
    return statement.get(name, statement.get(f"Not{name}"))


def _check_principal(principal: Any) -> None:
    if principal == "*":
        return
    if not isinstance(principal, dict) or not principal or not principal.keys() <= _PRINCIPAL_KINDS:
        raise _invalid_principal()
    for kind, wanted in principal.items():
        texts = listed(wanted)
        if not texts:
            raise _invalid_principal()
        for text in texts:
            if not isinstance(text, str) or not _may_be(kind, text):
                raise _invalid_principal()


def _may_be(kind: str, text: str) -> bool:
    if kind == "AWS":
        return text == "*" or bool(_ACCOUNT.fullmatch(text) or _IDENTITY.fullmatch(text))
    return bool(_SERVICE.fullmatch(text)) if kind == "Service" else bool(text)


def _check_texts(value: Any, pattern: re.Pattern[str], name: str) -> None:
    texts = listed(value)
    if not texts or not all(isinstance(text, str) and pattern.fullmatch(text) for text in texts):
        raise _invalid(f"{name} has a value that is none")


def _check_condition(condition: Any) -> None:
    if not isinstance(condition, dict):
        raise _invalid("Condition must be an object")
    for operator, block in condition.items():
        if not is_operator(operator):
            raise _invalid(f"the condition operator {operator[:100]} does not exist")
        if not isinstance(block, dict) or not all(
            isinstance(each, (str, bool, int, float)) for wanted in block.values() for each in listed(wanted)
        ):
            raise _invalid(f"the condition {operator} must hold keys with one or several values")


def _invalid(why: str) -> ApiError:
    return invalid_parameter(f"The provided policy document is not valid: {why}.")
