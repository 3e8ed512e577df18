"""What the compiled module exports."""

from fastlam.api.addresses import Addresses
from fastlam.api.invoke import InvokeRoute
from fastlam.core.dispatcher import Dispatcher, Invocation
from fastlam.dispatch.targets import Resolved
from fastlam.http.server import Request

def trace_begun(request_id: str, mark: str) -> str: ...

class RepeatedInvoke:
    def __init__(
        self, route: InvokeRoute, addresses: Addresses, dispatcher: Dispatcher, resolved: Resolved
    ) -> None: ...
    def __call__(self, request: Request) -> None: ...
    def done(self, invocation: Invocation) -> None: ...
