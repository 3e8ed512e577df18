"""Layers: packages published in numbered versions, attached to functions, shared with other accounts by a policy."""

from __future__ import annotations

import builtins
import itertools
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import uuid4

from msgspec.structs import replace

from fastlam import limits
from fastlam.arn import PARTITION, denied_by_resource_policy
from fastlam.clock import Clock, SystemClock
from fastlam.control.authorize import Caller, action_of
from fastlam.control.code import ReadObject, Source, check_storage, no_objects, zip_steps
from fastlam.control.collector import CodeCollector
from fastlam.control.pages import Page, page
from fastlam.control.policy_document import Document, check_size, new_document, text_of
from fastlam.control.policy_evaluation import Decision, access_request, decide
from fastlam.control.settings import Request
from fastlam.control.steps import Steps, complete
from fastlam.control.storage import stored_bytes
from fastlam.control.tags import Tags
from fastlam.control.times import timestamp
from fastlam.errors import ApiError, conflict, invalid_parameter, not_found
from fastlam.model.counter import CounterRecord
from fastlam.model.function import LayerReference
from fastlam.model.key import RecordKey
from fastlam.model.layer import LayerVersionRecord, layer_arn
from fastlam.store.artifacts import ArtifactStore
from fastlam.store.records import COUNTER, FUNCTION, LAYER_VERSION, VERSION, Change, RecordStore, Write

_ARN: Final = re.compile(
    r"arn:(?:aws[a-zA-Z-]*)?:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):layer:(?P<name>[a-zA-Z0-9-_]+)"
    r"(?::(?P<version>\d+))?",
    re.ASCII,
)
_GET: Final = "GetLayerVersion"  # the one operation that a policy can allow


class LayerAddress(NamedTuple):
    """A layer, or one version of it, as a request means it."""

    account: str
    region: str
    name: str
    version: int | None = None

    @property
    def arn(self) -> str:
        return layer_arn(self.region, self.account, self.name, self.version)

    @property
    def key(self) -> RecordKey:
        return RecordKey(self.account, self.region, self.name, "" if self.version is None else str(self.version))


class AddedStatement(NamedTuple):
    """What AddLayerVersionPermission tells of what it did."""

    statement: str  # JSON
    revision_id: str


class LayerPolicy(NamedTuple):
    document: str  # JSON
    revision_id: str


