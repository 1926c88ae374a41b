"""Reads the heads of lanes: all SQL that tells the dispatcher what there is to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
from sqlalchemy import ColumnElement, bindparam, func, literal_column, not_, select

from schemas.event import Event, from_envelope
from schemas.invocation import Invocation, Order, State
from schemas.ledger import Head, Run
from store.bodies import unpacked
from store.days import DAY_MS
from store.digests import digests_of, flow_of
from store.engine import Call, Row, Script
from store.prepared import Prepared, among
from store.tables import agents, bodies, events, flows, invocations, lanes, runs

ZERO: ColumnElement[int] = literal_column("0")  # written out: a partial index serves only a condition that the planner can read
_first = invocations.alias("first")
HEAD_OF = (
    select(_first.c.seq)
    .where(_first.c.lane == lanes.c.id, _first.c.ended_ms == ZERO)
    .order_by(_first.c.seq)
    .limit(1)
    .correlate(lanes)
    .scalar_subquery()
)
_INVOCATION = (
    *("id", "team", "event_id", "subscription_uid", "subscription", "generation", "agent", "shard", "ordering_key", "lane"),
    *("ordering", "created_ms", "due_ms", "replay_id", "attempts", "tries", "state", "budget_ms"),
    *("step", "fell_for", "seq"),
)
_RUN = ("number", "lease_ms", "ends_ms", "waiting", "signal", "checkpoint")
_WANTED = [
    *(invocations.c[name] for name in _INVOCATION),
    *(events.c.envelope, events.c.family, events.c.pointer, bodies.c.coding, bodies.c.body),
    *(flows.c.limit_key, flows.c.stale, flows.c.digest_id),
    *(runs.c[name] for name in _RUN),
]
# An event was admitted when its invocation was made, but for replays; its body was last used on that day, or it came again.
# Where tables lie by day this spares looking through all of them; what is not found so is looked for anywhere.
_DAY: ColumnElement[int] = literal_column(str(DAY_MS))
_NEAR = events.c.admitted_ms.between(invocations.c.created_ms - _DAY, invocations.c.created_ms + _DAY)
_THAT_DAY = bodies.c.last_ms.between(events.c.admitted_ms, events.c.admitted_ms + _DAY)
_HEADS = Prepared(
    select(*_WANTED)
    .select_from(invocations)
    .outerjoin(events, (events.c.id == invocations.c.event_id) & _NEAR)
    .outerjoin(bodies, (bodies.c.digest == events.c.body_digest) & _THAT_DAY)
    .outerjoin(flows, flows.c.invocation_id == invocations.c.id)
    .outerjoin(runs, runs.c.invocation_seq == invocations.c.seq)
    .where(invocations.c.seq.in_(select(HEAD_OF).where(among(lanes.c.id, "lanes")))),
    "lanes",
)
_ANYWHERE = Prepared(
    select(*_WANTED)
    .select_from(invocations)
    .join(events, events.c.id == invocations.c.event_id)
    .outerjoin(bodies, bodies.c.digest == events.c.body_digest)
    .outerjoin(flows, flows.c.invocation_id == invocations.c.id)
    .outerjoin(runs, runs.c.invocation_seq == invocations.c.seq)
    .where(among(invocations.c.seq, "seqs")),
    "seqs",
)
_WHOLE = 2  # team and agent; where a shard stands behind them, that part of the agent alone
_SEQ, _CODING, _DIGEST = len(_INVOCATION) - 1, len(_INVOCATION) + 3, len(_INVOCATION) + 7
_DUE = Prepared(
    select(lanes.c.id)
    .where(
        lanes.c.team == bindparam("team_"),
        lanes.c.agent == bindparam("agent_"),
        lanes.c.due_ms <= bindparam("now"),
        not_(among(lanes.c.id, "skip")),
    )
    .order_by(lanes.c.due_ms)
    .limit(bindparam("limit_")),
    "team_",
    "agent_",
    "now",
    "skip",
    "limit_",
)
_DUE_PART = Prepared(
    select(lanes.c.id)
    .where(
        lanes.c.team == bindparam("team_"),
        lanes.c.agent == bindparam("agent_"),
        lanes.c.shard == bindparam("shard_"),
        lanes.c.due_ms <= bindparam("now"),
        not_(among(lanes.c.id, "skip")),
    )
    .order_by(lanes.c.due_ms)
    .limit(bindparam("limit_")),
    *("team_", "agent_", "shard_", "now", "skip", "limit_"),
)
NEXT_OF_PART = Prepared(
    select(lanes.c.due_ms)
    .where(
        lanes.c.team == bindparam("team_"),
        lanes.c.agent == bindparam("agent_"),
        lanes.c.shard == bindparam("shard_"),
        lanes.c.due_ms > bindparam("after"),
    )
    .order_by(lanes.c.due_ms)
    .limit(1),
    *("team_", "agent_", "shard_", "after"),
)
# Agent by agent along the index: a minimum over all lanes of a shard would read them all.
_NEXT_OF_AGENT = (
    select(lanes.c.due_ms)
    .where(lanes.c.team == agents.c.team, lanes.c.agent == agents.c.name, lanes.c.due_ms > bindparam("after"))
    .order_by(lanes.c.due_ms)
    .limit(1)
    .correlate(agents)
    .scalar_subquery()
)
NEXT_DUE = Prepared(
    select(func.min(_NEXT_OF_AGENT)).select_from(agents).where(among(agents.c.shard, "shards")), "after", "shards"
)


def due_heads(
    wanted: Sequence[tuple[str, str] | tuple[str, str, int]], now_ms: int, limit: int, skip: Sequence[str]
) -> Script[list[tuple[Head, int]]]:
    """The heads that are due, each with its `seq`: agent by agent, the longest due first."""
    found: list[str] = []
    for asked in wanted:
        statement = _DUE if len(asked) == _WHOLE else _DUE_PART
        found += [row[0] for row in (yield Call(statement, (*asked, now_ms, skip, limit)))]
    return (yield from heads_of(found))


def heads_of(names: Sequence[str]) -> Script[list[tuple[Head, int]]]:
    """The heads of these lanes in their order, each with its `seq`; a lane that is gone has none."""
    if not names:
        return []
    rows = {row[_SEQ]: row for row in (yield Call(_HEADS, (names,)))}  # an equal body of several days gives several rows
    if far := [seq for seq, row in rows.items() if row[_CODING] is None]:  # a replay, a body that came again, or none
        for seq in far:
            del rows[seq]
        rows.update({row[_SEQ]: row for row in (yield Call(_ANYWHERE, (far,)))})
    place = {name: number for number, name in enumerate(names)}
    carriers = [row[0] for row in rows.values() if row[_DIGEST] == row[0]]
    digests = (yield from digests_of(carriers)) if carriers else {}
    heads = [_read(row, digests.get(row[0], ())) for row in rows.values()]
    return sorted(heads, key=lambda head: place[head[0].invocation.lane])


def _read(row: Row, digest: tuple[Event, ...]) -> tuple[Head, int]:
    ident, team, event_id, uid, subscription, generation, agent, shard, key, lane, order, created, due, replay = row[:14]
    attempts, tries, state, budget, step, fell_for, seq, envelope, family, pointer, coding, body = row[14:26]
    flow = row[26:29]
    invocation = Invocation(
        id=ident,
        team=team,
        event_id=event_id,
        subscription_uid=uid,
        subscription=subscription,
        generation=generation,
        agent=agent,
        shard=shard,
        ordering_key=key,
        lane=lane,
        order=Order(order),
        created_ms=created,
        due_ms=due,
        replay_id=replay,
        flow=flow_of(flow[0], flow[1]),
    )
    document: dict[str, Any] = orjson.loads(envelope)
    if replay:
        document["replayid"] = replay
    event = from_envelope(document, b"" if body is None else unpacked(coding, body), family=family, pointer=pointer)
    found = Head(invocation, event, attempts, tries, State(state), budget_ms=budget, digest=digest, run=_run(row))
    return (replace(found, step=step, fell_for=fell_for) if step else found), seq


def _run(row: Row) -> Run | None:
    if row[29] is None:
        return None
    number, lease_ms, ends_ms, waiting, signal, checkpoint = row[29:]
    return Run(number, lease_ms, ends_ms, not waiting, signal, checkpoint.encode())
