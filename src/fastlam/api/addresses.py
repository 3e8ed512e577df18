"""From what a caller of a function has written to what is invoked: worked out once for each address, then looked up.

This is the slow way, of all the operations that invoke: validation by the service model, permission, resource policy,
handle. The order of checks is the service's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastlam import limits
from fastlam.api import decoding, service_model, validation
from fastlam.api.caller import Defaults, caller_of
from fastlam.arn import FunctionAddress, resolve
from fastlam.control.authorize import Authorize, Caller, action_of
from fastlam.dispatch.targets import Resolved, Targets
from fastlam.errors import invalid_parameter
from fastlam.http.server import Request

# Path, query, scope of the credential, and the tenant where one was named.
Key = tuple[bytes, ...]

CheckPolicy = Callable[[Caller, str, FunctionAddress], None]
"""`check(caller, action, address)` raises ApiError when the function's resource policy does not let the caller in."""

_AUTHORIZATION: Final = b"authorization"
_TENANT: Final = b"x-amz-tenant-id"


class Addresses:
    """What addresses stand for; owner of the table in which the routes look first."""

    def __init__(
        self,
        targets: Targets,
        *,
        defaults: Defaults,
        authorize: Authorize,
        check_policy: CheckPolicy | None = None,
    ) -> None:
        self._targets = targets
        self.check_loop = targets.check_loop
        self._defaults = defaults
        self._authorize = authorize
        self._check_policy = check_policy
        self._model = service_model.load()
        self._operations = {operation.name: operation for operation in self._model.operations}
        self.known: dict[Key, Resolved] = {}
        self.epoch = object()  # another one whenever what is known may have become wrong

    def forget(self) -> None:
        """Something changed: every address is resolved anew."""
        self.known.clear()
        self.epoch = object()

    def resolve(
        self, request: Request, key: Key, operation_name: str, name: bytes, ignored: tuple[str, ...] = ()
    ) -> Resolved:
        """The handle for a request, put into the table under `key`; `name` is the function's part of the path. Members
        of the input that the service ignores are not checked. Raises ApiError.
        """
        address, tenant_id = self._addressed(request, operation_name, name, ignored)
        resolved = self._targets.resolve(address, tenant_id)
        if len(self.known) >= limits.TARGET_CACHE_ENTRIES_MAX:
            self.known.clear()
        self.known[key] = resolved
        return resolved

    def check(self, request: Request, operation_name: str, name: bytes) -> None:
        """Whether the request could be resolved, as far as that does not depend on this machine. Raises ApiError."""
        self._targets.check(*self._addressed(request, operation_name, name, ()))

    def _addressed(
        self, request: Request, operation_name: str, name: bytes, ignored: tuple[str, ...]
    ) -> tuple[FunctionAddress, str | None]:
        """What a valid and permitted request is about, and for which tenant."""
        operation = self._operations[operation_name]
        query = decoding.query_of(request.query)
        labels = {"FunctionName": decoding.unquote(name)}
        parameters = decoding.decode(self._model, operation, request, labels, query)
        for member in ignored:
            parameters.pop(member, None)
        validation.check(self._model, operation, parameters)
        if parameters.get("DurableExecutionName") is not None:
            raise invalid_parameter("DurableExecutionName was given for a function that is not configured for it.")
        caller = caller_of(request, self._defaults)
        action = action_of(operation.name)
        address = resolve(
            parameters["FunctionName"],
            parameters.get("Qualifier"),
            account=caller.account,
            region=caller.region,
            principal=caller.principal,
            action=action,
            any_account=self._check_policy is not None,
        )
        self._authorize(caller, action, address.arn)
        if self._check_policy is not None:
            self._check_policy(caller, action, address)
        return address, parameters.get("TenantId")


def scope_of(authorization: bytes) -> bytes:
    """Who signs and for which region, of an Authorization header; the signature behind it differs with each request."""
    start = authorization.find(b"Credential=")
    return authorization[start : authorization.find(b",", start)] if start >= 0 else b""


def key_of(request: Request) -> Key:
    """Where a request's address stands in the table, for routes in which nobody counts the microseconds."""
    authorization, tenant = request.header(_AUTHORIZATION), request.header(_TENANT)
    key: Key = (request.path, request.query, b"" if authorization is None else scope_of(authorization))
    return key if tenant is None else (*key, tenant)
