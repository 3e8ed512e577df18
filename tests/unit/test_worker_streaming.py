"""The stream object of a function: what it takes, what it passes on or keeps, and when it is over."""

from __future__ import annotations

import io
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from fastlam import limits
from fastlam.wire.frames import Invoke
from fastlam.worker.context import ContextFactory
from fastlam.worker.faults import Fault
from fastlam.worker.streaming import CONTENT_TYPE, HTTP_CONTENT_TYPE, Responses, ResponseStream, is_stream, responses

OVER = "the invocation is over"


class Sent:
    """What a stream has passed on."""

    def __init__(self) -> None:
        self.pieces: list[tuple[bytes, str]] = []
        self.stream = ResponseStream(lambda piece, content_type: self.pieces.append((bytes(piece), content_type)))

    @property
    def bytes(self) -> list[bytes]:
        return [piece for piece, _ in self.pieces[1:]]


@pytest.fixture
def sent() -> Sent:
    return Sent()


def test_each_piece_is_passed_on_at_once(sent: Sent) -> None:
    sent.stream.write(b"one")
    assert sent.pieces == [(b"", CONTENT_TYPE), (b"one", "")]
    sent.stream.write("zwö")
    sent.stream.write(b"")
    sent.stream.write(bytearray(b"three"))  # type: ignore[arg-type]  # also what else has bytes
    sent.stream.write(memoryview(b"four")[::2])  # type: ignore[arg-type]
    assert sent.bytes == [b"one", "zwö".encode(), b"three", b"fu"]
    assert sent.stream.end() == (b"", CONTENT_TYPE)


def test_a_long_piece_goes_in_several(sent: Sent) -> None:
    data = bytes(range(256)) * 1000
    sent.stream.write(data)
    assert b"".join(sent.bytes) == data
    assert max(map(len, sent.bytes)) == limits.CHUNK_BYTES_MAX


def test_pieces_are_kept_for_a_caller_who_takes_them_whole() -> None:
    stream = ResponseStream(None)
    stream.set_content_type("text/html")
    stream.write("a")
    stream.consume(iter([b"b", "c"]))
    assert stream.end() == (b"abc", "text/html")


def test_no_more_is_kept_than_shows_that_it_is_too_much() -> None:
    stream = ResponseStream(None)
    for _ in range(20):
        stream.write(bytes(1_000_000))
    body, _ = stream.end()
    assert limits.RESPONSE_BYTES_MAX < len(body) <= limits.RESPONSE_BYTES_MAX + 1_000_000


def test_an_empty_stream_is_one_as_well(sent: Sent) -> None:
    sent.stream.consume(iter(()))
    sent.stream.end()
    assert sent.pieces == [(b"", CONTENT_TYPE)]


def test_a_stream_that_was_only_looked_at_is_none(sent: Sent) -> None:
    assert not sent.stream.used
    sent.stream.end()
    assert sent.pieces == []


def test_http_metadata_stands_in_front(sent: Sent) -> None:
    sent.stream.set_http_metadata({"statusCode": 404, "headers": {"X": "é"}, "cookies": []})
    assert sent.pieces == []
    sent.stream.write("body")
    assert sent.pieces == [
        (b"", HTTP_CONTENT_TYPE),
        (b'{"statusCode": 404, "headers": {"X": "\\u00e9"}, "cookies": []}' + bytes(8), ""),
        (b"body", ""),
    ]


def test_metadata_alone_is_an_answer() -> None:
    stream = ResponseStream(None)
    stream.set_http_metadata({"statusCode": 204})
    assert stream.end() == (b'{"statusCode": 204}' + bytes(8), HTTP_CONTENT_TYPE)


@pytest.mark.parametrize("piece", [None, 5, 1.5, ["x"], {"a": 1}, object()])
def test_what_is_no_piece(sent: Sent, piece: Any) -> None:
    with pytest.raises(TypeError, match=f"bytes or str, not {type(piece).__name__}"):
        sent.stream.write(piece)
    with pytest.raises(Fault) as caught:
        sent.stream.consume(iter([b"good", piece]))
    assert caught.value.error_type == "Runtime.MarshalError"
    assert caught.value.message.startswith("Unable to marshal response: ")
    assert sent.bytes == [b"good"]


def test_a_text_that_utf_8_cannot_hold(sent: Sent) -> None:
    with pytest.raises(UnicodeEncodeError):
        sent.stream.write("\ud800")
    with pytest.raises(Fault, match="surrogates"):
        sent.stream.consume(iter(["\ud800"]))


@pytest.mark.parametrize("text", ["a\r\nb", "ä", "x" * 257, "\0"])
def test_what_is_no_content_type(sent: Sent, text: str) -> None:
    with pytest.raises(ValueError, match="content type"):
        sent.stream.set_content_type(text)
    assert not sent.stream.used


def test_the_type_is_settled_with_the_first_piece(sent: Sent) -> None:
    sent.stream.write(b"x")
    for late in (lambda: sent.stream.set_content_type("a/b"), lambda: sent.stream.set_http_metadata({})):
        with pytest.raises(ValueError, match="has begun"):
            late()


