"""Secrets at rest: AES-256-GCM under the master key, each sealed value bound to the place that it belongs to.

    sealed = version (1 byte) | key id (8) | nonce (12) | ciphertext and tag

The key id is a digest of the key, so several keys may be live: the first seals, all unseal.  The header and the caller's
context are authenticated, so a sealed value that was moved to another row, or given another key's id, does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import BadSetting, SecretsUnavailable

KEY_BYTES = 32
_VERSION = b"\x01"
_ID_BYTES, _NONCE_BYTES, _TAG_BYTES = 8, 12, 16
_HEADER_BYTES = len(_VERSION) + _ID_BYTES


def new_master_key() -> str:
    """A fresh master key, as `NIGHTBELL_MASTER_KEY` and the key file write it."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def read_master_keys(text: str) -> tuple[bytes, ...]:
    """The keys that `text` holds: base64 of 32 bytes each, the present one first, older ones after commas.

    Raises `BadSetting`, which never quotes the text.
    """
    keys = tuple(_read_key(part.strip()) for part in text.strip().split(","))
    if len(set(keys)) != len(keys):
        raise BadSetting("the master key is written twice")
    return keys


def _read_key(part: str) -> bytes:
    try:
        key = base64.b64decode(part, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise BadSetting("a master key is not base64") from exc
    if len(key) != KEY_BYTES:
        raise BadSetting(f"a master key is 32 bytes in base64; one of {len(key)} bytes was given")
    if len(set(key)) == 1:
        raise BadSetting("a master key of one repeated byte is none")
    return key


class Vault:
    """Seals and unseals under one or more master keys, and derives keys for other purposes from them."""

    def __init__(self, keys: Sequence[bytes], *, entropy: Callable[[int], bytes] = os.urandom) -> None:
        """Use `keys`, the present one first.  `entropy` gives nonces."""
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise BadSetting("the vault needs at least one master key of 32 bytes")
        self._keys = tuple(keys)
        self._ciphers = {_key_id(key): AESGCM(key) for key in keys}
        self._current = _key_id(keys[0])
        self._entropy = entropy

    @property
    def key_id(self) -> str:
        """The present key's id, for people."""
        return self._current.hex()

    def seal(self, plain: bytes, *, context: str) -> bytes:
        """Encrypt `plain`; only the same `context` opens it again."""
        header = _VERSION + self._current
        nonce = self._entropy(_NONCE_BYTES)
        return header + nonce + self._ciphers[self._current].encrypt(nonce, plain, header + context.encode())

    def unseal(self, sealed: bytes, *, context: str) -> bytes:
        """Decrypt.  Raises `SecretsUnavailable` where the key is not here, or bytes or context are not what was sealed."""
        if len(sealed) < _HEADER_BYTES + _NONCE_BYTES + _TAG_BYTES or sealed[:1] != _VERSION:
            raise SecretsUnavailable("a sealed secret is damaged")
        header, rest = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:]
        cipher = self._ciphers.get(header[1:])
        if cipher is None:
            raise SecretsUnavailable("a secret was sealed under a master key that is not here", key_id=header[1:].hex())
        try:
            return cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], header + context.encode())
        except InvalidTag as exc:
            raise SecretsUnavailable("a sealed secret is damaged, or was sealed for another place") from exc

    def is_current(self, sealed: bytes) -> bool:
        """Whether the present key sealed it; what an older one sealed wants to be sealed anew."""
        return sealed[:_HEADER_BYTES] == _VERSION + self._current

    def derived(self, purpose: str) -> tuple[bytes, ...]:
        """A key for `purpose` out of each master key, the present one first: to sign with the first and accept them all."""
        return tuple(hmac.digest(key, b"nightbell derived key\x00" + purpose.encode(), hashlib.sha256) for key in self._keys)


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"nightbell key id\x00" + key).digest()[:_ID_BYTES]
