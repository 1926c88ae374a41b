"""Agents that are spread over several shards: who they are, and giving their lanes to the shards of today."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import bindparam, select, update

from schemas.ids import part_of, shards_of
from store.engine import Call, Each, Engine, Notify, Script, fetch
from store.heads import ZERO
from store.prepared import Prepared, among
from store.tables import agents, invocations, lanes

_SLICE = 500
_WORK = "work"  # the channel on which owners hear of work, as admission calls it
_SPREAD = Prepared(
    select(agents.c.team, agents.c.name, agents.c.spec).where(
        agents.c.spec.like('%"shards": %'), ~agents.c.spec.like('%"shards": 1,%'), ~agents.c.spec.like('%"shards": 1}%')
    )
)
_ELSEWHERE = Prepared(
    select(lanes.c.team, lanes.c.agent)
    .join(agents, (agents.c.team == lanes.c.team) & (agents.c.name == lanes.c.agent))
    .where(lanes.c.shard != agents.c.shard)
    .distinct()
)
_ASTRAY = Prepared(
    select(lanes.c.id)
    .where(
        lanes.c.team == bindparam("team_"),
        lanes.c.agent == bindparam("agent_"),
        ~among(lanes.c.shard, "shards"),
    )
    .order_by(lanes.c.id)
    .limit(bindparam("limit_"))
    .with_for_update(),
    *("team_", "agent_", "shards", "limit_"),
)
_MOVE_LANE = Prepared(update(lanes).where(lanes.c.id == bindparam("id_")).values(shard=bindparam("to_")), "to_", "id_")
_MOVE_WORK = Prepared(
    update(invocations)
    .where(invocations.c.lane == bindparam("id_"), invocations.c.ended_ms == ZERO)
    .values(shard=bindparam("to_")),
    *("to_", "id_"),
)


async def spread_agents(engine: Engine) -> dict[tuple[str, str], int]:
    """The agents that have more than one shard, by team and name, with how many."""
    found = {}
    for team, name, spec in await fetch(engine, _SPREAD):
        count = int(json.loads(spec).get("shards", 1))
        if count > 1:
            found[team, name] = count
    return found


async def gathered_in(engine: Engine, team: str, agent: str, count: int) -> int:
    """Give the lanes of an agent that lie on shards which are not its own to those of today; how many there were.

    A lane that stays on a shard of the agent stays where it is: only new lanes spread over shards that were added.
    """
    own, total = shards_of(team, agent, count), 0
    while moved := await engine.write(lambda: _moved(team, agent, own)):
        total += moved
        if moved < _SLICE:
            break
    return total


async def gathered_strays(engine: Engine) -> int:
    """Give every lane that lies on a shard which is not its agent's to one that is: a router with yesterday's rules made it."""
    spread, total = await spread_agents(engine), 0
    for team, agent in await fetch(engine, _ELSEWHERE):
        total += await gathered_in(engine, team, agent, spread.get((team, agent), 1))
    return total


def _moved(team: str, agent: str, own: Sequence[int]) -> Script[int]:
    # What runs there goes on and is settled under its old shard; its row alone decides that nobody opens it twice.
    names = [row[0] for row in (yield Call(_ASTRAY, (team, agent, own, _SLICE)))]
    wanted = [(own[part_of(name, len(own))], name) for name in names]
    yield Each(_MOVE_LANE, wanted)
    yield Each(_MOVE_WORK, wanted)
    if names:
        yield Notify(_WORK, ",".join(map(str, sorted({shard for shard, _ in wanted}))))
    return len(names)
