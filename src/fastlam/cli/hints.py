"""The usual fix of a failed invocation, in one line, from what the error says."""

from __future__ import annotations

import re
from typing import Any

MEMORY_SIGNS = ("signal: killed", "MemoryError", "Cannot allocate memory")
DENIED = re.compile(r"AccessDenied|not authorized to perform|UnauthorizedOperation|Forbidden", re.IGNORECASE)
WRITE_DENIED = re.compile(r"\[Errno (13|30)\]|Permission denied|Read-only file system")
NO_SERVICE = re.compile(r"Could not connect to the endpoint URL|Unable to locate credentials|--aws-endpoint")
MISSING_MODULE = re.compile(r"Unable to import module '([^']+)': No module named '([^']+)'")


def hint(name: str, error: Any) -> str | None:
    """One line that names the fix, or None where nothing usual fits. `error` is the function's error payload."""
    if not isinstance(error, dict):
        return None
    kind, message = str(error.get("errorType", "")), str(error.get("errorMessage", ""))
    text = f"{kind} {message}"
    if kind == "Sandbox.Timedout" or "Task timed out after" in message:
        return f"It ran into its timeout. Give it more: fastlam deploy PATH --name {name} --timeout 30"
    if kind == "Runtime.OutOfMemory" or any(sign in text for sign in MEMORY_SIGNS):
        return f"It probably ran out of memory. Give it more: fastlam deploy PATH --name {name} --memory 512"
    if kind == "Runtime.ImportModuleError":
        return _import_hint(name, message)
    if kind == "Runtime.HandlerNotFound" or kind == "Runtime.MalformedHandlerName":
        return f"The handler is named as module.function: fastlam deploy PATH --name {name} --handler app.handler"
    if kind == "Runtime.UserCodeSyntaxError":
        return "The code does not parse: correct it and deploy again."
    if kind == "Runtime.MarshalError":
        return "A handler returns what JSON can hold: dict, list, str, int, float, bool or None."
    if kind == "Function.ResponseSizeTooLarge":
        return "A result has 6 MB at most: return less, or a reference to where it is kept."
    if WRITE_DENIED.search(message):
        return "A function may write to /tmp only."
    if DENIED.search(text):
        return (
            f"Permission was denied: name a role that may do this (fastlam deploy PATH --name {name} --role ARN), or"
            " check"
            " the service behind --aws-endpoint."
        )
    if NO_SERVICE.search(text):
        return "Other AWS services are reached through the daemon: fastlam serve --aws-endpoint URL"
    return None


def _import_hint(name: str, message: str) -> str:
    match = MISSING_MODULE.match(message)
    if match is None:
        return "The module or one of its imports failed: the log has the details."
    module, missing = match.groups()
    if missing.partition(".")[0] == re.split(r"[./]", module)[0]:
        return (
            f"The package has no {module}: name the right one, fastlam deploy PATH --name {name} --handler app.handler"
        )
    return f"Add the package that provides {missing!r} to requirements.txt and deploy the directory again."
