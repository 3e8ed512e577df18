"""A peer: an HTTP front and a Runtime API that feeds AWS's own runtime client in worker processes.

    python bench/runtime_api_server.py DIRECTORY HANDLER WORKERS     prints the port when all workers ask for work

It is the least that such a server can do: one uvloop, httptools, no admission, no logs, no timeouts.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import deque
from typing import ClassVar

import httptools
import uvloop

NEXT = b"/2018-06-01/runtime/invocation/next"
PREFIX = b"/2018-06-01/runtime/invocation/"
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n" + b'{"status":"OK"}'
DEADLINE_MS = 30_000


class Front(asyncio.Protocol):
    """Callers and workers alike; what they ask for says who they are."""

    waiting_workers: ClassVar[deque[Front]] = deque()
    waiting_calls: ClassVar[deque[tuple[Front, bytes]]] = deque()
    running: ClassVar[dict[bytes, Front]] = {}
    all_up: asyncio.Event
    workers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream transport, as create_server makes
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.body = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.url = self.body = b""

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if self.url == NEXT:
            self.waiting_workers.append(self)
            if len(self.waiting_workers) == self.workers:
                self.all_up.set()
            self.match()
        elif self.url.startswith(PREFIX):
            request_id = self.url[len(PREFIX) :].partition(b"/")[0]
            caller = self.running.pop(request_id)
            if not caller.transport.is_closing():
                caller.transport.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(self.body), self.body)
                )
            self.transport.write(ACCEPTED)
        else:
            self.waiting_calls.append((self, self.body))
            self.match()

    def match(self) -> None:
        while self.waiting_workers and self.waiting_calls:
            caller, event = self.waiting_calls.popleft()
            if caller.transport.is_closing():
                continue
            worker = self.waiting_workers.popleft()
            request_id = str(uuid.uuid4()).encode()
            self.running[request_id] = caller
            worker.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: %b\r\n"
                b"Lambda-Runtime-Deadline-Ms: %d\r\n"
                b"Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:us-east-1:000000000000:function:hello\r\n"
                b"Content-Length: %d\r\n\r\n%b"
                % (request_id, time.time_ns() // 1_000_000 + DEADLINE_MS, len(event), event)
            )


def start_worker(directory: str, handler: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "awslambdaric", handler]
    return subprocess.Popen(words, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


async def main(directory: str, handler: str, workers: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    Front.all_up, Front.workers = asyncio.Event(), workers
    listening = await loop.create_server(Front, "127.0.0.1", 0, backlog=1024)
    port = listening.sockets[0].getsockname()[1]
    environment = os.environ | {
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
        "AWS_LAMBDA_FUNCTION_NAME": "hello",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
        "LAMBDA_TASK_ROOT": directory,
    }
    processes = [start_worker(directory, handler, environment) for _ in range(workers)]
    try:
        await asyncio.wait_for(Front.all_up.wait(), 30)
        print(port, flush=True)
        await stop.wait()
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        listening.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
