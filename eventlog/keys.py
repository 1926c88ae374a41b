"""Which partition a key belongs to, and how large a draft is: the same answer from every process and every release."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import orjson

from schemas.errors import MalformedRequest, TooLarge
from schemas.topics import Draft

_M = 0x5BD1E995
_U32 = 0xFFFFFFFF


class Parcel(NamedTuple):
    """A draft in the bytes that are stored: key and headers encoded once, the value as it is."""

    draft: Draft
    key: bytes
    headers: bytes
    size: int


def parcel(draft: Draft, max_record_bytes: int) -> Parcel:
    """Encode a draft's key and headers.  Raises `MalformedRequest`, `TooLarge`."""
    headers = draft.headers
    try:
        key = draft.key.encode()
        packed = orjson.dumps(headers if type(headers) is dict else dict(headers))
    except (UnicodeEncodeError, TypeError) as exc:
        raise MalformedRequest("a key or a header is not valid Unicode text") from exc
    size = len(key) + len(packed) + len(draft.value)
    if size > max_record_bytes:
        raise TooLarge(f"a record of {size} bytes; the log takes {max_record_bytes}", size=size, limit=max_record_bytes)
    return Parcel(draft, key, packed, size)


def murmur2(key: bytes) -> int:
    """Kafka's 32-bit hash of a key (org.apache.kafka.common.utils.Utils.murmur2), as an unsigned number."""
    length = len(key)
    h = 0x9747B28C ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * _M & _U32
        k = (k ^ k >> 24) * _M & _U32
        h = (h * _M & _U32) ^ k
    rest = key[whole:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * _M & _U32
    h = (h ^ h >> 13) * _M & _U32
    return h ^ h >> 15


@lru_cache(maxsize=8192)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as Java's default partitioner says, so that other clients of the topics agree."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