class Layers:
    """Owner of the layer version records. Lives in the thread of the store."""

    def __init__(
        self,
        store: RecordStore,
        artifacts: ArtifactStore,
        collector: CodeCollector,
        tags: Tags,
        *,
        clock: Clock | None = None,
        read_object: ReadObject = no_objects,
        in_background: Callable[[Callable[[], None]], object] | None = None,
    ) -> None:
        """`in_background` runs what may take long and that nobody waits for; default: at once."""
        self._store = store
        self._artifacts = artifacts
        self._collector = collector
        self._tags = tags
        self._clock = clock or SystemClock()
        self._read_object = read_object
        self._in_background = in_background or (lambda work: work())
        store.watch(self._changed)

    # Versions --------------------------------------------------------------------------------------

    def publish(self, caller: Caller, request: Request) -> LayerVersionRecord:
        return complete(self.publish_steps(caller, request))

    def publish_steps(self, caller: Caller, request: Request) -> Steps[LayerVersionRecord]:
        """The next version of the layer, which need not exist yet."""
        address = self._own(caller, request, "PublishLayerVersion")
        content = request["Content"]
        _check_source(content)
        source: Source = yield from zip_steps(content, self._artifacts, self._read_object, region=address.region)
        artifact = source.artifact
        try:
            check_storage(stored_bytes(self._store, address.account, address.region), artifact.zip_bytes)
            series = RecordKey(address.account, address.region, f"layer:{address.name}")
            counter = self._store.get(COUNTER, series)
            number = 1 + (counter.last if counter else 0)
            record = LayerVersionRecord(
                account=address.account,
                region=address.region,
                name=address.name,
                version=number,
                description=request.get("Description") or "",
                created_date=timestamp(self._clock),
                compatible_runtimes=_given(request.get("CompatibleRuntimes")),
                compatible_architectures=_given(request.get("CompatibleArchitectures")),
                license_info=request.get("LicenseInfo"),
                code_sha256=artifact.code_sha256,
                code_bytes=artifact.zip_bytes,
                s3_object=source.reference,
            )
            last = CounterRecord(account=address.account, region=address.region, series=series.name, last=number)
            self._store.apply([Write(COUNTER, series, last), Write(LAYER_VERSION, record.key, record)])
        finally:
            self._artifacts.release(artifact.sha256)
        return record

    def get(self, caller: Caller, request: Request) -> LayerVersionRecord:
        return self._readable(caller, _with_version(_address(caller, request["LayerName"]), request))

    def get_by_arn(self, caller: Caller, request: Request) -> LayerVersionRecord:
        address = _parse(request["Arn"])
        if address is None:
            raise _nothing()
        return self._readable(caller, _with_version(address, {"VersionNumber": address.version}))

    def delete(self, caller: Caller, request: Request) -> None:
        """Of a version that is not there, too. Functions that have it go on with it."""
        address = self._own_version(caller, request, "DeleteLayerVersion")
        record = self._store.get(LAYER_VERSION, address.key)
        if record is not None:
            writes = [Write(LAYER_VERSION, address.key, None)]
            if len(self._store.parts(LAYER_VERSION, address.key)) == 1:
                writes.append(self._tags.gone("layer", address.key.owner))
            self._store.apply(writes)
            self._collector.retire(record)

    def list_versions(self, caller: Caller, request: Request) -> Page[LayerVersionRecord]:
        """Newest first; none of a layer that is not there."""
        address = self._own(caller, request, "ListLayerVersions")
        versions = [
            record
            for record in self._newest_first(self._store.parts(LAYER_VERSION, address.key))
            if _fits(record, request)
        ]
        return page(request, versions, lambda record: -record.version, items_max=limits.LIST_PAGE_ITEMS_MAX)

    def list(self, caller: Caller, request: Request) -> Page[LayerVersionRecord]:
        """Of each layer the newest version that fits, by name."""

        def latest() -> Iterator[LayerVersionRecord]:
            records = self._store.list(LAYER_VERSION, caller.account, caller.region)
            for _, versions in itertools.groupby(records, lambda record: record.name):
                for record in self._newest_first(versions):
                    if _fits(record, request):
                        yield record
                        break

        return page(request, latest(), lambda record: record.name, items_max=limits.LIST_PAGE_ITEMS_MAX)

    # Policies --------------------------------------------------------------------------------------

    def add_permission(self, caller: Caller, request: Request) -> AddedStatement:
        record = self._own_record(caller, request, "AddLayerVersionPermission")
        sid = request["StatementId"]
        if any(statement["Sid"] == sid for statement in record.statements):
            raise conflict(
                f"The statement id ({sid}) provided already exists. Please provide a new statement id, or remove the"
                " existing statement."
            )
        _check_policy_revision(request, record)
        statement: dict[str, Any] = {
            "Sid": sid,
            "Effect": "Allow",
            "Principal": _principal(request["Principal"]),
            "Action": request["Action"],
            "Resource": record.arn,
        }
        if request.get("OrganizationId"):
            statement["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": request["OrganizationId"]}}
        changed = self._with_statements(record, (*record.statements, statement))
        check_size(_document(changed))
        self._store.put(LAYER_VERSION, changed)
        return AddedStatement(text_of(statement), changed.policy_revision_id)

    def remove_permission(self, caller: Caller, request: Request) -> None:
        record = self._own_record(caller, request, "RemoveLayerVersionPermission")
        if not record.statements:
            raise _no_policy()
        sid = request["StatementId"]
        kept = tuple(statement for statement in record.statements if statement["Sid"] != sid)
        if len(kept) == len(record.statements):
            raise not_found(f"Statement {sid} is not found in resource policy.")
        _check_policy_revision(request, record)
        self._store.put(LAYER_VERSION, self._with_statements(record, kept))

    def policy(self, caller: Caller, request: Request) -> LayerPolicy:
        record = self._own_record(caller, request, "GetLayerVersionPolicy")
        if not record.statements:
            raise _no_policy()
        return LayerPolicy(text_of(_document(record)), record.policy_revision_id)

    # Attaching -------------------------------------------------------------------------------------

    def find(self, caller: Caller, arns: builtins.list[str]) -> tuple[LayerReference, ...]:
        """What a function of the caller keeps of the layer versions that it is to have, in their order."""
        if len(arns) > limits.LAYERS_PER_FUNCTION_MAX:
            raise invalid_parameter(f"Cannot reference more than {limits.LAYERS_PER_FUNCTION_MAX} layers.")
        found: builtins.list[LayerReference] = []
        seen: dict[str, str] = {}  # layer -> the version that was asked for
        for arn in arns:
            record = self._attachable(caller, arn)
            other = seen.setdefault(record.layer_arn, arn)
            if len(seen) == len(found):
                raise invalid_parameter(
                    "Two different versions of the same layer are not allowed to be referenced in the same function."
                    f" {other} and {arn} are versions of the same layer."
                )
            found.append(record.reference)
        return tuple(found)

    def _attachable(self, caller: Caller, arn: str) -> LayerVersionRecord:
        address = _parse(arn)
        record = None if address is None else self._store.get(LAYER_VERSION, address.key)
        here = address is not None and address.region == caller.region
        if address is not None and address.account != caller.account:
            # Whether it exists is nobody's business who may not read it.
            if record is None or not here or not _permits(record, caller):
                raise denied_by_resource_policy(caller.principal, action_of(_GET), arn)
        elif address is not None and not here:
            raise invalid_parameter(
                "Layers are not in the same region as the function. Layers are expected to be in region"
                f" {caller.region}."
            )
        if record is None:
            raise invalid_parameter(f"Layer version {arn} does not exist.")
        return record

    def _changed(self, change: Change) -> None:
        """A function that was given several layers will want them laid over one another when it is invoked."""
        if change.kind not in (FUNCTION, VERSION) or change.record is None or len(change.record.layers) < 2:
            return
        if change.previous is None or change.previous.layers != change.record.layers:
            artifacts = [layer.artifact for layer in change.record.layers]
            self._in_background(partial(self._lay_out, artifacts))

    def _lay_out(self, artifacts: builtins.list[str]) -> None:
        self._artifacts.layers(artifacts)

    # Inside ----------------------------------------------------------------------------------------

    @staticmethod
    def _newest_first(records: Any) -> builtins.list[LayerVersionRecord]:
        return sorted(records, key=lambda record: -record.version)

    def _own(self, caller: Caller, request: Request, operation: str) -> LayerAddress:
        """The layer that a request names, which must be the caller's."""
        return _check_own(caller, _address(caller, request["LayerName"]), operation)

    def _own_version(self, caller: Caller, request: Request, operation: str) -> LayerAddress:
        return _check_own(caller, _with_version(_address(caller, request["LayerName"]), request), operation)

    def _own_record(self, caller: Caller, request: Request, operation: str) -> LayerVersionRecord:
        address = self._own_version(caller, request, operation)
        record = self._store.get(LAYER_VERSION, address.key)
        if record is None:
            raise not_found(f"Layer version {address.arn} does not exist.")
        return record

    def _readable(self, caller: Caller, address: LayerAddress) -> LayerVersionRecord:
        record = self._store.get(LAYER_VERSION, address.key)
        if address.account == caller.account or record is None or not _permits(record, caller):
            _check_own(caller, address, _GET)
        elif address.region != caller.region:
            raise denied_by_resource_policy(caller.principal, action_of(_GET), address.arn)
        if record is None:
            raise _nothing()
        return record

    @staticmethod
    def _with_statements(record: LayerVersionRecord, statements: tuple[dict[str, Any], ...]) -> LayerVersionRecord:
        return replace(record, statements=statements, policy_revision_id=str(uuid4()))


