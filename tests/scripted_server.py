"""A server that answers by script, byte for byte: for what no real one can be made to say."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

WAIT_SECONDS = 20


class Server:
    """Answers each connection with the next of its scripted answers; the last one stays. While `open` is not set,
    answers wait.
    """

    def __init__(self, answers: tuple[bytes, ...]) -> None:
        self.asked: list[bytes] = []
        self.open = threading.Event()
        self.open.set()
        self._answers = list(answers)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(WAIT_SECONDS)
                request = b""
                while b"\r\n\r\n" not in request:
                    piece = connection.recv(65536)
                    if not piece:
                        return  # `close` knocks without a word
                    request += piece
                self.asked.append(request)
                self.open.wait(WAIT_SECONDS)
                connection.sendall(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])

    def close(self) -> None:
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join(WAIT_SECONDS)
        self._listener.close()


@contextmanager
def serving(*answers: bytes) -> Iterator[Server]:
    server = Server(answers)
    try:
        yield server
    finally:
        server.close()


def answer(status: str, body: bytes, *headers: str, size: int | None = None) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body) if size is None else size}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def s3_error(status: str, code: str, message: str, *headers: str, more: str = "") -> bytes:
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>'
    return answer(status, text.encode(), "Content-Type: application/xml", *headers)
