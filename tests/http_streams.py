"""Streams of bytes that may or may not be HTTP, for tests that throw them at a server."""

from __future__ import annotations

from hypothesis import strategies as st

SEEDS = (
    b"GET /2015-03-31/functions/ HTTP/1.1\r\nHost: localhost:4566\r\nAccept: */*\r\n\r\n",
    b"POST /2015-03-31/functions/hello/invocations?Qualifier=1 HTTP/1.1\r\nContent-Length: 15\r\n\r\n"
     b'{"key":"value"}',
    b"POST /2015-03-31/functions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
     b"4;e=1\r\nabcd\r\n10\r\n0123456789abcdef\r\n0\r\nX-T: 1\r\n\r\n",
    b"PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc",
    b"DELETE /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nHEAD /b HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
)
PLAIN_SEEDS = (
    b"POST /2015-03-31/functions/hello/invocations HTTP/1.1\r\nHost: localhost:4566\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /a?b=c HTTP/1.1\r\nhost: a\r\nConnection: Keep-Alive\r\nX-A:  \t b c \t \r\nX_1:\r\n\r\n",
    b"OPTIONS /%2F//?? HTTP/1.1\r\nAccept: */*\r\naccept: ~\r\nUser-Agent: x/1 (y; z)\r\n\r\n",
    b"PUT /b HTTP/1.1\r\nCONTENT-LENGTH:  3  \r\nX: 1\r\n\r\n\r\n\n",
)
PIECES = (
    *(b"\r\n", b"\n", b"\0", b" ", b":", b"\xff", b"\r\n\r\n", b"HTTP/1.1", b"HTTP/9.9", b"Content-Length: 5\r\n"),
    *(b"Content-Length: -5\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"ffffffffffffffffff\r\n", b"%00"),
    *(
        b"Upgrade: x\r\nConnection: upgrade\r\n",
        b"Expect: 100-continue\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"x" * 9000,
    ),
)


@st.composite
def mutated(draw: st.DrawFn, seeds: tuple[bytes, ...] = SEEDS, mutations_max: int = 6) -> list[bytes]:
    """A few valid requests in a row with bytes flipped, cut, doubled and foreign pieces put in; in several sends."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(seeds), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, mutations_max))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.integers(0, 40)))
        kind = draw(st.sampled_from(("insert", "delete", "double", "flip", "replace")))
        if kind == "insert":
            data[at:at] = draw(st.sampled_from(PIECES))
        elif kind == "delete":
            del data[at:until]
        elif kind == "double":
            data[at:at] = data[at:until]
        elif kind == "replace":
            data[at:until] = draw(st.binary(max_size=20))
        elif at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    return [bytes(data[start:end]) for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