def _parse(arn: str) -> LayerAddress | None:
    """None for one of the service's own layers (`awslayer`), which do not exist here."""
    match = _ARN.fullmatch(arn)
    if match is None:
        return None
    version = None if match["version"] is None else int(match["version"])
    return LayerAddress(match["account"], match["region"], match["name"], version)


def _address(caller: Caller, name_or_arn: str) -> LayerAddress:
    found = _parse(name_or_arn)
    if found is None:
        return LayerAddress(caller.account, caller.region, name_or_arn)
    return found._replace(version=None)


def _with_version(address: LayerAddress, request: Request) -> LayerAddress:
    if request["VersionNumber"] < 1:
        raise invalid_parameter("Layer Version Cannot be less than 1")
    return address._replace(version=request["VersionNumber"])


def _check_own(caller: Caller, address: LayerAddress, operation: str) -> LayerAddress:
    if address.account != caller.account:
        raise denied_by_resource_policy(caller.principal, action_of(operation), address.arn)
    if address.region != caller.region:
        raise not_found(f"Layers from '{address.region}' are not reachable in this region ('{caller.region}')")
    return address


def _check_source(content: Request) -> None:
    given = {member for member, value in content.items() if value is not None}
    if not given & {"ZipFile", "S3Bucket", "S3Key"}:
        raise invalid_parameter("Please provide a source for layer content.")
    if "ZipFile" in given and len(given) > 1:
        raise invalid_parameter(
            "Please do not provide other LayerVersionContentInput parameters when providing a ZipFile."
        )


def _given(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)


def _fits(record: LayerVersionRecord, request: Request) -> bool:
    """Whether the version says that it is for what a list asks for."""
    runtime, architecture = request.get("CompatibleRuntime"), request.get("CompatibleArchitecture")
    return (runtime is None or runtime in (record.compatible_runtimes or ())) and (
        architecture is None or architecture in (record.compatible_architectures or ())
    )


def _principal(given: str) -> Any:
    if given == "*":
        return given
    return {"AWS": f"arn:{PARTITION}:iam::{given}:root" if given.isdecimal() else given}


def _permits(record: LayerVersionRecord, caller: Caller) -> bool:
    """Whether the policy lets another account read the version. No account here is in an organization."""
    return decide(record.statements, access_request(caller, action_of(_GET), record.arn)) is Decision.ALLOWED


def _check_policy_revision(request: Request, record: LayerVersionRecord) -> None:
    given = request.get("RevisionId")
    if given is not None and given != record.policy_revision_id:
        raise ApiError(
            "PreconditionFailedException",
            "The Revision Id provided does not match the latest Revision Id. Call the GetLayerPolicy API to retrieve"
            " the latest Revision Id",
        )


def _document(record: LayerVersionRecord) -> Document:
    return new_document() | {"Statement": list(record.statements)}


def _nothing() -> ApiError:
    return not_found("The resource you requested does not exist.")


def _no_policy() -> ApiError:
    return not_found("No policy is associated with the given resource.")
