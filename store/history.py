"""What came before about the same thing, and what came of it: for the contexts of later events."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from sqlalchemy import bindparam, select

from store.engine import Call, Engine, Script
from store.prepared import Prepared, among
from store.tables import events, invocations

# The index on the thing gives the rows in the order wanted, so as many are read as are told, however long the story is.
_LAST = Prepared(
    select(events.c.id, events.c.type, events.c.received_ms, events.c.envelope)
    .where(
        events.c.partitionkey == bindparam("thing_"),
        events.c.team == bindparam("team_"),
        events.c.received_ms < bindparam("before_"),
        events.c.received_ms >= bindparam("after_"),
    )
    .order_by(events.c.seq.desc())
    .limit(bindparam("limit_")),
    *("thing_", "team_", "before_", "after_", "limit_"),
)
_ENDED = Prepared(
    select(invocations.c.event_id, invocations.c.agent, invocations.c.state)
    .where(among(invocations.c.event_id, "ids"), invocations.c.ended_ms > bindparam("never_"))
    .order_by(invocations.c.seq),
    *("ids", "never_"),
)


@dataclass(frozen=True, slots=True)
class Past:
    """An earlier event of a thing.  `outcome` is empty while nothing of it has ended."""

    event_id: str
    type: str
    at_ms: int
    actor: str
    summary: str
    outcome: str


class Histories:
    """The kept events, thing by thing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def last(self, *, team: str, thing: str, before_ms: int, after_ms: int, limit: int) -> list[Past]:
        """The newest events of one ordering key that were received before `before_ms`, newest first."""
        return await self._engine.read(lambda: _past(team, thing, before_ms, after_ms, limit))


def _past(team: str, thing: str, before_ms: int, after_ms: int, limit: int) -> Script[list[Past]]:
    rows = yield Call(_LAST, (thing, team, before_ms, after_ms, limit))
    if not rows:
        return []
    ended: dict[str, list[tuple[str, str]]] = {}
    for event_id, agent, state in (yield Call(_ENDED, ([row[0] for row in rows], 0))):
        ended.setdefault(event_id, []).append((agent, state))
    found = []
    for event_id, kind, at_ms, text in rows:
        envelope = json.loads(text)
        actor, summary = envelope.get("actor", ""), envelope.get("summary", "")
        found.append(Past(event_id, kind, at_ms, actor, summary, _outcome(ended.get(event_id, []))))
    return found


def _outcome(ended: list[tuple[str, str]]) -> str:
    if len(ended) == 1:
        [(agent, state)] = ended
        return f"{state} by {agent}"
    counts = Counter(state for _, state in ended)
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
