"""A watched directory, whose files come as objects of S3: ObjectCreated:Put and ObjectRemoved:Delete.

What was there last is kept, so that a daemon that was away still tells of what has changed meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus, unquote

from fastlam import limits
from fastlam.sources.context import Context, SourceProblem
from fastlam.sources.delivery import Envelope, iso_time
from fastlam.sources.kinds import library
from fastlam.sources.local import parts_of
from fastlam.sources.messages import MessagePoller, RecordsEnvelope

_CREATED: Final = "ObjectCreated:Put"
_REMOVED: Final = "ObjectRemoved:Delete"
_STEP_MS: Final = 20  # of quiet, before changes are told
_DEBOUNCE_MS: Final = 200  # but not longer than so

Manifest = dict[str, tuple[int, int]]  # path below the directory -> (mtime in ns, bytes)


class DirectoryPoller(MessagePoller):
    """One directory, with all that is below it."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._watchfiles = library("watchfiles", "directory")
        self._root = Path(unquote(parts_of(context).path))
        self._known: Manifest = {}
        self._stop = asyncio.Event()

    async def connect(self) -> None:
        if not self._root.is_dir():
            raise SourceProblem(f"There is no directory {self._root}.")
        kept = self.context.position(self.shard)
        if kept is not None:
            found = (kept.window or {}).get("files") or {}
            self._known = {path: (int(mtime), int(size)) for path, (mtime, size) in found.items()}
        elif self.context.settings.get("StartingPosition") != "TRIM_HORIZON":
            self._known = await self._loop.run_in_executor(None, _listed, self._root)
            self._keep()

    async def receive(self) -> None:
        # The watch begins before the directory is looked at: nothing falls between the two.
        watching = self._watchfiles.awatch(
            self._root,
            step=_STEP_MS,
            debounce=_DEBOUNCE_MS,
            rust_timeout=200,
            yield_on_timeout=True,
            stop_event=self._stop,
        )
        looked = False
        async for changes in watching:
            if not self._root.is_dir():
                raise SourceProblem(f"The directory {self._root} is gone.")
            if changes or not looked:
                looked = True
                await self._look()

    async def _look(self) -> None:
        """Tells of all that is not as it was."""
        now = await self._loop.run_in_executor(None, _listed, self._root)
        before, self._known = self._known, now
        for path in sorted(now.keys() | before.keys()):
            if path not in now:
                await self._tell(path, _REMOVED, None)
            elif now[path] != before.get(path):
                tag = await self._loop.run_in_executor(None, _tag, self._root / path)
                if tag is not None:
                    await self._tell(path, _CREATED, (now[path][1], tag))

    async def _tell(self, path: str, name: str, content: tuple[int, str] | None) -> None:
        now_ms = self.context.timing.wall_ms()
        known: dict[str, Any] = {"key": quote_plus(path, safe="/")}
        if content is not None:
            known |= {"size": content[0], "eTag": content[1]}
        record = {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": self.context.mapping.region,
            "eventTime": iso_time(now_ms),
            "eventName": name,
            "userIdentity": {"principalId": "AWS:fastlam"},
            "requestParameters": {"sourceIPAddress": "127.0.0.1"},
            "responseElements": {"x-amz-request-id": "", "x-amz-id-2": ""},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": self.context.mapping.uuid,
                "bucket": {
                    "name": self._root.name,
                    "ownerIdentity": {"principalId": "AWS:fastlam"},
                    "arn": f"arn:aws:s3:::{self._root.name}",
                },
                "object": {**known, "sequencer": f"{now_ms:016X}"},
            },
        }
        await self.accept(record, record if self.context.filters else None, token=path)

    async def acknowledge(self, tokens: Sequence[Any]) -> None:
        self._keep()

    def _keep(self) -> None:
        """What is not done yet is told again after a restart."""
        undone = set(self._acknowledgements.values())
        files = {path: known for path, known in self._known.items() if path not in undone}
        self.context.save(self.shard, "0", window={"files": files})

    async def close(self) -> None:
        self._stop.set()

    @property
    def shard(self) -> str:
        return self._root.name or "/"

    def envelope(self) -> Envelope:
        return RecordsEnvelope(name="DirectoryBatchInfo", directory=str(self._root), eventSourceArn=self.context.arn)


def _listed(root: Path) -> Manifest:
    """In a thread: every file below the directory."""
    found: Manifest = {}
    for base, _, names in os.walk(root):
        for name in names:
            path = os.path.join(base, name)
            try:
                status = os.stat(path)
            except OSError:
                continue  # it went while we looked
            found[os.path.relpath(path, root)] = (status.st_mtime_ns, status.st_size)
            if len(found) >= limits.SOURCE_FILES_MAX:
                return found
    return found


def _tag(path: Path) -> str | None:
    """In a thread: the MD5 of a file, as S3 has it for objects of one part; None when it is gone."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError:
        return None
    return digest.hexdigest()
