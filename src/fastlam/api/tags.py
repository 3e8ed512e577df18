"""The tag operations over HTTP."""

from __future__ import annotations

from fastlam.api.support import Call, Entries, Reply, Supported
from fastlam.control.tags import Tags


def entries(tags: Tags) -> Entries:
    def list_tags(call: Call) -> Reply:
        return Reply({"Tags": tags.list(call.caller, call.parameters)})

    def tag(call: Call) -> Reply:
        tags.add(call.caller, call.parameters)
        return Reply(None)

    def untag(call: Call) -> Reply:
        tags.remove(call.caller, call.parameters)
        return Reply(None)

    return {
        "ListTags": Supported(list_tags),
        "TagResource": Supported(tag),
        "UntagResource": Supported(untag),
    }
