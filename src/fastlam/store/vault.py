"""Secrets at rest: sealed with AES-256-GCM under a key of this data directory.

    <data_dir>/keys/<key id>        32 random bytes, readable by the owner alone

The key's id stands in each sealed value, so that other keys can come beside it; the context (the ARN of what the secret
belongs to) is authenticated with the value, which therefore opens nowhere else. An ephemeral daemon's key lives in its
memory only.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from fastlam.errors import FastlamError
from fastlam.model.sealed import Sealed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_KEY_ID: Final = re.compile(r"local-[0-9a-f]{16}")
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, str]).decode


class CannotOpen(FastlamError):
    """A sealed value whose key is not here, or that is not what was sealed."""


class Vault:
    """Owner of the keys. Without a directory, the key ends with the process."""

    def __init__(self, data_dir: Path | None = None) -> None:
        self._directory = None if data_dir is None else data_dir / "keys"
        self._ciphers: dict[str, AESGCM] = {}
        self._current: str | None = None

    def seal(self, secrets_by_name: Mapping[str, str], context: str) -> Sealed:
        key_id = self._current or self._choose()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        text = _encode(secrets_by_name)
        return Sealed(key_id, nonce + self._ciphers[key_id].encrypt(nonce, text, context.encode()))

    def open(self, value: Sealed | Mapping[str, str] | None, context: str) -> dict[str, str]:
        """What was sealed; {} of nothing. Raises CannotOpen."""
        if not isinstance(value, Sealed):
            return dict(value or {})
        cipher = self._ciphers.get(value.key_id) or self._load(value.key_id)
        try:
            text = cipher.decrypt(value.data[:_NONCE_BYTES], value.data[_NONCE_BYTES:], context.encode())
            return _decode(text)
        except Exception:  # noqa: BLE001 - InvalidTag, ValueError, DecodeError: each means the same here
            raise CannotOpen(f"A secret of {context} was changed after key {value.key_id} sealed it.") from None

    def _choose(self) -> str:
        """The newest key, or a new one."""
        found: list[tuple[float, str]] = []
        if self._directory is not None and self._directory.is_dir():
            found = [
                (entry.stat().st_mtime, entry.name)
                for entry in os.scandir(self._directory)
                if _KEY_ID.fullmatch(entry.name) and entry.stat().st_size == _KEY_BYTES
            ]
        key_id = max(found)[1] if found else self._make()
        if key_id not in self._ciphers:
            self._load(key_id)
        self._current = key_id
        return key_id

    def _make(self) -> str:
        key_id = f"local-{secrets.token_hex(8)}"
        key = secrets.token_bytes(_KEY_BYTES)
        if self._directory is None:
            self._ciphers[key_id] = _cipher(key)
            return key_id
        part = self._directory.parent / f".{key_id}"
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, key)
                os.fsync(descriptor)  # what it seals is worth nothing without it
            finally:
                os.close(descriptor)
            part.rename(self._directory / key_id)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise FastlamError(f"A key cannot be kept in {self._directory}: {error.strerror}.") from None
        return key_id

    def _load(self, key_id: str) -> AESGCM:
        missing = CannotOpen(f"The key {key_id} is not in this data directory.")
        if self._directory is None or "/" in key_id or key_id.startswith("."):
            raise missing
        try:
            key = (self._directory / key_id).read_bytes()
        except OSError:
            raise missing from None
        if len(key) != _KEY_BYTES:
            raise missing
        cipher = self._ciphers[key_id] = _cipher(key)
        return cipher


def _cipher(key: bytes) -> AESGCM:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # 20 ms, for those who have secrets only

    return AESGCM(key)
