"""How agents stand: why one is not called, and when it is probed next."""

from __future__ import annotations

from sqlalchemy import bindparam, select, update

from schemas.ledger import Held
from store.engine import Change, Engine, Script, fetch
from store.prepared import Prepared
from store.shards import epochs_of
from store.tables import agents

_HELD = Prepared(
    select(
        *(agents.c[name] for name in ("team", "name", "hold", "shard")),
        *(agents.c[name] for name in ("hold_pauses", "hold_until_ms", "hold_since_ms", "hold_at_ms", "updated_ms")),
    ).where(agents.c.hold != "")
)
_KEEP = Prepared(
    update(agents)
    .where(agents.c.team == bindparam("team_"), agents.c.name == bindparam("name_"))
    .values(
        hold=bindparam("cause"),
        hold_pauses=bindparam("pauses"),
        hold_until_ms=bindparam("until"),
        hold_since_ms=bindparam("since"),
        hold_at_ms=bindparam("now"),
    ),
    *("cause", "pauses", "until", "since", "now", "team_", "name_"),
)


async def held_agents(engine: Engine) -> list[Held]:
    """The agents that were not called when an owner last said so; of one that is spread over shards, any of its owners."""
    rows = await fetch(engine, _HELD)
    return [
        Held(team, name, cause, shard, pauses, until_ms, since_ms, is_mended=updated_ms > at_ms)
        for team, name, cause, shard, pauses, until_ms, since_ms, at_ms, updated_ms in rows
    ]


def standing_kept(held: Held, *, epoch: int, now_ms: int) -> Script[bool]:
    """Write how an agent stands, where its shard is still of this epoch; whether it was written."""
    if (yield from epochs_of({held.shard})).get(held.shard) != epoch:
        return False
    times = (held.pauses, held.probe_at_ms, held.since_ms) if held.cause else (0, 0, 0)
    return bool((yield Change(_KEEP, (held.cause, *times, now_ms, held.team, held.agent))))
