"""Runs under supervision: what an accepted attempt becomes, what becomes of a run that is over; how many an agent has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from dispatcher.agents import Agent, Agents
from dispatcher.book import Book, Setting
from dispatcher.clock import Clock
from dispatcher.lanes import AgentKey
from dispatcher.ports import Ledger
from dispatcher.protocols.base import ACCEPTED, FAILED, Outcome
from dispatcher.retry import Block, Bury, RetryAt, Supervise, blocking, next_step
from dispatcher.tenure import Tenure
from schemas.config import SubscriptionConfig, SupervisionSpec
from schemas.invocation import State, Wait
from schemas.ledger import Head, RunTerms, Stall
from schemas.runs import CANCEL, CANCELED, STALLED, UNFETCHED

OFFER_MS = 60_000  # an offer that nobody fetched goes back to its lane: what it says grows old
TOKEN_SLACK_MS = 60_000
_OVER_AT_ONCE = 100
_LOOK_AGAIN_MS = 5_000


def accepted(outcome: Outcome, setting: Setting, *, now_ms: int) -> Supervise | None:
    """What an attempt becomes that its agent accepted, or is to fetch; None where it did not, or nobody watches."""
    if outcome.word != ACCEPTED or setting.supervision is None:
        return None
    terms = terms_of(setting.supervision, now_ms=now_ms, offer=outcome.offer)
    return Supervise(now_ms + (terms.span_ms if outcome.offer is None else OFFER_MS), terms)


def terms_of(supervision: SupervisionSpec, *, now_ms: int, offer: bytes | None = None) -> RunTerms:
    """The terms of a run that begins now."""
    return RunTerms(round(supervision.lease * 1000), now_ms + round(supervision.max_run * 1000), offer)


def token_ends_ms(deadline_ms: int, setting: Setting) -> int:
    """When an attempt's token ends: with its call, or with the longest run that may follow."""
    longest_ms = 0 if setting.supervision is None else round(setting.supervision.max_run * 1000)
    return deadline_ms + longest_ms + TOKEN_SLACK_MS


def judged(
    head: Head, subscription: SubscriptionConfig | None, supervision: SupervisionSpec | None, *, epoch: int, now_ms: int
) -> Stall:
    """What becomes of an invocation whose run is over without a report, or was asked to stop and is not running.  Pure.

    `subscription` None: it is gone.
    """
    run, invocation = head.run, head.invocation
    assert run is not None

    def stall(verdict: str, state: State, reason: str, *, due_ms: int = 0) -> Stall:
        number, tries = head.attempts, head.tries
        return Stall(invocation.id, number, invocation.shard, epoch, verdict, state, reason, now_ms, tries, due_ms)

    if run.signal == CANCEL:
        return stall(CANCELED, State.CANCELED, "canceled by an operator")
    if not run.fetched:
        return stall(UNFETCHED, State.QUEUED, "offered, and not fetched", due_ms=now_ms)
    why = "it ran longer than max_run" if run.ends_ms <= now_ms else "nothing was heard of it for its lease"
    if subscription is None:
        return stall(STALLED, State.CANCELED, "its subscription is gone")
    if supervision is not None and supervision.on_stall == "escalate":
        return stall(STALLED, State.WAITING, Wait.HUMAN)
    state, reason, due_ms = _again(head, subscription, f"stalled: {why}", now_ms=now_ms)
    return stall(STALLED, state, reason, due_ms=due_ms)


def _again(head: Head, subscription: SubscriptionConfig, why: str, *, now_ms: int) -> tuple[State, str, int]:
    step = next_step(
        Outcome(FAILED, error=why),
        tries=head.tries,
        pauses=1,
        policy=subscription.spec.retry,
        begun_ms=head.budget_ms or head.invocation.created_ms,
        now_ms=now_ms,
        attempt_id=f"{head.invocation.id}:{head.attempts}",
    )
    match blocking(step, subscription):
        case RetryAt(due_ms, _):
            return State.WAITING, Wait.RETRY, due_ms
        case Bury(reason):
            return State.BURIED, reason, 0
        case Block(_):
            return State.WAITING, Wait.BLOCKED, 0
        case _:
            raise AssertionError(step)


async def _nothing(_: Agent) -> None:
    """Nobody holds anything for runs."""


