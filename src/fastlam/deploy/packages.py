"""Where a template says its code is: a path beside it, an object in S3, the template itself, an image."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any, Final

from fastlam.deploy.made import Context
from fastlam.deploy.template import TemplateError

_S3: Final = re.compile(r"s3://([^/]+)/(.+)")
_TIMESTAMP: Final = (1980, 1, 1, 0, 0, 0)  # the same text makes the same zip
_S3_MEMBERS: Final = ("S3Bucket", "S3Key", "S3ObjectVersion", "S3ObjectStorageMode")
_SAM_MEMBERS: Final[dict[str, str]] = {"Bucket": "S3Bucket", "Key": "S3Key", "Version": "S3ObjectVersion"}


def function_code(context: Context, where: str, code: Any, runtime: str) -> dict[str, Any]:
    """FunctionCode as the API takes it."""
    if isinstance(code, dict):
        more = {key: code[key] for key in ("SourceKMSKeyArn",) if key in code}
        if "CodeUri" in code:
            return {**function_code(context, where, code["CodeUri"], runtime), **more}
        if "ImageUri" in code:
            return {"ImageUri": code["ImageUri"]}
        if "ZipFile" in code:
            return {"ZipFile": _inline(where, code["ZipFile"], runtime), **more}
        return {**_object(where, code), **more}
    found = _S3.fullmatch(str(code))
    if found is not None:
        return {"S3Bucket": found[1], "S3Key": found[2]}
    return {"ZipFile": context.packaging.function(_path(context, where, code), runtime)}


def layer_content(context: Context, where: str, content: Any) -> dict[str, Any]:
    """LayerVersionContentInput."""
    if isinstance(content, dict):
        return _object(where, {_SAM_MEMBERS.get(key, str(key)): value for key, value in content.items()})
    found = _S3.fullmatch(str(content))
    if found is not None:
        return {"S3Bucket": found[1], "S3Key": found[2]}
    return {"ZipFile": context.packaging.layer(_path(context, where, content))}


def _path(context: Context, where: str, text: Any) -> Path:
    if not isinstance(text, str) or not text:
        raise TemplateError(f"{where} has no code: give the path of a directory or a zip, or s3://bucket/key.")
    path = context.folder / text
    if not path.exists():
        raise TemplateError(f"{where}: there is nothing at {path}.")
    return path


def _object(where: str, given: dict[str, Any]) -> dict[str, Any]:
    code: dict[str, Any] = {key: given[key] for key in _S3_MEMBERS if key in given}
    if not code:
        raise TemplateError(f"{where} has no code: {', '.join(given) or 'an empty mapping'} is none.")
    return code


def _inline(where: str, text: Any, runtime: str) -> bytes:
    if not isinstance(text, str):
        raise TemplateError(f"{where}: inline code is text.")
    suffix = "js" if runtime.startswith("nodejs") else "py"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(f"index.{suffix}", _TIMESTAMP)
        entry.create_system = 3
        entry.external_attr = 0o100644 << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, text)
    return buffer.getvalue()
