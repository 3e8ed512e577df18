"""Functions that run in the calling process: for pdb, for an IDE's breakpoints, for coverage.

Same call, same payload rules and error documents as in an environment; no isolation, no timeout, no memory limit.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from fastlam.billing.duration import billed_ms
from fastlam.core.dispatcher import request_id
from fastlam.embed.function import _json
from fastlam.errors import FastlamError
from fastlam.model.function import FunctionRecord
from fastlam.runtimes import python
from fastlam.wire.frames import Invoke

_lock = threading.RLock()


class InlineResult:
    """The part of InvokeResult that there is without an environment."""

    def __init__(
        self, identifier: str, raw: bytes, content_type: str, error_type: str | None, duration_ns: int
    ) -> None:
        self.request_id = identifier
        self.raw = raw
        self.error_type = error_type
        self.function_error = None if error_type is None else "Unhandled"
        self.duration_ms = duration_ns / 1e6
        self.billed_duration_ms = billed_ms(duration_ns)
        self.init_duration_ms = None
        self.cpu_ms = self.queue_ms = 0.0
        self.memory_mb = 0
        self.log_tail = ""
        self.payload: Any = raw if content_type != "application/json" else json.loads(raw)

    def raise_for_error(self) -> InlineResult:
        """Self, or FunctionError when the function failed."""
        if self.function_error is not None:
            from fastlam.embed.function import FunctionError

            raise FunctionError(self.payload)
        return self


class InlineStream(Iterator[bytes]):
    """The pieces of one response, as ResponseStream of fastlam.embed.function gives them."""

    def __init__(self, result: InlineResult, pieces: Iterator[bytes]) -> None:
        self.result = result
        self._pieces = pieces
        self._closed = False

    def __next__(self) -> bytes:
        if not self._closed:
            for piece in self._pieces:
                return piece
            self._closed = True
            self.result.raise_for_error()
        raise StopIteration

    def close(self) -> None:
        """No more is wanted."""
        self._closed = True


class InlineFunction:
    """One function, run by the calling thread; one at a time, since environment variables belong to the process."""

    def __init__(
        self,
        record: FunctionRecord,
        arn: str,
        handler: Callable[[Any, Any], Any] | str,
        directory: Path,
        endpoint_url: str | None,
    ) -> None:
        self.name = record.name
        self.arn = arn
        self._timeout_ms = record.timeout_seconds * 1000
        self._directory = directory
        self._environ = python.environment_variables(record, directory, endpoint_url)
        self._handler = handler
        # The worker's own modules, by name: they belong inside environments, and this process plays one.
        self._bootstrap = importlib.import_module("fastlam.worker.bootstrap")
        self._faults = importlib.import_module("fastlam.worker.faults")
        self._contexts = importlib.import_module("fastlam.worker.context").ContextFactory(self._environ)
        self._streaming = importlib.import_module("fastlam.worker.streaming")
        marshaller = importlib.import_module("fastlam.worker.marshaller")
        self._marshaller = marshaller.Marshaller(self._environ["AWS_EXECUTION_ENV"])

    def invoke(self, event: Any = None, *, timeout: float | None = None) -> InlineResult:
        """Runs the handler here and now. SystemExit and KeyboardInterrupt pass through."""
        return self._run(event, None)

    def stream(self, event: Any = None) -> InlineStream:
        """As `invoke`: all pieces are there when it returns."""
        sent: list[bytes] = []
        result = self._run(event, lambda piece, _: sent.append(bytes(piece)))
        if not sent and result.error_type is None:
            sent.append(result.raw)  # no stream: one piece
        return InlineStream(result, filter(None, sent))

    def _run(self, event: Any, send: Callable[[bytes | memoryview, str], None] | None) -> InlineResult:
        payload = event if type(event) is bytes else _json(event)
        identifier = request_id()
        before = time.monotonic_ns()
        responses, streaming = self._streaming.responses, self._streaming
        with _lock:
            saved = dict(os.environ)
            os.environ.update(self._environ)
            outer = responses.sender, responses.call, responses.stream  # of a handler that calls this one
            responses.sender = lambda _: send
            responses.call, responses.stream = Invoke(0, identifier, 0, self.arn), None
            try:
                handler = self._resolve()
                deadline_ms = int(time.time() * 1000) + self._timeout_ms
                context = self._contexts.make(identifier, deadline_ms, self.arn)
                value = self._marshaller.unmarshal(payload)
                before = time.monotonic_ns()
                result = handler(value, context)
                if streaming.is_stream(result):
                    responses.consume(identifier, result)
                duration_ns = time.monotonic_ns() - before
                body, content_type = responses.end() or self._marshaller.marshal(result)
                return InlineResult(identifier, body, content_type, None, duration_ns)
            except self._faults.Fault as fault:
                error = self._faults.payload_from_fault(fault, identifier, task_root=str(self._directory))
            except Exception as exception:
                error = self._faults.payload_from_exception(
                    exception,
                    identifier,
                    skip_prefixes=(*self._faults.RUNTIME_DIRECTORIES, __file__),
                    task_root=str(self._directory),
                )
            finally:
                responses.sender, responses.call, responses.stream = outer
                os.environ.clear()
                os.environ.update(saved)
        duration_ns = time.monotonic_ns() - before
        body = self._marshaller.encode_error(error)
        return InlineResult(identifier, body, "application/json", error["errorType"], duration_ns)

    def _resolve(self) -> Callable[[Any, Any], Any]:
        if not isinstance(self._handler, str):
            return self._handler
        entry = str(self._directory)
        if entry not in sys.path:
            sys.path.insert(0, entry)
        handler: Callable[[Any, Any], Any] = self._bootstrap.resolve_handler(self._handler)
        return handler

    def send(self, event: Any = None) -> Any:
        """There is no background to run in."""
        raise FastlamError(f"{self.name} runs inline, in the calling thread: events need inline=False.")

    async def ainvoke(self, event: Any = None) -> InlineResult:
        """As `invoke`; it blocks the loop, since the handler runs in the calling thread."""
        return self.invoke(event)

    def map(self, events: Iterable[Any], *, concurrency: int = 1) -> Iterator[InlineResult]:
        """Results in order, one after the other whatever `concurrency` says: there is one process."""
        for event in events:
            yield self.invoke(event)
