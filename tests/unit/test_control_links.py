"""Links to deployment packages: how long they are good, and that nobody can make one."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlam import limits
from fastlam.api.code import PATH, CodeLinks
from fastlam.clock import VirtualClock
from fastlam.store.artifacts import Artifact, ArtifactStore


class Visitor:
    """One HTTP request and the answer it got."""

    def __init__(self, path: bytes = b"", method: bytes = b"GET", host: bytes | None = None) -> None:
        self.path, self.method, self._host = path, method, host
        self.status = 0
        self.body = b""

    def header(self, name: bytes) -> bytes | None:
        return self._host if name == b"host" else None

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        self.status, self.body = status, body


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("app.py", "pass")
    return ArtifactStore(tmp_path).put_zip(buffer.getvalue())


def links_of(artifact: Artifact, clock: VirtualClock) -> CodeLinks:
    store = ArtifactStore(artifact.directory.parent.parent)
    return CodeLinks(store, lambda work, done: done(work(), None), clock=clock, authority="127.0.0.1:1234")


def visit(links: CodeLinks, path: bytes, method: bytes = b"GET") -> Visitor:
    visitor: Any = Visitor(path, method)
    links.download(visitor)
    return visitor


def path_of(links: CodeLinks, artifact: Artifact, host: bytes | None = None) -> tuple[str, bytes]:
    visitor: Any = Visitor(host=host)
    scheme, _, rest = links.location(visitor, artifact.sha256).partition("://")
    authority, _, path = rest.partition("/")
    assert scheme == "http"
    return authority, b"/" + path.encode()


def test_ten_minutes(artifact: Artifact) -> None:
    clock = VirtualClock()
    links = links_of(artifact, clock)
    _, path = path_of(links, artifact)
    assert visit(links, path).body == artifact.zip_path.read_bytes()
    clock.advance(limits.CODE_LINK_SECONDS - 1)
    assert visit(links, path).status == 200
    assert visit(links, path, b"HEAD").status == 200
    assert visit(links, path, b"PUT").status == 403
    clock.advance(1)
    assert visit(links, path).status == 403
    assert b"<Code>AccessDenied</Code>" in visit(links, path).body


def test_code_that_is_gone(artifact: Artifact) -> None:
    links = links_of(artifact, VirtualClock())
    _, path = path_of(links, artifact)
    ArtifactStore(artifact.directory.parent.parent).clear()
    assert visit(links, path).status == 403


def test_links_of_another_process(artifact: Artifact) -> None:
    clock = VirtualClock()
    _, path = path_of(links_of(artifact, clock), artifact)
    assert visit(links_of(artifact, clock), path).status == 403


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        (b"localhost:4566", "localhost:4566"),
        (b"fastlam.internal", "fastlam.internal"),
        (b"[::1]:4566", "[::1]:4566"),
        (None, "127.0.0.1:1234"),
        (b"evil.example/x?", "127.0.0.1:1234"),
        (b"user@host", "127.0.0.1:1234"),
        (b"", "127.0.0.1:1234"),
        (b"a" * 300, "127.0.0.1:1234"),
        (b"h\xc3\xb6st", "127.0.0.1:1234"),
    ],
)
def test_links_name_the_host_the_client_asked(artifact: Artifact, host: bytes | None, authority: str) -> None:
    assert path_of(links_of(artifact, VirtualClock()), artifact, host)[0] == authority


@given(position=st.integers(0, 74), character=st.sampled_from(b"ABCxyz019-_=.%/"), cut=st.integers(0, 75))
def test_no_other_token_opens_anything(position: int, character: int, cut: int, tmp_path_factory: Any) -> None:
    root = tmp_path_factory.mktemp("links")
    (root / "code").mkdir()
    links = CodeLinks(
        ArtifactStore(root), lambda work, done: pytest.fail("the token was accepted"), clock=VirtualClock()
    )
    visitor: Any = Visitor()
    token = bytearray(links.location(visitor, "00" * 32).rpartition("/")[2].encode())
    if token[position] != character:
        token[position] = character
    elif cut == len(token):
        return
    else:
        token = token[:cut]
    assert visit(links, PATH + bytes(token)).status == 403
