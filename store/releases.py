"""Scripts that change many lanes by slices: releasing those that wait, superseding what a newer event made pointless."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Integer, bindparam, func, or_, select, update

from schemas.invocation import State
from store.engine import Call, Each, Script
from store.heads import ZERO
from store.moves import Move, moved
from store.prepared import Prepared
from store.shards import epochs_of
from store.tables import NEVER_MS, invocations, lanes

_WAITERS = Prepared(
    select(lanes.c.id)
    .where(
        lanes.c.team == bindparam("team_"),
        lanes.c.agent == bindparam("agent_"),
        lanes.c.due_ms > bindparam("now"),
        lanes.c.hold == bindparam("why"),
        or_(bindparam("uid_") == "", lanes.c.subscription_uid == bindparam("uid_")),
    )
    .order_by(lanes.c.due_ms)  # as the index has them: no slice sorts all that wait
    .limit(bindparam("limit_")),
    *("team_", "agent_", "now", "why", "uid_", "limit_"),
)
_RELEASE = Prepared(
    update(lanes)
    .where(lanes.c.id == bindparam("id_"), lanes.c.hold == bindparam("why"), lanes.c.due_ms > bindparam("now"))
    .values(due_ms=bindparam("now"), hold=""),
    *("now", "id_", "why"),
)
_UNTRIED = Prepared(
    select(invocations.c.id, invocations.c.attempts)
    .where(invocations.c.lane == bindparam("lane_"), invocations.c.ended_ms == ZERO)
    .order_by(invocations.c.seq)
    .limit(bindparam("limit_")),
    *("lane_", "limit_"),
)


# Of those that wait until someone releases them alone: what waits for a time may be many, and is not read.
_OUTSIDE = Prepared(
    select(lanes.c.id, lanes.c.hold)
    .where(
        lanes.c.team == bindparam("team_"),
        lanes.c.agent == bindparam("agent_"),
        lanes.c.shard == bindparam("shard_"),
        lanes.c.due_ms >= NEVER_MS,
        func.substr(lanes.c.hold, 1, bindparam("length", type_=Integer())) == bindparam("why"),
    )
    .order_by(lanes.c.due_ms)
    .limit(bindparam("limit_")),
    *("team_", "agent_", "shard_", "length", "why", "limit_"),
)


class Waiters(NamedTuple):
    """Lanes of an agent that wait for `reason`; of one subscription, where its uid is given."""

    team: str
    agent: str
    reason: str
    subscription_uid: str


def released(wanted: Waiters, shard: int, epoch: int, now_ms: int, limit: int) -> Script[int]:
    """Make up to `limit` of them due; how many there were, none where the shard is not ours."""
    epochs = yield from epochs_of({shard})
    if epochs.get(shard) != epoch:
        return 0
    rows = yield Call(_WAITERS, (wanted.team, wanted.agent, now_ms, wanted.reason, wanted.subscription_uid, limit))
    yield Each(_RELEASE, [(now_ms, lane, wanted.reason) for lane in sorted(row[0] for row in rows)])
    return len(rows)


def let_in(wanted: Waiters, shard: int, epoch: int, now_ms: int, limit: int) -> Script[int]:
    """Make up to `limit` of them due, oldest first, whose reason begins with the one that is given; how many there were."""
    epochs = yield from epochs_of({shard})
    if epochs.get(shard) != epoch:
        return 0
    rows = yield Call(_OUTSIDE, (wanted.team, wanted.agent, shard, len(wanted.reason), wanted.reason, limit))
    yield Each(_RELEASE, [(now_ms, lane, hold) for lane, hold in sorted(tuple(row) for row in rows)])
    return len(rows)


def superseded(lane: str, shard: int, epoch: int, now_ms: int, limit: int) -> Script[int]:
    """End up to `limit` invocations of the lane that never had an attempt, its newest left out; how many there were."""
    rows = yield Call(_UNTRIED, (lane, limit + 1))
    moves = [
        Move(ident, State.SUPERSEDED, "a newer event of its key came", now_ms, shard=shard, epoch=epoch)
        for ident, attempts in rows[:-1]
        if attempts == 0
    ]
    if not moves:
        return 0
    return sum((yield from moved(moves)))
