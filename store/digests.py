"""Reads what flow control kept of invocations: their limits, their lateness, the events of a digest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson
from sqlalchemy import select

from schemas.event import Event, from_envelope
from schemas.invocation import Flow
from store.bodies import unpacked
from store.engine import Call, Engine, Script, fetch
from store.prepared import Prepared, among
from store.tables import bodies, events, flows, invocations

_MEMBERS = Prepared(
    select(
        flows.c.digest_id,
        invocations.c.replay_id,
        events.c.envelope,
        events.c.family,
        events.c.pointer,
        bodies.c.coding,
        bodies.c.body,
    )
    .join(invocations, invocations.c.id == flows.c.invocation_id)
    .join(events, events.c.id == invocations.c.event_id)
    .outerjoin(bodies, bodies.c.digest == events.c.body_digest)
    .where(among(flows.c.digest_id, "ids"), flows.c.digest_id != "")
    .order_by(invocations.c.seq),
    "ids",
)
_carrier = invocations.alias("carrier")
_FLOWS = Prepared(
    select(flows.c.invocation_id, flows.c.stale, flows.c.digest_id, _carrier.c.state)
    .outerjoin(_carrier, _carrier.c.id == flows.c.digest_id)
    .where(among(flows.c.invocation_id, "ids")),
    "ids",
)
_LIMITS = Prepared(
    select(invocations.c.id, invocations.c.subscription_uid, flows.c.limit_key)
    .outerjoin(flows, flows.c.invocation_id == invocations.c.id)
    .where(among(invocations.c.id, "ids")),
    "ids",
)
_HANDED_OVER = Prepared(
    select(flows.c.digest_id, invocations.c.event_id, invocations.c.ended_ms)
    .join(invocations, invocations.c.id == flows.c.invocation_id)
    .where(among(flows.c.digest_id, "ids"), flows.c.digest_id != "")
    .order_by(invocations.c.seq),
    "ids",
)


class Noted(NamedTuple):
    """What flow control noted of an invocation: why it was late (JSON or ""), by which it was handed over ("") and how that
    stands; and, where it hands over others, the events of all, oldest first, and when they were gathered.
    """

    stale: str
    digest_id: str
    digest_state: str
    events: tuple[str, ...]
    closed_ms: int


def flow_of(limit_key: str | None, stale: str | None) -> Flow | None:
    """What was kept of an invocation's flow; None where nothing was."""
    return Flow(limit_key=limit_key or "", stale=stale or "") if limit_key or stale else None


def digests_of(ids: Iterable[str]) -> Script[dict[str, tuple[Event, ...]]]:
    """Part of a script: the events that each of these hands over, oldest first."""
    found: dict[str, list[Event]] = {}
    for ident, replay, envelope, family, pointer, coding, body in (yield Call(_MEMBERS, (list(ids),))):
        document: dict[str, Any] = orjson.loads(envelope)
        if replay:
            document["replayid"] = replay
        content = b"" if body is None else unpacked(coding, body)
        found.setdefault(ident, []).append(from_envelope(document, content, family=family, pointer=pointer))
    return {ident: tuple(members) for ident, members in found.items()}


async def notes_of(engine: Engine, ids: Sequence[str]) -> dict[str, Noted]:
    """What flow control noted of these invocations, of those that it noted anything of."""
    rows = await fetch(engine, _FLOWS, ids)
    carried: dict[str, list[tuple[str, int]]] = {}
    carriers = [digest for ident, _, digest, _ in rows if digest == ident]
    for digest, event_id, ended_ms in await fetch(engine, _HANDED_OVER, carriers) if carriers else ():
        carried.setdefault(digest, []).append((event_id, ended_ms))
    found = {}
    for ident, stale, digest, state in rows:
        members = carried.get(ident, [])
        # The others end when it closes; one that is alone in its digest closes it with its first attempt.
        closed_ms = max((ended_ms for _, ended_ms in members[:-1]), default=0)
        found[ident] = Noted(stale, digest, state or "", tuple(event for event, _ in members), closed_ms)
    return found


async def limits_of(engine: Engine, ids: Sequence[str]) -> list[tuple[str, str, str]]:
    """Of these invocations: id, subscription and what its concurrency is counted by ("" where by nothing)."""
    return [(ident, uid, limit or "") for ident, uid, limit in await fetch(engine, _LIMITS, list(ids))]
