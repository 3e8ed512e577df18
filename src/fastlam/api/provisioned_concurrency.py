"""The provisioned concurrency operations over HTTP."""

from __future__ import annotations

from typing import Any, Final

from fastlam.api.support import Call, Entries, Reply, Stored
from fastlam.control.provisioned_concurrency import ProvisionedConcurrency
from fastlam.model.provisioned_concurrency import ProvisionedConcurrencyRecord

_MISSING: Final = "no environments are made ahead of the first invocation"


def entries(provisioned: ProvisionedConcurrency) -> Entries:
    def put(call: Call) -> Reply:
        return Reply(_config(provisioned.put(call.caller, call.parameters)))

    def get(call: Call) -> Reply:
        return Reply(_config(provisioned.get(call.caller, call.parameters)))

    def delete(call: Call) -> Reply:
        provisioned.delete(call.caller, call.parameters)
        return Reply(None)

    def list_configs(call: Call) -> Reply:
        page = provisioned.list(call.caller, call.parameters)
        items = [{"FunctionArn": record.arn} | _config(record) for record in page.items]
        return Reply({"ProvisionedConcurrencyConfigs": items, "NextMarker": page.next_marker})

    return {
        "PutProvisionedConcurrencyConfig": Stored(put, _MISSING),
        "GetProvisionedConcurrencyConfig": Stored(get, _MISSING),
        "DeleteProvisionedConcurrencyConfig": Stored(delete, _MISSING),
        "ListProvisionedConcurrencyConfigs": Stored(list_configs, _MISSING),
    }


def _config(record: ProvisionedConcurrencyRecord) -> dict[str, Any]:
    return {
        "RequestedProvisionedConcurrentExecutions": record.requested,
        "AvailableProvisionedConcurrentExecutions": record.allocated,
        "AllocatedProvisionedConcurrentExecutions": record.allocated,
        "Status": record.status,
        "StatusReason": record.status_reason,
        "LastModified": record.last_modified,
    }
