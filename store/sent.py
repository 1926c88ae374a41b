"""Keeps what agents were sent, in the rows of the attempts: the context once for all attempts that sent the same one.

A body as sent is unlike every other: it names its attempt.  Its context is not, so a later attempt of the same invocation keeps
the rest alone, some 200 bytes.  Rows of attempts lie in the order of their invocations, so what is kept is written beside them,
by the statement that closes the attempt, and goes with them.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass

import zstandard
from sqlalchemy import LargeBinary, and_, bindparam, case, exists, literal_column, select

from schemas.context import Sent
from schemas.ledger import Settlement
from store.engine import Engine, fetch
from store.prepared import Prepared
from store.tables import attempts

# The first byte.  Whole, with its context; without, since an earlier attempt of the same digest has it; whole, none to share.
_WHOLE, _FRAME, _APART = 1, 2, 3
_SHARES_BELOW = bytes([_FRAME])
_HEAD = struct.Struct(">BII")  # which of the three; where the context stands; its bytes
_MAX_BYTES = 64 * 1024 * 1024
# What most bodies have in common, so that a small one packs well.  Never change it: packed bodies need it to be read.
_COMMON = (
    b'"standing":"NONE","standing":"OWNER","standing":"MEMBER","untrusted":["context","event.subject","event.actor",'
    b'"event.summary","event.url","provenance.actor"]},"manifest":{"tokens":{"raw":,"context":},"view":"default","counter":"o200k"'
    b',"cut":[],"pruned":["empty: ","links: ","machinery: ","mentioned: "]},"history":["],"facts":{"value":,"by":"","age":"},'
    b'"enrich":{"missing":["provenance":{"source":"","provider":"","verified":true,"actor":"","repository":"","author":"","state":'
    b'"open","title":"","body":"","number":,"labels":["bug"],"amount":,"currency":"usd","status":"","customer":"","email":"",'
    b'"url":"https://github.com//issues//pull/","assignees":[],'
    b'{"invocation":{"id":"inv_","attempt":1,"agent":"triage","subscription":"bugs-to-triage","ordering_key":"default/",'
    b'"deadline":"2026-11-21T10:00:00.000Z"},"event":{"id":"evt_","source":"github","type":"github.issues.opened",'
    b'"time":"2026-11-21T10:00:00.000Z","kind":"ticket.created","subject":"","actor":"","url":"https://","summary":"Issue 42 : '
    b'"},"context":{"},"links":{"event":"http://127.0.0.1:8081/v1/events/evt_","complete":"https://'
    b'/v1/invocations/inv_/complete","token":"(token)"}}'
)
_DICTIONARY = zstandard.ZstdCompressionDict(_COMMON, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
_DICTIONARY.precompute_compress(level=1)
_mine = threading.local()  # a compressor is not for two threads at once

_earlier = attempts.alias("earlier")
_HAS_IT = (
    exists()
    .where(
        _earlier.c.invocation_seq == attempts.c.invocation_seq,
        _earlier.c.number < attempts.c.number,
        _earlier.c.context_digest == bindparam("same_as"),
        _earlier.c.sent_body < bindparam("below_", type_=LargeBinary()),
    )
    .correlate(attempts)
)
SENT_NAMES = ("same_as", "below_", "frame_", "whole_")
SENT_BODY = case(
    (and_(attempts.c.number > literal_column("1"), _HAS_IT), bindparam("frame_", type_=LargeBinary())),
    else_=bindparam("whole_", type_=LargeBinary()),
)
_OF_INVOCATION = Prepared(
    select(attempts.c.number, attempts.c.context_digest, attempts.c.sent_body)
    .where(attempts.c.invocation_seq == bindparam("seq_"))
    .order_by(attempts.c.number),
    "seq_",
)


@dataclass(frozen=True, slots=True)
class SentRow:
    """What one attempt sent; `body` is None where it is not kept."""

    number: int
    context_digest: str
    body: Sent | None


def packed(settlement: Settlement) -> tuple[str, bytes, bytes | None, bytes | None]:
    """Parameters of `SENT_BODY`: what an earlier attempt must have, what is kept where one has it, and where none does."""
    sent = settlement.body
    if sent is None:
        return "", _SHARES_BELOW, None, None
    frame = None
    if sent.size and settlement.number > 1:
        frame = _packed(_FRAME, sent, sent.body[: sent.at] + sent.body[sent.at + sent.size :])
    whole = _packed(_WHOLE if sent.size else _APART, sent, sent.body)
    return (settlement.context_digest if frame else ""), _SHARES_BELOW, frame, whole


def _packed(kind: int, sent: Sent, what: bytes) -> bytes:
    found = getattr(_mine, "compressor", None)
    if found is None:
        found = _mine.compressor = zstandard.ZstdCompressor(dict_data=_DICTIONARY)
    return _HEAD.pack(kind, sent.at, sent.size) + found.compress(what)


async def sent_of(engine: Engine, seq: int) -> list[SentRow]:
    """What each attempt of one invocation sent, in order."""
    rows = await fetch(engine, _OF_INVOCATION, seq)
    contexts: dict[str, bytes] = {}
    return [SentRow(number, digest, _read(blob, digest, contexts)) for number, digest, blob in rows]


def _read(blob: bytes | None, digest: str, contexts: dict[str, bytes]) -> Sent | None:
    if blob is None:
        return None
    kind, at, size = _HEAD.unpack_from(blob)
    what = zstandard.ZstdDecompressor(dict_data=_DICTIONARY).decompress(blob[_HEAD.size :], max_output_size=_MAX_BYTES)
    if kind == _FRAME:
        return Sent(what[:at] + contexts[digest] + what[at:], at, size)
    sent = Sent(what, at, size)
    contexts.setdefault(digest, sent.context)
    return sent
