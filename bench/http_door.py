"""The daemon's HTTP door alone: a handler that answers at once, what bare_server.py answers.

python bench/http_door.py [PORT]     prints the port when it listens (0, the default, takes a free one)
"""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop

from bare_server import BODY
from fastlam.http.server import HttpServer, Request

HEADERS = b"Content-Type: application/json\r\n"


def answer(request: Request) -> None:
    request.respond(200, HEADERS, BODY)


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = HttpServer(answer, body_bytes_max=1_000_000)
    print(await server.start("127.0.0.1", port), flush=True)
    await stop.wait()
    await server.drain(1.0)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
