"""How agents stand, kept so that a restart, or another owner, goes on from there."""

from __future__ import annotations

from contextlib import suppress

from dispatcher import breaker
from dispatcher.agents import Agent
from dispatcher.attempt import Desk
from dispatcher.breaker import Standing
from dispatcher.ports import Ledger
from dispatcher.retry import MAX_PAUSE_MS
from schemas.errors import Busy
from schemas.ledger import Held


def is_news(before: Standing, now: Standing) -> bool:
    """Whether the ledger should hear of it: the agent was or is not called, and something about that changed."""
    return now is not before and not before.state == now.state == breaker.CLOSED


async def keep_standing(desk: Desk, agent: Agent) -> None:
    """Write how the agent stands now; writes of one agent follow one another, so the last one written is the newest.

    A store that is away keeps what it has: after a restart the agent is then probed once too often.
    """
    async with agent.keeping:
        epoch, now = desk.tenure.epoch(agent.setting.shard), agent.standing
        if epoch is None:
            return
        team, name = agent.names
        cause = "" if now.state == breaker.CLOSED else now.cause
        held = Held(team, name, cause, agent.setting.shard, now.pauses, now.probe_at_ms, now.since_ms)
        with suppress(Busy):
            await desk.ledger.keep_held(held, epoch=epoch, now_ms=desk.clock.now_ms())


async def kept_standings(ledger: Ledger, *, now_ms: int) -> dict[tuple[str, str], Standing]:
    """How agents stood, by team and name; those that were called as ever are left out."""
    return {(held.team, held.agent): standing_of(held, now_ms=now_ms) for held in await ledger.held_agents()}


def standing_of(held: Held, *, now_ms: int) -> Standing:
    """The standing that was kept.  Its next probe is never farther off than a pause may be: the clock may have stepped."""
    probe_at_ms = min(held.probe_at_ms, now_ms + MAX_PAUSE_MS)
    found = Standing(breaker.OPEN, held.cause, pauses=held.pauses, probe_at_ms=probe_at_ms, since_ms=held.since_ms)
    return breaker.probed_soon(found) if held.is_mended else found
