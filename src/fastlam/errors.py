"""Every error a client can be answered with: one table from code to HTTP status and spelling, one exception class.

The table holds what the Lambda service model says of each error shape (a test compares the two) and, below the line,
the codes the live service sends although its model does not list them, and the few that only this program needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class FastlamError(Exception):
    """What went wrong, in one sentence made for the person who asked: base of all errors users of any door may see."""


def native_module_missing(error: ModuleNotFoundError) -> str | None:
    """What to do where one of our compiled modules is not there (for this Python); None when it is something else."""
    places = ("fastlam.core.", "fastlam.http.front", "fastlam.http.link", "fastlam.api.repeated")
    if error.name is None or not error.name.startswith(places):
        return None
    return (
        f"fastlam's native module {error.name} is missing: build it with `pip install .` in the clone, which needs a C"
        " compiler and the Python headers (docs/howto/install.md)."
    )


class Shape(NamedTuple):
    """How one error code goes over the wire."""

    status: int  # HTTP
    message_key: str  # "message" or "Message": the service is not of one mind
    typed: bool  # the body carries "Type"


def _shapes(status: int, capital: str = "", small: str = "") -> dict[str, Shape]:
    table = {f"{name}Exception": Shape(status, "Message", True) for name in capital.split()}
    table |= {f"{name}Exception": Shape(status, "message", True) for name in small.split()}
    return table


MODELLED: Final[Mapping[str, Shape]] = {
    **_shapes(
        400,
        "CallbackTimeout CodeVerificationFailed InvalidCodeSignature NoPublishedVersion PublicPolicy"
        " RecursiveInvocation"
        " ResourceInUse SnapStart",
        "AliasLimitExceeded CapacityProviderLimitExceeded CodeStorageExceeded InvalidParameterValue"
        " InvalidRequestContent"
        " FunctionVersionsPerCapacityProviderLimitExceeded ModeNotSupported PolicyLengthExceeded",
    ),
    **_shapes(402, "ServiceQuotaExceeded"),
    **_shapes(403, "EFSMountFailure S3FilesMountFailure"),
    **_shapes(404, "CodeSigningConfigNotFound ResourceNotFound", "ProvisionedConcurrencyConfigNotFound"),
    **_shapes(
        408,
        "EFSMountConnectivity EFSMountTimeout S3FilesMountConnectivity S3FilesMountTimeout SnapStartTimeout",
    ),
    **_shapes(
        409,
        "DurableExecutionAlreadyStarted SnapStartNotReady SnapStartRegenerationFailure",
        "CodeArtifactUserDeleted CodeArtifactUserFailed CodeArtifactUserPending ResourceConflict RuntimeAliasDeleted"
        " RuntimeVersionDeleted",
    ),
    **_shapes(410, "EFSIO"),
    **_shapes(412, "", "PreconditionFailed"),
    **_shapes(413, "", "RequestTooLarge SerializedRequestEntityTooLarge"),
    **_shapes(415, "", "UnsupportedMediaType"),
    **_shapes(429, "", "TooManyRequests"),
    **_shapes(500, "Service"),
    **_shapes(
        502,
        "EC2AccessDenied EC2Throttled EC2Unexpected ENILimitReached ENINotReady InvalidRuntime InvalidSecurityGroupID"
        " InvalidSubnetID InvalidZipFile KMSAccessDenied KMSDisabled KMSInvalidState KMSNotFound"
        " SubnetIPAddressLimitReached",
        "ResourceNotReady",
    ),
}

# Sent by the live service without being in its model; none carries "Type".
UNMODELLED: Final[Mapping[str, Shape]] = {
    "ValidationException": Shape(400, "message", False),
    "SerializationException": Shape(400, "message", False),
    "AccessDeniedException": Shape(403, "message", False),
    "RequestEntityTooLargeException": Shape(413, "message", False),
    # Ours: an operation of the model that this version does not have yet, and a path that is in no model.
    "NotImplementedException": Shape(501, "message", False),
    "UnknownOperationException": Shape(404, "message", False),
}

SHAPES: Final[Mapping[str, Shape]] = {**MODELLED, **UNMODELLED}


class ApiError(FastlamError):
    """One error answer of the Lambda API. `str(error)` is the message; `fields` are further members of the body."""

    def __init__(
        self,
        code: str,
        message: str | None,
        *,
        fields: Mapping[str, str] | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        typed: bool | None = None,
    ) -> None:
        super().__init__(message if message is not None else code)
        shape = SHAPES[code]
        self.code = code
        self.status = shape.status
        self.message = message  # None is sent as null: a denial that says nothing
        self.message_key = shape.message_key
        self.typed = shape.typed if typed is None else typed
        self.fields = dict(fields or {})
        self.headers = headers

    def body(self) -> dict[str, str | None]:
        """The members of the JSON body, in the order the service writes them."""
        body: dict[str, str | None] = dict(self.fields)
        if self.typed:
            body.setdefault("Type", "Service" if self.status >= 500 else "User")
        body[self.message_key] = self.message
        return body

    def __repr__(self) -> str:
        return f"ApiError({self.code!r}, {self.message!r})"


def invalid_parameter(message: str, *, typed: bool = True) -> ApiError:
    return ApiError("InvalidParameterValueException", message, typed=typed)


def not_found(message: str) -> ApiError:
    return ApiError("ResourceNotFoundException", message)


def function_not_found(arn: str) -> ApiError:
    return not_found(f"Function not found: {arn}")


def conflict(message: str) -> ApiError:
    return ApiError("ResourceConflictException", message)


def access_denied(message: str | None) -> ApiError:
    return ApiError("AccessDeniedException", message)


def validation(items: list[str]) -> ApiError:
    """The service's answer to input that breaks its constraints: all of the findings in one message."""
    plural = "" if len(items) == 1 else "s"
    return ApiError("ValidationException", f"{len(items)} validation error{plural} detected: " + "; ".join(items))


def serialization(message: str) -> ApiError:
    return ApiError("SerializationException", message)


def too_large(message: str) -> ApiError:
    return ApiError("RequestEntityTooLargeException", message)


def stale_revision() -> ApiError:
    return ApiError(
        "PreconditionFailedException",
        "The Revision Id provided does not match the latest Revision Id. Call the GetFunction/GetAlias API to retrieve"
        " the latest Revision Id",
    )


def throttled(reason: str, message: str = "Rate Exceeded.", retry_after_seconds: int | None = None) -> ApiError:
    headers = () if retry_after_seconds is None else (("Retry-After", str(retry_after_seconds)),)
    return ApiError("TooManyRequestsException", message, fields={"Reason": reason}, headers=headers)


def service_fault(message: str) -> ApiError:
    return ApiError("ServiceException", message)
