"""The provisioned concurrency operations over HTTP."""

from __future__ import annotations

from typing import Any, Final

from fastlam.api.support import Call, Entries, Reply, Supported
from fastlam.control.provisioned_concurrency import ProvisionedConcurrency
from fastlam.model.provisioned_concurrency import ProvisionedConcurrencyRecord

_NOTE: Final = (
    "by real environments, as many as `--environments-max` has room for; `FAILED` with a reason where it has not."
    " `fastlam autoscale` scales them by use or calendar; Application Auto Scaling's own API is not answered"
)


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
        "PutProvisionedConcurrencyConfig": Supported(put, _NOTE),
        "GetProvisionedConcurrencyConfig": Supported(get),
        "DeleteProvisionedConcurrencyConfig": Supported(delete),
        "ListProvisionedConcurrencyConfigs": Supported(list_configs),
    }


def _config(record: ProvisionedConcurrencyRecord) -> dict[str, Any]:
    return {
        "RequestedProvisionedConcurrentExecutions": record.requested,
        "AvailableProvisionedConcurrentExecutions": record.available,
        "AllocatedProvisionedConcurrentExecutions": record.allocated,
        "Status": record.status,
        "StatusReason": record.status_reason,
        "LastModified": record.last_modified,
    }
