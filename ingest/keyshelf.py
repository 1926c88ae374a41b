"""Vendors' published keys, fetched when first needed and kept for a while."""

from __future__ import annotations

import asyncio

from ingest.ports import Fetch
from schemas.errors import AgentFailed, Busy, Misconfigured, SecretsUnavailable

_FRESH_MS = 3_600_000
_FAILED_MS = 10_000
_MOST = 200


class KeyShelf:
    """Keeps what the addresses of keys gave.  One fetch of an address at a time; a failure is remembered for ten seconds.

    Addresses come from requests that are not proven yet, but only those that the provider's file allows; still their number is
    bounded: the oldest go.
    """

    def __init__(self, fetch: Fetch | None) -> None:
        """Without `fetch` nothing is ever at hand: a source then needs its keys in its own settings."""
        self._fetch = fetch
        self._kept: dict[str, tuple[int, bytes | None]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def at_hand(self, name: str) -> bytes | None:
        """What the address gave (`KeyNeeded.name`: mostly the address itself), if that is known."""
        found = self._kept.get(name)
        return found[1] if found else None

    async def bring(self, url: str, now_ms: int, *, name: str = "", posted: bytes = b"") -> None:
        """Fetch what is not at hand, and keep it as `name`.  Raises `SecretsUnavailable`."""
        name = name or url
        lock = self._locks.setdefault(name, asyncio.Lock())
        try:
            async with lock:
                await self._brought(url, now_ms, name, posted)
        finally:
            if not lock.locked():
                self._locks.pop(name, None)

    async def _brought(self, url: str, now_ms: int, name: str, posted: bytes) -> None:
        found = self._kept.get(name)
        if found is not None and now_ms < found[0]:
            if found[1] is None:
                raise SecretsUnavailable("the vendor's public key could not be fetched")
            return
        if self._fetch is None:
            raise SecretsUnavailable("this process fetches no public keys")
        try:
            document: bytes | None = await (self._fetch(url, posted) if posted else self._fetch(url))
        except (Busy, AgentFailed, Misconfigured):
            document = None
        while len(self._kept) >= _MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[name] = (now_ms + (_FAILED_MS if document is None else _FRESH_MS), document)
        if document is None:
            raise SecretsUnavailable("the vendor's public key could not be fetched")

    def forget_old(self, now_ms: int) -> None:
        """Drop what has become old, so that a withdrawn key does not stay."""
        for url in [url for url, (until_ms, _) in self._kept.items() if until_ms <= now_ms]:
            del self._kept[url]
