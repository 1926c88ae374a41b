"""Deterministic identifiers: a prefix and 26 lower-case base32 characters of a SHA-256 over length-prefixed parts."""

from __future__ import annotations

import hashlib

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHIFTS = tuple(range(120, -1, -10))

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
    return prefix + _base32(hasher.digest())


def _base32(raw: bytes) -> str:
    """The first 130 bits in lower-case base32 (RFC 4648), two characters at a time: the library's way takes twice as long."""
    number = int.from_bytes(raw[:17], "big") >> 6
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


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
    return prefix + _base32(entropy)


def shard_of(team: str, agent: str, *, shards: int = 64) -> int:
    """The shard (0 to `shards` - 1) that owns this agent; fixed for ever, since leases and lanes are filed by it."""
    return int.from_bytes(hashlib.sha256(f"{team}/{agent}".encode()).digest()[:4], "big") % shards


def shards_of(team: str, agent: str, count: int, *, shards: int = 64) -> tuple[int, ...]:
    """The shards of an agent that is spread over `count`: the one it would have alone, and others as far apart as can be."""
    first, apart = shard_of(team, agent, shards=shards), shards // count
    return tuple((first + part * apart) % shards for part in range(count))


def part_of(key: str, count: int) -> int:
    """Which of `count` parts has this key; the same key is always in the same part."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:4], "big") % count
