"""Deterministic identifiers: a prefix and 26 lower-case base32 characters of a SHA-256 over length-prefixed parts."""

from __future__ import annotations

import hashlib
from base64 import b32encode

EVENT, INVOCATION, REPLAY = "evt_", "inv_", "rpl_"


def digest_id(prefix: str, *parts: str) -> str:
    """The id of `parts`: each is preceded by its length as four bytes, so no two lists of parts share their bytes.

    130 of the digest's 256 bits are kept.  The same parts give the same id on any machine, for ever (golden tests hold it).
    """
    hasher = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        hasher.update(len(encoded).to_bytes(4, "big"))
        hasher.update(encoded)
    return prefix + b32encode(hasher.digest()[:17])[:26].decode().lower()


def event_id(team: str, source: str, identity: str) -> str:
    """The event's id: `identity` is what makes a redelivery the same event (see `ingest.normalize`)."""
    return digest_id(EVENT, team, source, identity)


def invocation_id(event: str, subscription_uid: str, replay: str = "") -> str:
    """The id of `event` for the subscription with that uid; a replay of it has an id of its own."""
    return digest_id(INVOCATION, event, subscription_uid, replay)


def random_id(prefix: str, entropy: bytes) -> str:
    """An id that names something which nobody can derive: `entropy` is at least 17 random bytes from the caller."""
    if len(entropy) < 17:  # noqa: PLR2004 - 17 bytes hold the 130 bits of 26 base32 characters
        raise ValueError("an id takes 17 random bytes")
    return prefix + b32encode(entropy[:17])[:26].decode().lower()


def shard_of(team: str, agent: str, *, shards: int = 64) -> int:
    """The shard (0 to `shards` - 1) that owns this agent; fixed for ever, since leases and lanes are filed by it."""
    return int.from_bytes(hashlib.sha256(f"{team}/{agent}".encode()).digest()[:4], "big") % shards
