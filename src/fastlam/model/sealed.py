"""Secrets as records hold them: encrypted, with the id of the key."""

from __future__ import annotations

import msgspec


class Sealed(msgspec.Struct, array_like=True, frozen=True):
    """Encrypted bytes. Only the vault that holds the key can open them."""

    key_id: str
    data: bytes  # nonce, ciphertext, tag
