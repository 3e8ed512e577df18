"""From a handler string to the function to call."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

from fastlam.worker.faults import (
    BUILT_IN_MODULE_CONFLICT,
    HANDLER_NOT_FOUND,
    IMPORT_MODULE_ERROR,
    MALFORMED_HANDLER_NAME,
    USER_CODE_SYNTAX_ERROR,
    Fault,
)

Handler = Callable[[Any, Any], Any]


def resolve_handler(handler: str) -> Handler:
    """Imports the handler's module and returns the attribute; raises Fault.

    Any other exception is one of the module's own, raised while it was imported: it passes through. Whether the
    attribute can be called shows when it is called, as in Lambda.
    """
    module_name, dot, attribute = handler.rpartition(".")
    if not dot:
        message = f"Bad handler '{handler}': not enough values to unpack (expected 2, got 1)"
        raise Fault(MALFORMED_HANDLER_NAME, message)
    if module_name.split(".")[0] in sys.builtin_module_names:
        raise Fault(BUILT_IN_MODULE_CONFLICT, f"Cannot use built-in module {module_name} as a handler module")
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        raise Fault(IMPORT_MODULE_ERROR, f"Unable to import module '{module_name}': {error}") from error
    except SyntaxError as error:
        place = f'  File "{error.filename}" Line {error.lineno}\n    {error.text}'
        raise Fault(USER_CODE_SYNTAX_ERROR, f"Syntax error in module '{module_name}': {error}", [place]) from error
    try:
        found: Handler = getattr(module, attribute)
    except AttributeError as error:
        raise Fault(HANDLER_NOT_FOUND, f"Handler '{attribute}' missing on module '{module_name}'") from error
    return found
