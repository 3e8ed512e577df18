"""The loop of a function's environment: INIT once, then receive, context, event, handler, result or error."""

from __future__ import annotations

import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastlam import limits
from fastlam.core.channel import Channel, PlainInvoke, StateTitle, peak_memory_kib, set_trace_variable
from fastlam.wire.control import WorkerSpec
from fastlam.wire.frames import PROTOCOL_VERSION, Chunk, InitFailed, Invoke, Ready, Result, Stop
from fastlam.worker import logs
from fastlam.worker.bootstrap import resolve_handler
from fastlam.worker.context import ContextFactory
from fastlam.worker.faults import (
    ErrorPayload,
    Fault,
    RuntimeCrash,
    payload_from_exception,
    payload_from_fault,
)
from fastlam.worker.marshaller import JSON_CONTENT_TYPE, Marshaller, decode_event
from fastlam.worker.preparation import prepare
from fastlam.worker.streaming import PLAIN, Send, is_stream, responses

if TYPE_CHECKING:
    from fastlam.worker.start import Title

_RESPONSE_TOO_LARGE = "Function.ResponseSizeTooLarge"


class HookFailure(Exception):
    """A hook of the function failed; `error_type` says which kind of hook it was."""

    def __init__(self, error_type: str, error: BaseException) -> None:
        super().__init__(error_type)
        self.error_type = error_type
        self.error = error


class NoTemplate(Exception):
    """INIT is over, and this process cannot be a template for a reason that is none of the function's."""

    def __init__(self, error_type: str, reason: str) -> None:
        super().__init__(reason)
        self.error_type = error_type


