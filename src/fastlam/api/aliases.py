"""The alias operations over HTTP."""

from __future__ import annotations

from typing import Any

from fastlam.api.support import Call, Entries, Reply, Supported
from fastlam.control.aliases import Aliases
from fastlam.model.alias import AliasRecord


def entries(aliases: Aliases) -> Entries:
    def create(call: Call) -> Reply:
        return Reply(alias_configuration(aliases.create(call.caller, call.parameters)))

    def get(call: Call) -> Reply:
        return Reply(alias_configuration(aliases.get(call.caller, call.parameters)))

    def update(call: Call) -> Reply:
        return Reply(alias_configuration(aliases.update(call.caller, call.parameters)))

    def delete(call: Call) -> Reply:
        aliases.delete(call.caller, call.parameters)
        return Reply(None)

    def list_aliases(call: Call) -> Reply:
        page = aliases.list(call.caller, call.parameters)
        return Reply({"Aliases": [alias_configuration(alias) for alias in page.items], "NextMarker": page.next_marker})

    return {
        "CreateAlias": Supported(create),
        "GetAlias": Supported(get),
        "UpdateAlias": Supported(update),
        "DeleteAlias": Supported(delete),
        "ListAliases": Supported(list_aliases),
    }


def alias_configuration(alias: AliasRecord) -> dict[str, Any]:
    weights = alias.additional_weights
    return {
        "AliasArn": alias.arn,
        "Name": alias.name,
        "FunctionVersion": alias.function_version,
        "Description": alias.description,
        "RoutingConfig": {"AdditionalVersionWeights": weights} if weights else None,
        "RevisionId": alias.revision_id,
    }
