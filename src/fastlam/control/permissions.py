"""Resource policies: who besides a function's owner may use it, and who may not.

The unqualified ARN, each version, each alias and `$LATEST` have a policy of their own, and a request is held against
that of the ARN it addresses. A change gives the function, version or alias a new RevisionId, which is the policy's too.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from uuid import uuid4

from msgspec.structs import replace

from fastlam.arn import LATEST, FunctionAddress, denied_by_resource_policy, resolve
from fastlam.control.authorize import Caller, action_of
from fastlam.control.lookup import address_of, check_revision, key_of
from fastlam.control.policy_document import (
    Document,
    Statement,
    check_size,
    new_document,
    read_document,
    statement_of,
)
from fastlam.control.policy_evaluation import Decision, access_request, decide, is_service
from fastlam.control.settings import Request
from fastlam.errors import ApiError, access_denied, conflict, function_not_found, invalid_parameter, not_found
from fastlam.model.alias import AliasRecord
from fastlam.model.function import FunctionRecord
from fastlam.model.key import RecordKey
from fastlam.model.policy import PolicyRecord
from fastlam.store.records import ALIAS, FUNCTION, POLICY, VERSION, Kind, RecordStore, Write

# The root of the account that owns a function can always do these, so that no policy locks everybody out.
_NEVER_DENIED_TO_ROOT: Final = frozenset(
    f"lambda:{operation}"
    for operation in (
        "AddPermission",
        "RemovePermission",
        "GetPolicy",
        "GetResourcePolicy",
        "PutResourcePolicy",
        "DeleteResourcePolicy",
    )
)


class PolicyView(NamedTuple):
    document: Document
    revision_id: str


class _Holder(NamedTuple):
    """What a policy belongs to, and takes its RevisionId from."""

    kind: Kind[Any]
    record: FunctionRecord | AliasRecord

    def rotated(self) -> tuple[str, Write]:
        revision_id = str(uuid4())
        record: FunctionRecord | AliasRecord = replace(self.record, revision_id=revision_id)
        return revision_id, Write(self.kind, record.key, record)


class Permissions:
    """Owner of the policies of functions, versions and aliases."""

    def __init__(self, store: RecordStore) -> None:
        self._store = store

    # Deciding --------------------------------------------------------------------------------------

    def check(self, caller: Caller, action: str, address: FunctionAddress) -> None:
        """Raises the refusal of what the policy of the address does not let the caller do.

        In its own account a caller may do what no statement denies; from another one, and as a service, only what one
        allows.
        """
        policy = self._store.get(POLICY, _policy_key(address))
        own = caller.account == address.account and not is_service(caller)
        if own and (policy is None or (action in _NEVER_DENIED_TO_ROOT and caller.principal.endswith(":root"))):
            return
        statements = [] if policy is None else policy.statements
        decision = decide(statements, access_request(caller, action, address.arn))
        if decision is Decision.DENIED:
            raise access_denied(
                f"User: {caller.principal} is not authorized to perform: {action} on resource: {address.arn} with an"
                " explicit deny in a resource-based policy"
            )
        if not own and decision is not Decision.ALLOWED:
            raise denied_by_resource_policy(caller.principal, action, address.arn)

    # Statement by statement ------------------------------------------------------------------------

    def add(self, caller: Caller, request: Request) -> Statement:
        address = address_of(caller, request, "AddPermission")
        if address.qualifier == LATEST:
            raise invalid_parameter("We currently do not support adding policies for $LATEST.")
        holder = self._found(address)
        statement = statement_of(request, address.arn)
        policy = self._store.get(POLICY, _policy_key(address))
        document = new_document() if policy is None else policy.document
        sid = request["StatementId"]
        if any(existing.get("Sid") == sid for existing in document["Statement"]):
            raise conflict(
                f"The statement id ({sid}) provided already exists. Please provide a new statement id, or remove the"
                " existing statement."
            )
        if request.get("RevisionId") is not None and request["RevisionId"] != holder.record.revision_id:
            raise ApiError(
                "PreconditionFailedException",
                "The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to retrieve the"
                " latest Revision Id",
            )
        self._put(address, holder, document | {"Statement": [*document["Statement"], statement]})
        return statement

    def remove(self, caller: Caller, request: Request) -> None:
        address = address_of(caller, request, "RemovePermission")
        holder = self._holder(address)
        if holder is None:
            if _is_alias(address):
                raise _no_alias(address)
            raise not_found(f"No policy found for: {address.arn}")
        policy = self._store.get(POLICY, _policy_key(address))
        if policy is None:
            raise not_found("No policy is associated with the given resource.")
        sid = request["StatementId"]
        left = [statement for statement in policy.statements if statement.get("Sid") != sid]
        if len(left) == len(policy.statements):
            raise not_found(f"Statement {sid} is not found in resource policy.")
        check_revision(request, holder.record.revision_id)
        if left:
            self._put(address, holder, policy.document | {"Statement": left})
        else:
            self._delete(address, holder)

    def get(self, caller: Caller, request: Request) -> PolicyView:
        return self._view(address_of(caller, request, "GetPolicy"))

    # The whole document ----------------------------------------------------------------------------

    def get_document(self, caller: Caller, request: Request) -> PolicyView:
        return self._view(_resource(caller, request, "GetResourcePolicy"))

    def put_document(self, caller: Caller, request: Request) -> PolicyView:
        """Replaces what there was, whoever added it."""
        address = _resource(caller, request, "PutResourcePolicy")
        holder = self._found(address)
        document = read_document(request["Policy"])
        check_revision(request, holder.record.revision_id)
        return PolicyView(document, self._put(address, holder, document))

    def delete_document(self, caller: Caller, request: Request) -> None:
        """Of a function without a policy, too."""
        address = _resource(caller, request, "DeleteResourcePolicy")
        holder = self._found(address)
        if self._store.get(POLICY, _policy_key(address)) is not None:
            check_revision(request, holder.record.revision_id)
            self._delete(address, holder)

    # Inside ----------------------------------------------------------------------------------------

    def _view(self, address: FunctionAddress) -> PolicyView:
        holder = self._holder(address)
        policy = self._store.get(POLICY, _policy_key(address))
        if holder is None or policy is None:
            raise _no_such_resource()
        return PolicyView(policy.document, holder.record.revision_id)

    def _holder(self, address: FunctionAddress) -> _Holder | None:
        key = key_of(address)
        if address.qualifier not in (None, LATEST):
            key = key._replace(part=address.qualifier)
        kinds: tuple[Kind[Any], ...] = (VERSION, ALIAS) if key.part else (FUNCTION,)
        for kind in kinds:
            record = self._store.get(kind, key)
            if record is not None:
                return _Holder(kind, record)
        return None

    def _found(self, address: FunctionAddress) -> _Holder:
        holder = self._holder(address)
        if holder is not None:
            return holder
        raise _no_alias(address) if _is_alias(address) else function_not_found(address.arn)

    def _put(self, address: FunctionAddress, holder: _Holder, document: Document) -> str:
        """The new RevisionId."""
        check_size(document)
        policy = PolicyRecord(
            account=address.account,
            region=address.region,
            function=address.name,
            qualifier=address.qualifier or "",
            document=document,
        )
        revision_id, write = holder.rotated()
        self._store.apply([Write(POLICY, policy.key, policy), write])
        return revision_id

    def _delete(self, address: FunctionAddress, holder: _Holder) -> None:
        _, write = holder.rotated()
        self._store.apply([Write(POLICY, _policy_key(address), None), write])


def _policy_key(address: FunctionAddress) -> RecordKey:
    return key_of(address)._replace(part=address.qualifier or "")


def _is_alias(address: FunctionAddress) -> bool:
    """Whether the qualifier can be nothing else."""
    qualifier = address.qualifier or ""
    return bool(qualifier) and not qualifier.isdecimal() and "$" not in qualifier


def _no_alias(address: FunctionAddress) -> ApiError:
    return not_found(f"Cannot find alias arn: {address.arn}")


def _no_such_resource() -> ApiError:
    return not_found("The resource you requested does not exist.")


def _resource(caller: Caller, request: Request, operation: str) -> FunctionAddress:
    """The function of an exact ARN."""
    arn: str = request["ResourceArn"]
    if not is_function_arn(arn):
        raise _no_such_resource()  # a runtime of the customer's own, which there is none of
    return resolve(
        arn,
        None,
        account=caller.account,
        region=caller.region,
        principal=caller.principal,
        action=action_of(operation),
    )


def is_function_arn(text: str) -> bool:
    parts = text.split(":")
    return len(parts) > 6 and parts[5] == "function"
