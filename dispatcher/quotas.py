"""Quotas of teams: this process's blocks of them, and who waits for the next.

A block is leased for the rest of a span of the database's clock, and what is left of it then is lost.  So a team never makes
more attempts in a span than its quota; it may make fewer by what other processes have leased and do not use, which is less than
a block each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from dispatcher.agents import Agent
from dispatcher.clock import Clock
from dispatcher.lanes import AgentKey
from dispatcher.ports import Ledger
from schemas.config import QuotaSpec
from schemas.errors import Busy

BLOCKS = 32  # a process leases so much of a quota at once: a 32nd, and at least one attempt
_STORE_PAUSE_S = 1.0


@dataclass(slots=True, eq=False)
class _Purse:
    """What one team has here."""

    left: int = 0
    until_s: float = 0.0
    waiting: dict[AgentKey, Agent] = field(default_factory=dict)
    is_asking: bool = False


class Quotas:
    """The blocks of this process, by team."""

    def __init__(self, ledger: Ledger, clock: Clock, *, start: Callable[[Agent], None]) -> None:
        self._ledger, self._clock, self._start = ledger, clock, start
        self._purses: dict[str, _Purse] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, agent: Agent, quota: QuotaSpec) -> bool:
        """Use up one attempt of the team's; False where there is none here now: the agent is started again when there is."""
        team = agent.key[0]
        purse = self._purses.setdefault(team, _Purse())
        if purse.left > 0 and self._clock.boot_s() < purse.until_s:
            purse.left -= 1
            return True
        purse.left = 0
        purse.waiting[agent.key] = agent
        if not purse.is_asking:
            purse.is_asking = True
            task = asyncio.get_running_loop().create_task(self._ask(team, purse, max(1, quota.attempts // BLOCKS)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return False

    def give_back(self, agent: Agent) -> None:
        """The one that used up an attempt did not start after all."""
        purse = self._purses.get(agent.key[0])
        if purse is not None:
            purse.left += 1

    def stop(self) -> None:
        """Ask for no more."""
        for task in self._tasks:
            task.cancel()
        self._purses.clear()

    async def _ask(self, team: str, purse: _Purse, wanted: int) -> None:
        try:
            await self._filled(team, purse, wanted)
        finally:
            purse.is_asking = False
        waiting, purse.waiting = purse.waiting, {}
        for agent in waiting.values():
            self._start(agent)

    async def _filled(self, team: str, purse: _Purse, wanted: int) -> None:
        while True:
            asked_s = self._clock.boot_s()
            try:
                block = await self._ledger.lease_quota(team, wanted=wanted)
            except Busy:
                await asyncio.sleep(_STORE_PAUSE_S)
                continue
            if block.granted:
                purse.left, purse.until_s = block.granted, asked_s + block.ends_in_ms / 1000
                return
            await asyncio.sleep(block.ends_in_ms / 1000)
