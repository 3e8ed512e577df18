"""Many calls of one short function at once: each invocation is alone in its environment, and its answer and its output are its own."""

from __future__ import annotations

import base64
import json
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import pytest

from daemon_running import RunningDaemon

pytestmark = pytest.mark.lanes

CODE = """
import os, time

inside = False

def handler(event, context):
    global inside
    assert not inside, "two at a time"
    inside = True
    if event["act"] == "leave":
        os._exit(3)
    if event["act"] == "sleep":
        time.sleep(0.02)  # nothing waits for this: it is a call that takes longer than those before it
    if event["act"] == "print":
        print("number", event["number"])
    inside = False
    if event["act"] == "raise":
        raise ValueError(str(event["number"]))
    return event["number"]
"""
CONNECTIONS = 8
ROUNDS = 60
AT_ONCE = 4


def request_of(event: dict[str, Any]) -> bytes:
    body = json.dumps(event).encode()
    return (
        b"POST /2015-03-31/functions/short/invocations HTTP/1.1\r\nHost: localhost\r\nX-Amz-Log-Type: Tail\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


def answer_from(stream: BinaryIO) -> tuple[dict[str, str], Any]:
    assert stream.readline() == b"HTTP/1.1 200 OK\r\n"
    headers = {}
    while (line := stream.readline().decode().strip()) != "":
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    return headers, json.loads(stream.read(int(headers["content-length"])))


def check(event: dict[str, Any], headers: dict[str, str], body: Any) -> None:
    act, number = event["act"], event["number"]
    request_id = headers["x-amzn-requestid"]
    log = base64.b64decode(headers["x-amz-log-result"]).decode()
    assert log.count("START RequestId: ") == 1
    assert f"START RequestId: {request_id} " in log
    if act == "leave":
        message = f"RequestId: {request_id} Error: Runtime exited with error: exit status 3"
        assert body == {"errorType": "Runtime.ExitError", "errorMessage": message}
    elif act == "raise":
        assert body["errorMessage"] == str(number)
    else:
        assert body == number
        printed = [line for line in log.splitlines() if line.startswith("number")]
        assert printed == ([f"number {number}"] if act == "print" else [])


def test_many_at_once(daemon: RunningDaemon, rng: random.Random) -> None:
    daemon.deploy("short", CODE)
    count = CONNECTIONS * ROUNDS * AT_ONCE
    acts = rng.choices(["return", "print", "raise", "sleep", "leave"], [300, 30, 30, 2, 2], k=count)
    events = [{"act": act, "number": number} for number, act in enumerate(acts)]

    def call(caller: int) -> None:
        own = events[caller::CONNECTIONS]
        with (
            socket.create_connection(("127.0.0.1", daemon.port), 60) as connection,
            connection.makefile("rb") as stream,
        ):
            for begin in range(0, len(own), AT_ONCE):
                some = own[begin : begin + AT_ONCE]
                connection.sendall(b"".join(map(request_of, some)))
                for event in some:
                    check(event, *answer_from(stream))

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for _ in pool.map(call, range(CONNECTIONS)):
            pass
    daemon.lambda_.delete_function(FunctionName="short")
