"""First attempts that begin with their admission: one commit and one wake-up less for an event that finds its agent idle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from dispatcher.agents import Agent, Agents
from dispatcher.attempt import Desk, opening_of
from dispatcher.workers import Begun, Workers
from schemas.config import SubscriptionConfig
from schemas.invocation import Admitted, Invocation, Planned
from schemas.ledger import Opening

NONE_RESERVED: Mapping[str, Opening] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Held:
    agent: Agent
    subscription: SubscriptionConfig


class HeadStart:
    """Holds places for first attempts while their admission is written.

    A reservation counts against the agent's limit and the process's from `reserve` until `given_back`, so no limit is
    ever passed; what the ledger then did not open is queued like any other.
    """

    def __init__(self, desk: Desk, agents: Agents, workers: Workers) -> None:
        self._desk, self._agents, self._workers = desk, agents, workers
        self._held: dict[str, _Held] = {}

    def reserve(self, plans: Sequence[Planned]) -> Mapping[str, Opening]:
        """The openings, by invocation, of those that could start this moment: first of an idle lane, their agent with room."""
        if not self._workers.is_free:
            return NONE_RESERVED
        found: dict[str, Opening] = {}
        lanes: set[str] = set()
        now_ms = self._desk.clock.now_ms()
        for plan in plans:
            for invocation in plan.invocations:
                if invocation.lane not in lanes and invocation.due_ms <= now_ms:
                    lanes.add(invocation.lane)
                    opening = self._reserved(invocation, now_ms)
                    if opening is not None:
                        found[invocation.id] = opening
        return found

    def _reserved(self, invocation: Invocation, now_ms: int) -> Opening | None:
        agent = self._workers.agent_of(invocation)
        subscription = self._workers.live(invocation.subscription_uid)
        if agent is None or subscription is None or invocation.subscription_uid not in self._workers.book.prompt:
            return None
        queue = agent.queue
        if (
            queue.ready
            or queue.dropped
            or agent.bucket is not None
            or agent.setting.quota is not None
            or invocation.lane in queue.lanes
        ):
            return None
        if invocation.id in self._held or not agent.is_open_for_work or not self._workers.is_free:
            return None
        if not self._workers.has_share(agent):
            return None
        opening = opening_of(self._desk, invocation, agent.setting, subscription.spec.context, number=1, now_ms=now_ms)
        if opening is not None:
            self._held[invocation.id] = _Held(agent, subscription)
            self._workers.hold(agent)
        return opening

    def given_back(self, reserved: Mapping[str, Opening], admitted: Sequence[Admitted]) -> None:
        """Free the places again, and start what was opened."""
        held = {name: self._held.pop(name) for name in reserved}
        for each in held.values():
            self._workers.let(each.agent)
        for one in admitted:
            if one.is_open:
                name = one.invocation.id
                self._workers.take_up(held[name].agent, one, Begun(reserved[name], held[name].subscription))
