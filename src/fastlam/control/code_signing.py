"""Code signing: whose packages a function takes.

Nothing here can verify a signature of AWS Signer, so that every package counts as unsigned: a function whose
configuration enforces signatures takes no package and no layer, one whose configuration warns takes all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

from msgspec.structs import replace

from fastlam.arn import FunctionAddress
from fastlam.clock import Clock
from fastlam.control.authorize import Caller
from fastlam.control.concurrency import of_functions_only
from fastlam.control.lookup import address_of, function_of, key_of
from fastlam.control.pages import Page, page
from fastlam.control.settings import Request
from fastlam.control.tags import Tags
from fastlam.control.times import timestamp
from fastlam.errors import ApiError, conflict, invalid_parameter
from fastlam.model.code_signing import ENFORCE, WARN, CodeSigningConfigRecord, FunctionCodeSigningRecord
from fastlam.model.function import IMAGE, FunctionRecord
from fastlam.model.key import RecordKey
from fastlam.store.records import CODE_SIGNING_CONFIG, FUNCTION_CODE_SIGNING, RecordStore, Write

_TAGGED: Final = "code-signing-config"


class CodeSigning:
    """Owner of the configurations, and of which function has which."""

    def __init__(self, store: RecordStore, clock: Clock, tags: Tags) -> None:
        self._store = store
        self._clock = clock
        self._tags = tags
        tags.register(_TAGGED, lambda key: store.get(CODE_SIGNING_CONFIG, key) is not None)

    # Configurations --------------------------------------------------------------------------------

    def create(self, caller: Caller, request: Request) -> CodeSigningConfigRecord:
        policies = request.get("CodeSigningPolicies") or {}
        record = CodeSigningConfigRecord(
            account=caller.account,
            region=caller.region,
            config_id=f"csc-{uuid4().hex[:17]}",
            publishers=_publishers(request["AllowedPublishers"]["SigningProfileVersionArns"]),
            policy=policies.get("UntrustedArtifactOnDeployment") or WARN,
            description=request.get("Description") or "",
            last_modified=self._now(),
        )
        tags = self._tags.new(_TAGGED, record.key, request.get("Tags"))
        self._store.apply([Write(CODE_SIGNING_CONFIG, record.key, record), *tags])
        return record

    def get(self, caller: Caller, request: Request) -> CodeSigningConfigRecord:
        return self._found(caller, request["CodeSigningConfigArn"])

    def update(self, caller: Caller, request: Request) -> CodeSigningConfigRecord:
        record = self._found(caller, request["CodeSigningConfigArn"])
        fields: dict[str, Any] = {"last_modified": self._now()}
        if request.get("AllowedPublishers") is not None:
            fields["publishers"] = _publishers(request["AllowedPublishers"]["SigningProfileVersionArns"])
        policy = (request.get("CodeSigningPolicies") or {}).get("UntrustedArtifactOnDeployment")
        if policy is not None:
            fields["policy"] = policy
        if request.get("Description") is not None:
            fields["description"] = request["Description"]
        updated = replace(record, **fields)
        self._store.put(CODE_SIGNING_CONFIG, updated)
        return updated

    def delete(self, caller: Caller, request: Request) -> None:
        arn = request["CodeSigningConfigArn"]
        record = self._find(caller, arn)
        if record is None:
            raise _missing(f"The Lambda code signing configuration {arn} cannot be found.", typed=True)
        if self._users(record):
            raise conflict(
                f"The Lambda code signing configuration {arn} cannot be deleted because functions use it. Remove it"
                " from the functions and try again."
            )
        self._store.apply([Write(CODE_SIGNING_CONFIG, record.key, None), self._tags.gone(_TAGGED, record.key)])

    def list(self, caller: Caller, request: Request) -> Page[CodeSigningConfigRecord]:
        records = self._store.list(CODE_SIGNING_CONFIG, caller.account, caller.region)
        return page(request, records, lambda record: record.config_id)

    def list_functions(self, caller: Caller, request: Request) -> Page[FunctionCodeSigningRecord]:
        record = self._found(caller, request["CodeSigningConfigArn"])
        return page(request, self._users(record), lambda user: user.function)

    # Functions -------------------------------------------------------------------------------------

    def put_on_function(self, caller: Caller, request: Request) -> FunctionCodeSigningRecord:
        address = self._address(caller, request, "PutFunctionCodeSigningConfig")
        config = self._usable(caller, request["CodeSigningConfigArn"])
        function = function_of(self._store, address)
        _refuse_image(function.package_type)
        record = _association(function.key, config)
        self._store.put(FUNCTION_CODE_SIGNING, record)
        return record

    def get_of_function(self, caller: Caller, request: Request) -> FunctionCodeSigningRecord | None:
        function = function_of(self._store, self._address(caller, request, "GetFunctionCodeSigningConfig"))
        return self._store.get(FUNCTION_CODE_SIGNING, function.key)

    def delete_from_function(self, caller: Caller, request: Request) -> None:
        """Of a function that has none, too."""
        function = function_of(self._store, self._address(caller, request, "DeleteFunctionCodeSigningConfig"))
        self._store.delete(FUNCTION_CODE_SIGNING, function.key)

    # For the control of functions --------------------------------------------------------------------

    def check_creation(
        self, caller: Caller, request: Request, address: FunctionAddress, package_type: str
    ) -> Sequence[Write]:
        """What CreateFunction has to write for its CodeSigningConfigArn; refuses packages that may not be deployed."""
        arn = request.get("CodeSigningConfigArn")
        if not arn:
            return []
        config = self._usable(caller, arn)
        _refuse_image(package_type)
        _verify(config, address.name)
        record = _association(key_of(address), config)
        return [Write(FUNCTION_CODE_SIGNING, record.key, record)]

    def check_deployment(self, function: FunctionRecord) -> None:
        """Refuse a package, or a layer, that the function's configuration does not let in."""
        association = self._store.get(FUNCTION_CODE_SIGNING, function.key)
        if association is None:
            return
        config_id = association.config_arn.rpartition(":")[2]
        config = self._store.get(CODE_SIGNING_CONFIG, RecordKey(function.account, function.region, config_id))
        if config is not None:  # one that is in use is not deleted
            _verify(config, function.name)

    # Inside ----------------------------------------------------------------------------------------

    def _now(self) -> str:
        return timestamp(self._clock).removesuffix("+0000") + "Z"

    def _address(self, caller: Caller, request: Request, operation: str) -> FunctionAddress:
        address = address_of(caller, request, operation)
        if address.qualifier is not None:
            raise of_functions_only()
        return address

    def _find(self, caller: Caller, arn: str) -> CodeSigningConfigRecord | None:
        """Of the caller's own account and region only."""
        key = RecordKey(caller.account, caller.region, arn.rpartition(":")[2])
        record = self._store.get(CODE_SIGNING_CONFIG, key)
        return record if record is not None and record.arn == arn else None

    def _found(self, caller: Caller, arn: str) -> CodeSigningConfigRecord:
        record = self._find(caller, arn)
        if record is None:
            raise _missing(f"The Lambda code signing configuration {arn} can not be found.", typed=False)
        return record

    def _usable(self, caller: Caller, arn: str) -> CodeSigningConfigRecord:
        """As `_found`, for a function that is to have it."""
        record = self._find(caller, arn)
        if record is None:
            raise ApiError(
                "CodeSigningConfigNotFoundException",
                "The code signing configuration cannot be found. Check that the provided configuration is not deleted:"
                f" {arn}.",
            )
        return record

    def _users(self, config: CodeSigningConfigRecord) -> Sequence[FunctionCodeSigningRecord]:
        records = self._store.list(FUNCTION_CODE_SIGNING, config.account, config.region)
        return [record for record in records if record.config_arn == config.arn]


def _association(key: RecordKey, config: CodeSigningConfigRecord) -> FunctionCodeSigningRecord:
    return FunctionCodeSigningRecord(account=key.account, region=key.region, function=key.name, config_arn=config.arn)


def _publishers(arns: list[str]) -> tuple[str, ...]:
    """Signing profile versions; the model's pattern lets any ARN pass."""
    for arn in arns:
        if arn.split(":")[2] != "signer" or ":/signing-profiles/" not in arn:
            raise invalid_parameter(f"The signing profile version ARN {arn} is invalid.")
    return tuple(dict.fromkeys(arns))


def _verify(config: CodeSigningConfigRecord, function_name: str) -> None:
    if config.policy == ENFORCE:
        raise ApiError(
            "CodeVerificationFailedException",
            "Lambda cannot deploy the function. The function or layer might be signed using a signature that the client"
            f" is not configured to accept. Check the provided signature for {function_name}.",
        )


def _refuse_image(package_type: str) -> None:
    if package_type == IMAGE:
        raise invalid_parameter("Code signing is not supported for functions with packageType Image.")


def _missing(message: str, *, typed: bool) -> ApiError:
    return ApiError("ResourceNotFoundException", message, typed=typed)
