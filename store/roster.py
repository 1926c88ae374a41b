"""Agents and subscriptions as the router and the dispatcher read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from schemas.config import AgentConfig, SubscriptionConfig
from store.agents import agent_configs, all_agent_rows
from store.engine import Engine
from store.parts import spread_agents
from store.quotas import all_quotas
from store.subscriptions import all_subscription_rows
from store.tables import ROSTER
from store.vault import Vault
from store.versions import number_of


class Roster:
    """Implements `router.ports.Rulebook` and `dispatcher.ports.Roster`."""

    def __init__(self, engine: Engine, vault: Vault, *, now_ms: Callable[[], int]) -> None:
        self._engine, self._vault, self._now_ms = engine, vault, now_ms

    async def version(self) -> int:
        """A number that changes with every change of an agent or subscription."""
        return await number_of(self._engine, ROSTER)

    async def agents(self) -> list[AgentConfig]:
        """All agents of all teams, secrets in the clear."""
        rows = await self._engine.read(all_agent_rows)
        found = agent_configs(rows, self._vault, now_ms=self._now_ms())
        quotas = await all_quotas(self._engine)
        return [replace(agent, quota=quotas.get(agent.team)) for agent in found] if quotas else found

    async def subscriptions(self) -> list[SubscriptionConfig]:
        """All subscriptions of all teams, draining ones included."""
        rows = await self._engine.read(all_subscription_rows)
        spread = await spread_agents(self._engine)
        if not spread:
            return [row.config for row in rows]
        return [replace(row.config, agent_shards=spread.get((row.team, row.agent), 1)) for row in rows]
