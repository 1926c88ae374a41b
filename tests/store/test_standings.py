from __future__ import annotations

from dataclasses import replace

from sqlalchemy import insert

from schemas.ids import shard_of
from schemas.ledger import Held
from store.engine import Call, Engine, OneStep
from store.ledger import Ledger
from store.prepared import Prepared
from store.tables import agents

NOW = 1_800_000_000_000
SHARD = shard_of("default", "triage")
HELD = Held("default", "triage", "misconfigured", SHARD, pauses=3, probe_at_ms=NOW + 5_000, since_ms=NOW - 60_000)


async def owned(engine: Engine, *, updated_ms: int = NOW - 1) -> tuple[Ledger, int]:
    """A ledger whose shards are held by `me`, the epoch of the agent's shard; the agent is there."""
    row = insert(agents).values(uid="a1", team="default", name="triage", shard=SHARD, spec="{}", updated_ms=updated_ms)
    await engine.write(OneStep(Call(Prepared(row))))
    ledger = Ledger(engine)
    leases = await ledger.hold_shards("me", lease_ms=60_000)
    return ledger, next(lease.epoch for lease in leases if lease.shard == SHARD)


async def test_how_an_agent_stands_is_there_for_its_next_owner(engine: Engine) -> None:
    ledger, epoch = await owned(engine)

    assert await ledger.keep_held(HELD, epoch=epoch, now_ms=NOW)

    assert await Ledger(engine).held_agents() == [HELD]


async def test_an_agent_that_is_called_again_is_not_held(engine: Engine) -> None:
    ledger, epoch = await owned(engine)
    await ledger.keep_held(HELD, epoch=epoch, now_ms=NOW)

    assert await ledger.keep_held(replace(HELD, cause=""), epoch=epoch, now_ms=NOW)

    assert await ledger.held_agents() == []


async def test_an_owner_of_before_writes_nothing_about_an_agent(engine: Engine) -> None:
    ledger, epoch = await owned(engine)

    assert not await ledger.keep_held(HELD, epoch=epoch - 1, now_ms=NOW)

    assert await ledger.held_agents() == []


async def test_an_agent_that_was_changed_since_may_be_mended(engine: Engine) -> None:
    ledger, epoch = await owned(engine, updated_ms=NOW + 1)

    await ledger.keep_held(HELD, epoch=epoch, now_ms=NOW)

    assert await ledger.held_agents() == [replace(HELD, is_mended=True)]
