"""Lanes as operators look at them: which keys wait, for how long, behind what."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, func, or_, select

from schemas.invocation import Wait
from store.engine import Engine, fetch
from store.heads import HEAD_OF
from store.prepared import Prepared
from store.tables import invocations, lanes

_PAGE = Prepared(
    select(
        lanes.c.id,
        invocations.c.subscription,
        lanes.c.agent,
        invocations.c.ordering_key,
        lanes.c.queued,
        lanes.c.due_ms,
        lanes.c.hold,
        lanes.c.shard,
        invocations.c.id.label("head"),
        invocations.c.state,
        invocations.c.attempts,
        invocations.c.created_ms,
    )
    .select_from(lanes)
    .join(invocations, invocations.c.seq == HEAD_OF)
    .where(
        lanes.c.team == bindparam("team_"),
        lanes.c.id > bindparam("after"),
        or_(bindparam("agent_") == "", lanes.c.agent == bindparam("agent_")),
        or_(bindparam("subscription_") == "", invocations.c.subscription == bindparam("subscription_")),
        or_(bindparam("hold_") == "", lanes.c.hold == bindparam("hold_")),
    )
    .order_by(lanes.c.id)
    .limit(bindparam("limit_")),
    *("team_", "after", "agent_", "subscription_", "hold_", "limit_"),
)
_BLOCKED = Prepared(select(func.count()).select_from(lanes).where(lanes.c.hold == Wait.BLOCKED.value))


@dataclass(frozen=True, slots=True)
class LaneRow:
    """A lane and its head.  `hold` is why the head waits; `queued` counts the unfinished."""

    id: str
    subscription: str
    agent: str
    ordering_key: str
    queued: int
    due_ms: int
    hold: str
    shard: int
    head: str
    state: str
    attempts: int
    created_ms: int


async def lane_page(
    engine: Engine, team: str, *, agent: str = "", subscription: str = "", hold: str = "", after: str = "", limit: int
) -> list[LaneRow]:
    """The next lanes of a team behind `after`, by name."""
    return [LaneRow(*row) for row in await fetch(engine, _PAGE, team, after, agent, subscription, hold, limit)]


async def blocked_lanes(engine: Engine) -> int:
    """How many keys wait for an operator, over all teams."""
    return int((await fetch(engine, _BLOCKED))[0][0])