class FunctionWorker:
    """One environment of one function version. `log_fd` is the memfd of the output; its size is where the output
    ends.
    """

    def __init__(self, channel: Channel, spec: WorkerSpec, log_fd: int, title: Title, started_ns: int) -> None:
        self.channel = channel
        self.spec = spec
        self.log_fd = log_fd
        self.title = title
        self.started_ns = started_ns
        self._handler: Callable[[Any, Any], Any]
        self._state: StateTitle
        self.log_format = spec.environ.get("AWS_LAMBDA_LOG_FORMAT")
        self.marshaller = Marshaller(spec.environ.get("AWS_EXECUTION_ENV", ""))
        self.contexts = ContextFactory(spec.environ)
        self._traced = False
        # What the loop over rings uses of this module's neighbours.
        self.make_context, self.responses, self.plain_types = self.contexts.make, responses, PLAIN
        self.decode, self.unmarshal = decode_event, self.marshaller.unmarshal
        self.write, self.set_request = self.marshaller.write, logs.set_request
        self._roots = {"task_root": spec.task_root, "layer_root": spec.layer_root}  # for paths in error documents

    def serve(self) -> None:
        """INIT, then invocations until told to stop. SystemExit passes: the function asked for it."""
        try:
            handler = self._init()
            if handler is None:
                raise SystemExit(1)
            self._serve(handler)
        except RuntimeCrash as crash:
            traceback.print_exception(crash.error)
            raise SystemExit(1) from None
        except Exception:
            raise
        except SystemExit:
            raise
        except BaseException:
            # KeyboardInterrupt, CancelledError and the like end the interpreter with their traceback.
            traceback.print_exc()
            raise SystemExit(1) from None

    def _init(self) -> Callable[[Any, Any], Any] | None:
        """Resolves the handler; None after INIT has failed and the dispatcher has been told."""
        logs.setup_logging(self.log_format, self.spec.environ.get("AWS_LAMBDA_LOG_LEVEL"))
        try:
            if self.spec.preparation:
                prepare(self.spec.preparation)
            if self.spec.callable_payload:
                handler: Callable[[Any, Any], Any] = pickle.loads(self.spec.callable_payload)
            else:
                handler = resolve_handler(self.spec.handler)
            self.before_ready(handler)
        except NoTemplate as refusal:
            print(f"[fastlam: {refusal}]", file=sys.stderr)
            self._init_ends(refusal.error_type, b"{}")
            return None
        except Fault as fault:
            self._init_failed(payload_from_fault(fault, None, **self._roots))
            return None
        except HookFailure as failure:
            self._init_failed(payload_from_exception(failure.error, None, **self._roots), failure.error_type)
            return None
        except Exception as error:
            self._init_failed(payload_from_exception(error, None, **self._roots))
            return None
        self._ready()
        return handler

    def before_ready(self, handler: Callable[[Any, Any], Any]) -> None:
        """What a kind of worker does at the end of its INIT."""

    def _ready(self) -> None:
        self.title.show("idle")
        self.channel.send(
            Ready(PROTOCOL_VERSION, time.monotonic_ns() - self.started_ns, peak_memory_kib(), self._log_end()), b""
        )

    def _init_failed(self, payload: ErrorPayload, error_type: str = "") -> None:
        if not error_type:
            logs.warn_init_failure()
        self._log_error(payload)
        self._init_ends(error_type or payload["errorType"], self.marshaller.encode_error(payload))

    def _init_ends(self, error_type: str, body: bytes) -> None:
        frame = InitFailed(
            PROTOCOL_VERSION, time.monotonic_ns() - self.started_ns, peak_memory_kib(), self._log_end(), error_type
        )
        self.channel.send(frame, body)
        # The dispatcher answers by killing this process.
        while type(self.channel.receive()[0]) is not Stop:
            pass

    def _log_end(self) -> int:
        return os.lseek(self.log_fd, 0, os.SEEK_END)

    def _log_error(self, payload: ErrorPayload) -> None:
        sys.stdout.write(logs.error_event(payload, self.log_format, self.marshaller))

    def _serve(self, handler: Callable[[Any, Any], Any]) -> None:
        """The loop. Each line of it is paid for by every invocation."""
        channel, title = self.channel, self.title.state()
        self._handler, self._state = handler, title
        responses.sender = self._sender
        if channel.has_rings:
            channel.serve_invocations(self, handler, title, self.log_fd)
            return
        run, claim, receive = self.run, channel.claim, channel.receive
        while True:
            frame, payload = receive()
            if type(frame) is Stop:
                return
            if claim(frame.slot):
                title.busy()
                run(frame, payload)
            frame = payload = None  # type: ignore[assignment]

    def run(self, frame: Invoke, payload: bytes) -> None:
        """One invocation that has been claimed, from its frame to its reply."""
        logs.set_request(frame.request_id, frame.tenant_id)
        if frame.trace_id is not None or self._traced:
            set_trace_variable(frame.trace_id)
            self._traced = frame.trace_id is not None
        error: Exception | None = None
        called = False
        result = None
        responses.call = frame
        try:
            context = self.contexts.make(
                frame.request_id,
                frame.deadline_epoch_ms,
                frame.invoked_function_arn,
                frame.client_context,
                frame.cognito_identity,
                frame.tenant_id,
            )
            event = self.marshaller.unmarshal(payload)
            called = True
            result = self.channel.call(self._handler, event, context)
        except Exception as exception:
            error = exception
        self.finish(frame, called, result, error)

    def finish(self, frame: Invoke | PlainInvoke, called: bool, result: Any, failure: Exception | None) -> None:
        """What comes after the handler: the pieces of its answer, or the answer, or the error; and the reply."""
        channel = self.channel
        error: ErrorPayload | None = None
        if failure is None:
            try:
                if type(result) not in PLAIN and is_stream(result):
                    channel.go_on(responses.consume, frame.request_id, result)
                elif responses.stream is None or not responses.stream.used:
                    body, content_type = self.marshaller.marshal(result)
            except Exception as exception:
                failure = exception
        if isinstance(failure, Fault):
            error = payload_from_fault(failure, frame.request_id, **self._roots)
        elif failure is not None:
            error = payload_from_exception(failure, frame.request_id, **self._roots)
        responses.call = None
        if responses.stream is not None:
            streamed = responses.end()
            if streamed is not None:
                body, content_type = streamed  # what the handler has returned, if anything, is not looked at
        error_type = ""
        if error is not None:
            self._log_error(error)
            error_type = error["errorType"] or "Runtime.Unknown"
            body, content_type = self.marshaller.encode_error(error), JSON_CONTENT_TYPE
        elif len(body) > limits.RESPONSE_BYTES_MAX:
            body, error_type = self._too_large(), _RESPONSE_TOO_LARGE
            content_type = JSON_CONTENT_TYPE
        self._state.idle()
        channel.reply(
            frame.slot,
            Result(
                frame.slot,
                channel.duration_ns if called else 0,
                channel.cpu_ns if called else 0,
                peak_memory_kib(),
                self._log_end(),
                error_type,
                "" if content_type == JSON_CONTENT_TYPE else content_type,
            ),
            body,
        )

    def _sender(self, call: Invoke | PlainInvoke) -> Send | None:
        """How pieces of this call's response leave; None: they are kept."""
        if not call.response_stream:
            return None
        slot, send = call.slot, self.channel.send

        def send_piece(piece: bytes | memoryview, content_type: str) -> None:
            send(Chunk(slot, content_type), piece)

        return send_piece

    def _too_large(self) -> bytes:
        # The platform's own words, not the runtime's: two keys only.
        return (
            b'{"errorMessage":"Response payload size exceeded maximum allowed payload size ('
            + str(limits.RESPONSE_BYTES_MAX).encode()
            + b' bytes).","errorType":"'
            + _RESPONSE_TOO_LARGE.encode()
            + b'"}'
        )
