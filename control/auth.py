"""Who calls: API keys of people and programs, and the token of one invocation.

An API key is `nbk_` and 43 random characters; only its SHA-256 is stored.  A token is signed, not stored: it names one team,
one invocation and one event, and ends with the run.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from schemas.errors import Unauthenticated
from store.keys import KeyRow

KEY_PREFIX, TOKEN_PREFIX = "nbk_", "nbt_"
VISIBLE_CHARACTERS = 12
TOKEN_PURPOSE = "invocation token"  # noqa: S105 - the name of a purpose, not a secret
_MAC_BYTES = 32
_TOKEN_PARTS = 5
_LONGEST_CREDENTIAL = 1024


class Role(StrEnum):
    """What a key may do; the first three include one another."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"
    AGENT = "agent"


_RANK = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, proven.  A token's caller has role `agent` and names the one invocation and event that it opens."""

    team: str
    name: str
    role: Role
    agent: str = ""
    invocation_id: str = ""
    event_id: str = ""
    attempt: int = 0  # the one that a token was made for; 0: an API key, which speaks for the last one

    @property
    def is_token(self) -> bool:
        """Whether this is the invocation's own token, not an API key."""
        return bool(self.invocation_id)

    def may(self, role: Role) -> bool:
        """Whether this caller's role includes `role`."""
        if role is Role.AGENT:
            return self.role is Role.AGENT
        return _RANK.get(self.role, 0) >= _RANK[role]


class KeyShelf(Protocol):
    """Where keys are kept."""

    async def version(self) -> int:
        """A number that changes with every change of a key."""
        ...

    async def live(self) -> Sequence[KeyRow]:
        """All keys that are not revoked."""
        ...


def new_key() -> str:
    """A fresh API key, to be shown once."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def key_digest(key: str) -> bytes:
    """What is stored of a key: 256 random bits need no slow hash."""
    return hashlib.sha256(key.encode()).digest()


def bearer_of(authorization: str | None) -> str:
    """The credential in an `Authorization` header's text.  Raises `Unauthenticated`."""
    scheme, _, credential = (authorization or "").partition(" ")
    credential = credential.strip()
    if scheme.lower() != "bearer" or not credential or len(credential) > _LONGEST_CREDENTIAL or not credential.isascii():
        raise Unauthenticated
    return credential


class KeyRing:
    """The live keys, in memory; a change is seen within `fresh_s`, or at once where `notice` tells of it."""

    def __init__(
        self,
        shelf: KeyShelf,
        *,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
        fresh_s: float = 0.5,
    ) -> None:
        """Read keys from `shelf`, asking for its version no more often than every `fresh_s`."""
        self._shelf, self._now_ms, self._monotonic, self._fresh_s = shelf, now_ms, monotonic, fresh_s
        self._by_digest: Mapping[bytes, KeyRow] = {}
        self._version: int | None = None
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()

    async def caller(self, key: str) -> Caller:
        """Who holds `key`.  Raises `Unauthenticated`, without a word on why; `StoreUnavailable` where keys cannot be read."""
        await self._refresh()
        digest = key_digest(key)
        record = self._by_digest.get(digest)
        # The dictionary looks up a digest, which a caller cannot steer byte by byte; the comparison is constant-time anyway.
        if record is None or not hmac.compare_digest(record.hash, digest):
            raise Unauthenticated
        if record.expires_ms and record.expires_ms <= self._now_ms():
            raise Unauthenticated
        return Caller(team=record.team, name=record.name, role=Role(record.role), agent=record.agent)

    def notice(self) -> None:
        """Keys changed: look at the next call."""
        self._looked_at = float("-inf")

    async def _refresh(self) -> None:
        if self._monotonic() - self._looked_at < self._fresh_s:
            return
        async with self._looking:
            started = self._monotonic()
            if started - self._looked_at < self._fresh_s:
                return
            version = await self._shelf.version()
            if version != self._version:
                # The version is read first: keys that change in between are read again next time.
                self._by_digest = {record.hash: record for record in await self._shelf.live()}
                self._version = version
            self._looked_at = started


class InvocationTokens:
    """Mints and checks `links.token`.  Implements `dispatcher.ports.Tokens`."""

    def __init__(self, keys: Sequence[bytes], *, now_ms: Callable[[], int]) -> None:
        """Sign with the first of `keys` (derived from the master keys for `TOKEN_PURPOSE`), accept them all."""
        self._keys, self._now_ms = tuple(keys), now_ms

    def mint(self, *, team: str, invocation_id: str, event_id: str, expires_ms: int, attempt: int = 0) -> str:
        """A token that opens this event and, for this attempt, this invocation's calls until `expires_ms`."""
        claims = json.dumps([team, invocation_id, event_id, expires_ms, attempt], separators=(",", ":")).encode()
        return TOKEN_PREFIX + _encoded(claims + _mac(self._keys[0], claims))

    def caller(self, token: str) -> Caller:
        """Who holds `token`.  Raises `Unauthenticated`, without a word on why."""
        claims = self._proven(token.removeprefix(TOKEN_PREFIX))
        team, ident, event_id, expires_ms, attempt = claims
        if expires_ms <= self._now_ms():
            raise Unauthenticated
        return Caller(team, ident, Role.AGENT, invocation_id=ident, event_id=event_id, attempt=attempt)

    def _proven(self, text: str) -> tuple[str, str, str, int, int]:
        raw = _decoded(text)
        claims, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if not any(hmac.compare_digest(_mac(key, claims), mac) for key in self._keys):
            raise Unauthenticated
        found = json.loads(claims)  # ours: the signature says so
        assert len(found) in {_TOKEN_PARTS, _TOKEN_PARTS - 1}
        return (
            found[0],
            found[1],
            found[2],
            found[3],
            found[4] if len(found) == _TOKEN_PARTS else 0,
        )  # a build before wrote four


def _mac(key: bytes, claims: bytes) -> bytes:
    return hmac.digest(key, claims, hashlib.sha256)


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise Unauthenticated from exc
    # Base64 lets the last character vary in bits that decode to nothing; one token has one spelling.
    if _encoded(raw) != text:
        raise Unauthenticated
    return raw


class Gate:
    """Finds out who calls, by whichever credential."""

    def __init__(self, ring: KeyRing, tokens: InvocationTokens) -> None:
        """Ask `ring` for API keys and `tokens` for an invocation's own."""
        self._ring, self._tokens = ring, tokens

    async def caller(self, authorization: str | None) -> Caller:
        """Who sent this `Authorization` header.  Raises `Unauthenticated`."""
        credential = bearer_of(authorization)
        if credential.startswith(TOKEN_PREFIX):
            return self._tokens.caller(credential)
        if credential.startswith(KEY_PREFIX):
            return await self._ring.caller(credential)
        raise Unauthenticated


Authenticate = Callable[[str | None], Awaitable[Caller]]