def test_nothing_is_written_after_the_end(sent: Sent) -> None:
    sent.stream.write(b"x")
    sent.stream.end()
    with pytest.raises(ValueError, match=OVER):
        sent.stream.write(b"late")
    with pytest.raises(ValueError):
        sent.stream.set_content_type("a/b")
    assert sent.bytes == [b"x"]


def test_threads_may_write(sent: Sent) -> None:
    threads = [
        threading.Thread(target=lambda word=word: [sent.stream.write(word * 3) for _ in range(100)]) for word in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sent.bytes) == sorted(word * 3 for word in (b"a", b"b", b"c", b"d") for _ in range(100))
    assert [content_type for _, content_type in sent.pieces if content_type] == [CONTENT_TYPE]


# --- what handlers return -----------------------------------------------------------------------------


def generate(*pieces: Any) -> Iterator[Any]:
    yield from pieces


async def generate_asynchronously(*pieces: Any) -> AsyncIterator[Any]:
    for piece in pieces:
        yield piece


def test_what_is_a_stream() -> None:
    unclosed = generate_asynchronously()
    for result in (generate(), unclosed, iter([1]), map(str, [1]), io.BytesIO(), zip([1], [2], strict=True)):
        assert is_stream(result), result
    for plain in (None, 1, 1.5, "x", b"x", [generate()], (1,), {}, {1}, range(3), True, object(), io.BytesIO):
        assert not is_stream(plain), plain


@pytest.mark.parametrize("generator", [generate, generate_asynchronously])
def test_generators(sent: Sent, generator: Any) -> None:
    sent.stream.consume(generator("one", b"two"))
    assert sent.bytes == [b"one", b"two"]


def test_a_file(sent: Sent) -> None:
    file = io.BytesIO(b"line\nother line")
    sent.stream.consume(file)
    assert sent.bytes == [b"line\n", b"other line"]
    assert file.closed


def test_a_generator_names_the_type_before_its_first_piece(sent: Sent) -> None:
    def handler() -> Iterator[str]:
        sent.stream.set_content_type("text/csv")
        yield "a,b"

    sent.stream.consume(handler())
    assert sent.pieces == [(b"", "text/csv"), (b"a,b", "")]


def test_a_generator_is_closed_when_a_piece_is_refused(sent: Sent) -> None:
    closed = []

    def handler() -> Iterator[Any]:
        try:
            yield 5
        finally:
            closed.append(True)

    async def asynchronous() -> AsyncIterator[Any]:
        try:
            yield 5
        finally:
            closed.append(True)

    for generator in (handler(), asynchronous()):
        with pytest.raises(Fault):
            sent.stream.consume(generator)
    assert closed == [True, True]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_error_passes_with_no_frame_but_the_functions(sent: Sent, asynchronous: bool) -> None:
    def handler() -> Iterator[str]:
        yield "one"
        raise KeyError("own")

    async def handler_asynchronous() -> AsyncIterator[str]:
        yield "one"
        raise KeyError("own")

    with pytest.raises(KeyError) as caught:
        sent.stream.consume(handler_asynchronous() if asynchronous else handler())
    files = [str(entry.path) for entry in caught.traceback]
    assert {file.rpartition("/")[2] for file in files} == {"streaming.py", "test_worker_streaming.py"}
    assert sent.bytes == [b"one"]


# --- the stream of the invocation that runs -----------------------------------------------------------


def test_one_stream_a_call() -> None:
    own = Responses()
    with pytest.raises(ValueError, match=OVER):
        own.open("first")
    own.call = Invoke(0, "first", 0, "")
    stream = own.open("first")
    assert own.open("first") is stream
    with pytest.raises(ValueError, match=OVER):
        own.open("another")
    stream.write("kept")
    own.call = None
    assert own.end() == (b"kept", CONTENT_TYPE)
    with pytest.raises(ValueError, match=OVER):
        own.open("first")
    assert own.end() is None


def test_a_thread_that_asks_when_the_handler_is_done() -> None:
    """The runtime has taken the call away between its look and its stream: it hears so, and leaves nothing behind."""
    own = Responses()
    own.call = Invoke(0, "first", 0, "")

    def sender(_: Invoke) -> None:
        own.call = None

    own.sender = sender
    with pytest.raises(ValueError, match=OVER):
        own.open("first")
    assert own.stream is None


def test_the_context_has_the_stream_of_its_own_invocation() -> None:
    contexts = ContextFactory({})
    context, later = contexts.make("first", 0, ""), contexts.make("second", 0, "")
    with pytest.raises(ValueError, match=OVER):
        _ = context.response_stream
    responses.call = Invoke(0, "first", 0, "")
    try:
        assert context.response_stream is responses.stream
        assert "response_stream" not in vars(context)
        with pytest.raises(ValueError, match=OVER):
            _ = later.response_stream
    finally:
        responses.call = responses.stream = None
