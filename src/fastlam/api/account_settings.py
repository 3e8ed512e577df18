"""GetAccountSettings over HTTP."""

from __future__ import annotations

from fastlam import limits
from fastlam.api.encoding import NULL
from fastlam.api.support import Call, Entries, Reply, Supported
from fastlam.control.account_settings import AccountSettings


def entries(settings: AccountSettings) -> Entries:
    def get(call: Call) -> Reply:
        usage = settings.get(call.caller)
        return Reply(
            {
                "AccountLimit": {
                    "TotalCodeSize": limits.CODE_STORAGE_BYTES_MAX,
                    "CodeSizeUnzipped": limits.UNZIPPED_BYTES_MAX,
                    "CodeSizeZipped": limits.ZIP_BYTES_MAX,
                    "ConcurrentExecutions": usage.concurrency,
                    "UnreservedConcurrentExecutions": usage.unreserved_concurrency,
                    "UnreservedConcurrentExecutionsMinimum": NULL,
                },
                "AccountUsage": {"TotalCodeSize": usage.code_bytes, "FunctionCount": usage.functions},
                # Sent by the service without being in its model, as is the minimum above.
                "AccountRuntimeConfig": NULL,
                "BlacklistedFeatures": NULL,
                "DeprecatedFeaturesAccess": NULL,
                "HasFunctionWithDeprecatedRuntime": usage.has_deprecated_runtime,
                "PreviewFeatures": NULL,
            }
        )

    return {"GetAccountSettings": Supported(get)}