class Supervision:
    """Keeps count of the open runs of this process's agents, and ends those that are over.

    An agent without runs costs nothing here but one look when its shard is taken over.
    """

    def __init__(
        self, ledger: Ledger, agents: Agents, tenure: Tenure, clock: Clock, *, book: Callable[[], Book], say: Callable[..., Any]
    ) -> None:
        self._ledger, self._agents, self._tenure, self._clock = ledger, agents, tenure, clock
        self._book, self._say = book, say
        self._asked: set[AgentKey] = set()
        self._watched: dict[AgentKey, Agent] = {}  # those with open runs
        self.changed: Callable[[Agent], None] = lambda _: None  # it may start more: set by who starts it
        self.over: Callable[[Agent], Awaitable[None]] = _nothing  # runs of it are over: set as well

    def begins(self, agent: Agent, head: Head, step: Supervise) -> None:
        """Its agent just accepted it, or is to fetch it."""
        agent.runs.add(head.invocation.id)
        if step.terms.offer is not None:
            agent.unfetched.add(head.invocation.id)
        agent.over_at_ms = min(agent.over_at_ms, step.due_ms) if agent.key in self._watched else step.due_ms
        self._watched[agent.key] = agent
        agent.metrics.runs.set(len(agent.runs))

    def count_again(self, agent: Agent) -> None:
        """Its runs changed, or may have, or somebody waits for its work: look at the next turn."""
        self._asked.add(agent.key)

    def sweep(self) -> None:
        """Look at every agent that has runs or fetches its work, since what other processes say may get lost."""
        for agent in self._agents:
            if agent.runs or agent.setting.is_pull:
                self._asked.add(agent.key)
                agent.over_at_ms = 0

    async def turn(self) -> None:
        """Do what is called for now, once."""
        if self._asked:
            await self._count()
        if not self._watched:
            return
        now_ms = self._clock.now_ms()
        if over := [agent for agent in list(self._watched.values()) if agent.over_at_ms <= now_ms]:
            await self._end_over([agent for agent in over if self._agents.get(agent.key) is agent], now_ms)

    async def _count(self) -> None:
        asked, self._asked = self._asked, set()
        agents = [agent for key in asked if (agent := self._agents.get(key))]
        before = {agent.key: (set(agent.runs), set(agent.unfetched)) for agent in agents}
        try:
            found = await self._ledger.open_runs([agent.part for agent in agents], now_ms=self._clock.now_ms())
        except BaseException:
            self._asked |= asked
            raise
        for agent in agents:
            there, (runs, unfetched) = found[agent.part], before[agent.key]
            # What was accepted here while the ledger was asked stays: only what was known before can have ended.
            agent.runs = (agent.runs - runs) | there.runs
            agent.unfetched = ((agent.unfetched - unfetched) | there.unfetched) & agent.runs
            agent.wanted = there.wanted
            agent.metrics.runs.set(len(agent.runs))
            if agent.runs:
                self._watched[agent.key] = agent
            else:
                self._watched.pop(agent.key, None)
            await self.over(agent)
            self.changed(agent)

    async def _end_over(self, agents: Sequence[Agent], now_ms: int) -> None:
        heads = await self._ledger.over_runs([agent.part for agent in agents], now_ms=now_ms, limit=_OVER_AT_ONCE)
        for agent in agents:
            agent.over_at_ms = now_ms + _LOOK_AGAIN_MS
        for head in heads:
            whose = (head.invocation.team, head.invocation.agent, head.invocation.shard)
            for agent in agents:
                if agent.part == whose:
                    await self.end(agent, head)

    async def end(self, agent: Agent, head: Head) -> None:
        """End a run that is over, or an invocation whose run was asked to stop before it could."""
        epoch = self._tenure.epoch(head.invocation.shard)
        if epoch is None:
            return
        subscription = self._book().subscriptions.get(head.invocation.subscription_uid)
        stall = judged(head, subscription, agent.setting.supervision, epoch=epoch, now_ms=self._clock.now_ms())
        if not await self._ledger.end_run(stall):
            return
        agent.runs.discard(head.invocation.id)
        agent.unfetched.discard(head.invocation.id)
        agent.metrics.run_over(stall.verdict)
        self._say(
            "run_over",
            invocation=stall.invocation_id,
            team=agent.names[0],
            agent=agent.names[1],
            number=stall.number,
            verdict=stall.verdict,
            state=stall.state.value,
            reason=stall.reason,
            due_ms=stall.due_ms,
        )
        await self.over(agent)
        self.changed(agent)
