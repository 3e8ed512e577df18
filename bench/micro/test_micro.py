"""Parts of the hot path alone: `python -m pytest bench/micro`.

Pairs share a group, so that pytest-benchmark prints them beside each other.
"""

from __future__ import annotations

import ctypes
import json
import sys
import uuid
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import pytest
import simplejson

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.native_build import build_library

from fastlam.core.dispatcher import request_id
from fastlam.core.jsonwriter import write
from fastlam.core.scan import scan_json
from fastlam.embed.future import TaskFuture
from fastlam.wire.frames import Frame, Invoke, Result
from fastlam.worker.marshaller import Marshaller

ARN = "arn:aws:lambda:us-east-1:000000000000:function:hello"
INVOKE = Invoke(3, "6f5b4b2e-4a3a-4a58-9f4e-0b6a3a1f7c1d", 1_760_000_000_000, ARN)
RESULT = Result(3, 1_500_000, 1_400_000, 20_000, 0)
HELLO = {"statusCode": 200, "body": '"Hello from Lambda!"'}
GATEWAY = {
    "version": "2.0",
    "routeKey": "POST /orders",
    "rawPath": "/orders",
    "headers": {f"x-header-{number}": "some value of usual length" for number in range(20)},
    "requestContext": {
        "accountId": "000000000000",
        "http": {"method": "POST", "path": "/orders"},
        "timeEpoch": 1.76e12,
    },
    "body": '{"items": [{"sku": "A-1", "count": 2}, {"sku": "B-2", "count": 1}], "note": "größer"}',
    "isBase64Encoded": False,
    "numbers": list(range(30)),
}
EVENT = json.dumps(GATEWAY).encode()
FRAMES = msgspec.msgpack.Decoder(Invoke | Result)
PUSHES = 10_000


@pytest.fixture(scope="module")
def ring_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = ctypes.CDLL(str(build_library("ring_loop.c", ("fl_ring.c",), tmp_path_factory.mktemp("ring"))))
    library.fl_ring_create.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint32, ctypes.c_uint32]
    library.fl_ring_destroy.argtypes = [ctypes.c_void_p]
    library.ring_loop.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64]
    return library


@pytest.mark.benchmark(group="ring")
@pytest.mark.parametrize("batch", [1, 64])
def test_ring_10000_push_and_pop(benchmark: Any, ring_library: ctypes.CDLL, batch: int) -> None:
    ring = ctypes.c_void_p()
    assert ring_library.fl_ring_create(ctypes.byref(ring), 8192, 16) == 0
    try:
        assert benchmark(ring_library.ring_loop, ring, 8, batch, PUSHES // batch) == 0
    finally:
        ring_library.fl_ring_destroy(ring)


@pytest.mark.benchmark(group="frame encode")
@pytest.mark.parametrize("frame", [INVOKE, RESULT], ids=["invoke", "result"])
def test_frame_encode(benchmark: Any, frame: Frame) -> None:
    assert benchmark(msgspec.msgpack.Encoder().encode, frame)


@pytest.mark.benchmark(group="frame decode")
@pytest.mark.parametrize("frame", [INVOKE, RESULT], ids=["invoke", "result"])
def test_frame_decode(benchmark: Any, frame: Frame) -> None:
    assert benchmark(FRAMES.decode, msgspec.msgpack.encode(frame)) == frame


@pytest.mark.benchmark(group="event scan")
def test_scan_json(benchmark: Any) -> None:
    assert benchmark(scan_json, EVENT) is None


@pytest.mark.benchmark(group="event scan")
def test_scan_by_decoding_with_msgspec(benchmark: Any) -> None:
    assert benchmark(msgspec.json.Decoder().decode, EVENT) == GATEWAY


@pytest.mark.benchmark(group="event decode")
def test_event_unmarshal(benchmark: Any) -> None:
    assert benchmark(Marshaller("AWS_Lambda_python3.11").unmarshal, EVENT) == GATEWAY


@pytest.mark.benchmark(group="event decode")
def test_event_simplejson(benchmark: Any) -> None:
    assert benchmark(simplejson.loads, EVENT) == GATEWAY


@pytest.mark.benchmark(group="result hello")
def test_result_hello_writer(benchmark: Any) -> None:
    assert benchmark(write, HELLO, True) == simplejson.dumps(HELLO).encode()


@pytest.mark.benchmark(group="result hello")
def test_result_hello_simplejson(benchmark: Any) -> None:
    assert benchmark(simplejson.JSONEncoder().encode, HELLO)


@pytest.mark.benchmark(group="result 2 KB")
def test_result_large_writer(benchmark: Any) -> None:
    assert benchmark(write, GATEWAY, True) == simplejson.dumps(GATEWAY).encode()


@pytest.mark.benchmark(group="result 2 KB")
def test_result_large_simplejson(benchmark: Any) -> None:
    assert benchmark(simplejson.JSONEncoder().encode, GATEWAY)


@pytest.mark.benchmark(group="request id")
def test_request_id(benchmark: Any) -> None:
    assert uuid.UUID(benchmark(request_id)).version == 4


@pytest.mark.benchmark(group="request id")
def test_request_id_uuid4(benchmark: Any) -> None:
    assert benchmark(lambda: str(uuid.uuid4()))


def _standard_future() -> int:
    future: Future[int] = Future()
    future.set_result(1)
    return future.result()


def _task_future() -> int:
    future: TaskFuture[int] = TaskFuture(None)
    future.complete(1, None)
    return future.result()


@pytest.mark.benchmark(group="future")
def test_future_of_a_task(benchmark: Any) -> None:
    assert benchmark(_task_future) == 1


@pytest.mark.benchmark(group="future")
def test_future_of_the_standard_library(benchmark: Any) -> None:
    assert benchmark(_standard_future) == 1
