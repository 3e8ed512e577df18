"""Handlers of the streaming tests, in a module that imports next to nothing: each environment imports it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any


def count(event: Any, context: Any) -> Iterator[str]:
    """So many numbers; before each but the first it waits for a byte in the pipe, where one is given. At the end it says
    how many in the file, where one is given.
    """
    pipe = os.open(event["pipe"], os.O_RDONLY) if "pipe" in event else None
    for number in range(event["count"]):
        if number and pipe is not None:
            os.read(pipe, 1)
        yield f"{number} "
    if "file" in event:
        with open(event["file"], "w") as file:
            file.write(str(event["count"]))


def flood(event: Any, context: Any) -> Iterator[bytes]:
    """So many pieces of 64 KiB."""
    for _ in range(event["pieces"]):
        yield b"x" * 65536
    if "file" in event:
        with open(event["file"], "w") as file:
            file.write("over")


async def count_asynchronously(event: Any, context: Any) -> AsyncIterator[str]:
    for number in range(event["count"]):
        yield f"{number} "


def write(event: Any, context: Any) -> str:
    for number in range(event["count"]):
        context.response_stream.write(f"{number} ")
    return "nobody sees this"


def write_from_within(event: Any, context: Any) -> None:
    """Calls another function of its own program where functions run inline; its stream stays its own."""
    context.response_stream.write("before ")
    assert inner is not None
    context.response_stream.write(b"".join(inner.stream({"count": 2})))
    context.response_stream.write("after")


inner: Any = None


def half(event: Any, context: Any) -> Iterator[str]:
    yield "half"
    if event == "exit":
        os._exit(3)
    raise LookupError("in the middle")


def early(event: Any, context: Any) -> Iterator[str]:
    raise LookupError("before the first piece")
    yield


def wrong(event: Any, context: Any) -> Iterator[Any]:
    yield event


def plain(event: Any, context: Any) -> Any:
    if event == "raise":
        raise LookupError("plain")
    return b"" if event == "nothing" else event
