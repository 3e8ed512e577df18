"""The operations on function URLs over HTTP."""

from __future__ import annotations

import re
from typing import Any, Final

from fastlam.api.code import CodeLinks
from fastlam.api.support import Call, Entries, Reply, Stored
from fastlam.control.urls import FunctionUrls
from fastlam.http.server import Request
from fastlam.model.function_url import FunctionUrlRecord

_MISSING: Final = "requests to the URL are not answered yet"
_PORT: Final = re.compile(r".*?(:\d{1,5})?", re.ASCII)


def entries(urls: FunctionUrls, links: CodeLinks) -> Entries:
    def shown(call: Call, record: FunctionUrlRecord) -> dict[str, Any]:
        return {
            "FunctionUrl": f"http://{record.url_id}.lambda-url.{record.region}.localhost{_port(call.request, links)}/",
            "FunctionArn": record.arn,
            "AuthType": record.auth_type,
            "Cors": record.cors,
            "CreationTime": record.created,
            "LastModifiedTime": record.last_modified,
            "InvokeMode": record.invoke_mode,
        }

    def create(call: Call) -> Reply:
        body = shown(call, urls.create(call.caller, call.parameters))
        del body["LastModifiedTime"]
        return Reply(body | {"InvokeMode": call.parameters.get("InvokeMode")})

    def get(call: Call) -> Reply:
        return Reply(shown(call, urls.get(call.caller, call.parameters)))

    def update(call: Call) -> Reply:
        body = shown(call, urls.update(call.caller, call.parameters))
        return Reply(body | {"InvokeMode": call.parameters.get("InvokeMode")})

    def delete(call: Call) -> Reply:
        urls.delete(call.caller, call.parameters)
        return Reply(None)

    def list_urls(call: Call) -> Reply:
        page = urls.list(call.caller, call.parameters)
        return Reply(
            {"FunctionUrlConfigs": [shown(call, record) for record in page.items], "NextMarker": page.next_marker}
        )

    return {
        "CreateFunctionUrlConfig": Stored(create, _MISSING),
        "GetFunctionUrlConfig": Stored(get, _MISSING),
        "UpdateFunctionUrlConfig": Stored(update, _MISSING),
        "DeleteFunctionUrlConfig": Stored(delete, _MISSING),
        "ListFunctionUrlConfigs": Stored(list_urls, _MISSING),
    }


def _port(request: Request, links: CodeLinks) -> str:
    """ ":4566", as the client reached us; "" where it said none, which is HTTP's own port."""
    host = (request.header(b"host") or b"").decode("latin-1") or links.authority
    match = _PORT.fullmatch(host)
    return (match[1] or "") if match else ""
