"""Keeps each body once, by the SHA-256 of its bytes, compressed where that helps.

`last_ms` is the end of the day of its last use.  On PostgreSQL, where the table lies by day, it is kept once for each such day;
an event finds its body by `last_ms >= admitted_ms`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import zstandard

from store.days import DAY_MS, day_of
from store.prepared import Bulk
from store.tables import bodies

ZSTD = "zstd"
_MIN_BYTES = 256
_MAX_BYTES = 64 * 1024 * 1024  # nothing larger ever came in
_WORTH = 0.9

KEEP_BODY = Bulk(
    bodies,
    "digest",
    "coding",
    "size",
    "body",
    "last_ms",
    then="ON CONFLICT (digest) DO UPDATE SET last_ms = excluded.last_ms",
    on_postgres="ON CONFLICT (digest, last_ms) DO NOTHING",
)


def digest_of(body: bytes) -> bytes:
    """The key of `body`."""
    return hashlib.sha256(body).digest()


class Compressor:
    """Makes rows of bodies.  Not for two threads at once."""

    def __init__(self, *, level: int = 1) -> None:
        self._zstd = zstandard.ZstdCompressor(level=level)

    def rows(self, found: Iterable[tuple[bytes, bytes]], *, now_ms: int) -> list[tuple[bytes, str, int, bytes, int]]:
        """Rows of `KEEP_BODY` for (digest, body) pairs, each digest once, sorted so that two writers never lock crosswise."""
        last_ms = day_of(now_ms) + DAY_MS - 1
        return sorted(self._row(digest, body, last_ms) for digest, body in dict(found).items())

    def _row(self, digest: bytes, body: bytes, last_ms: int) -> tuple[bytes, str, int, bytes, int]:
        if len(body) >= _MIN_BYTES:
            packed = self._zstd.compress(body)
            if len(packed) < len(body) * _WORTH:
                return (digest, ZSTD, len(body), packed, last_ms)
        return (digest, "", len(body), body, last_ms)


def unpacked(coding: str, body: bytes) -> bytes:
    """The bytes as they came."""
    if coding == ZSTD:
        return zstandard.decompress(body, max_output_size=_MAX_BYTES)
    return body
