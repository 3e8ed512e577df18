"""The code signing operations over HTTP."""

from __future__ import annotations

from typing import Any, Final

from fastlam.api.support import Call, Entries, Reply, Supported
from fastlam.control.code_signing import CodeSigning
from fastlam.model.code_signing import CodeSigningConfigRecord, FunctionCodeSigningRecord

_NOTE: Final = "signatures are not verified: every package counts as unsigned, which Enforce refuses and Warn allows"


def entries(signing: CodeSigning) -> Entries:
    def create(call: Call) -> Reply:
        return Reply({"CodeSigningConfig": _config(signing.create(call.caller, call.parameters))})

    def get(call: Call) -> Reply:
        return Reply({"CodeSigningConfig": _config(signing.get(call.caller, call.parameters))})

    def update(call: Call) -> Reply:
        return Reply({"CodeSigningConfig": _config(signing.update(call.caller, call.parameters))})

    def delete(call: Call) -> Reply:
        signing.delete(call.caller, call.parameters)
        return Reply(None)

    def list_configs(call: Call) -> Reply:
        page = signing.list(call.caller, call.parameters)
        items = [_config(record) for record in page.items]
        return Reply({"CodeSigningConfigs": items, "NextMarker": page.next_marker})

    def list_functions(call: Call) -> Reply:
        page = signing.list_functions(call.caller, call.parameters)
        return Reply({"FunctionArns": [user.function_arn for user in page.items], "NextMarker": page.next_marker})

    def put_on_function(call: Call) -> Reply:
        return Reply(_association(signing.put_on_function(call.caller, call.parameters)))

    def get_of_function(call: Call) -> Reply:
        record = signing.get_of_function(call.caller, call.parameters)
        return Reply({} if record is None else _association(record))

    def delete_from_function(call: Call) -> Reply:
        signing.delete_from_function(call.caller, call.parameters)
        return Reply(None)

    return {
        "CreateCodeSigningConfig": Supported(create, _NOTE),
        "GetCodeSigningConfig": Supported(get),
        "UpdateCodeSigningConfig": Supported(update, _NOTE),
        "DeleteCodeSigningConfig": Supported(delete),
        "ListCodeSigningConfigs": Supported(list_configs),
        "ListFunctionsByCodeSigningConfig": Supported(list_functions),
        "PutFunctionCodeSigningConfig": Supported(put_on_function, _NOTE),
        "GetFunctionCodeSigningConfig": Supported(get_of_function),
        "DeleteFunctionCodeSigningConfig": Supported(delete_from_function),
    }


def _config(record: CodeSigningConfigRecord) -> dict[str, Any]:
    return {
        "CodeSigningConfigId": record.config_id,
        "CodeSigningConfigArn": record.arn,
        "Description": record.description,
        "AllowedPublishers": {"SigningProfileVersionArns": list(record.publishers)},
        "CodeSigningPolicies": {"UntrustedArtifactOnDeployment": record.policy},
        "LastModified": record.last_modified,
    }


def _association(record: FunctionCodeSigningRecord) -> dict[str, Any]:
    return {"CodeSigningConfigArn": record.config_arn, "FunctionName": record.function}
