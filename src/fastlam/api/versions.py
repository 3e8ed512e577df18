"""The version operations over HTTP."""

from __future__ import annotations

from fastlam.api.rendering import function_configuration
from fastlam.api.support import Call, Entries, Reply, Supported
from fastlam.control.functions import Functions
from fastlam.control.versions import Versions


def entries(versions: Versions, functions: Functions) -> Entries:
    def publish(call: Call) -> Reply:
        record = versions.publish(call.caller, call.parameters)
        return Reply(function_configuration(record, functions.variables, record.version))

    def list_versions(call: Call) -> Reply:
        page = versions.list(call.caller, call.parameters)
        items = [
            function_configuration(record, functions.variables, record.version, listed=True) for record in page.items
        ]
        return Reply({"Versions": items, "NextMarker": page.next_marker})

    return {"PublishVersion": Supported(publish), "ListVersionsByFunction": Supported(list_versions)}
