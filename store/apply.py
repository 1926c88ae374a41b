"""Applies what operators wrote: one transaction that works out the changes, and makes them unless it is a dry run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from schemas.config import PULL, SubscriptionSpec
from schemas.errors import Invalid
from store.agents import agent_rows, busy_agents
from store.audit import Act, audited
from store.changes import Action, ObjectChange, Plan
from store.decide import (
    AGENT,
    SOURCE,
    SUBSCRIPTION,
    Circumstances,
    Decision,
    Wish,
    decide_agents,
    decide_sources,
    decide_subscriptions,
)
from store.engine import Engine, Script
from store.parts import gathered_in
from store.quotas import QUOTA, decide_quota
from store.sources import source_rows
from store.subscriptions import SubscriptionRow, subscription_rows
from store.tables import ROSTER, SOURCES
from store.vault import Vault
from store.versions import raised

_COUNTER = {SOURCE: SOURCES, AGENT: ROSTER, SUBSCRIPTION: ROSTER, QUOTA: ROSTER}
_LONGEST_DETAIL = 2000
CANCELED = "its subscription was deleted"


class Clear(Protocol):
    """The ledger's part of an apply (`store.redress.Redress`)."""

    async def cancel_all(self, subscription_uid: str, *, reason: str, now_ms: int) -> int:
        """End all that waits for a subscription."""
        ...


class Applier:
    """Applies wishes to the store."""

    def __init__(self, engine: Engine, vault: Vault, clear: Clear) -> None:
        self._engine, self._vault, self._clear = engine, vault, clear

    async def apply(self, wish: Wish, *, actor: str, act: str, now_ms: int, dry_run: bool = False) -> Plan:
        """Make the store as wished; the plan says what changed, or with `dry_run` what would.

        Raises `Invalid` (its field `place` says where), `NotFound`, `Conflict`; then nothing was changed.  What is to be
        canceled is canceled after the one transaction, slice by slice, so that a long queue holds nobody up.
        """
        at = Circumstances(self._vault, now_ms)
        if dry_run:
            decisions = await self._engine.read(lambda: _decided(wish, at))
            return Plan(tuple(replace(decision.change, made_secret=None) for decision in decisions), dry_run=True)
        decisions = await self._engine.write(lambda: _written(wish, at, actor=actor, act=act))
        for uid in [decision.canceled for decision in decisions if decision.canceled]:
            await self._clear.cancel_all(uid, reason=CANCELED, now_ms=now_ms)
        for name in [decision.change.name for decision in decisions if _is_spread_anew(decision)]:
            await gathered_in(self._engine, wish.team, name, wish.agents[name].shards)
        return Plan(tuple(decision.change for decision in decisions), dry_run=False)


def _is_spread_anew(decision: Decision) -> bool:
    change = decision.change
    return change.kind == AGENT and change.action is Action.UPDATE and any(field.field == "shards" for field in change.fields)


def _written(wish: Wish, at: Circumstances, *, actor: str, act: str) -> Script[list[Decision]]:
    decisions = yield from _decided(wish, at)
    changed = [decision for decision in decisions if decision.write]
    for decision in changed:
        assert decision.write is not None
        yield from decision.write()
    for counter in sorted({_COUNTER[decision.change.kind] for decision in changed}):
        yield from raised(counter)
    if changed:
        line = Act(wish.team, actor, act, _objects(changed), _detail(changed, wish))
        yield from audited(line, at_ms=at.now_ms)
    return decisions


def _decided(wish: Wish, at: Circumstances) -> Script[list[Decision]]:
    sources = yield from source_rows(wish.team)
    agents = yield from agent_rows(wish.team)
    subscriptions = {row.name: row for row in (yield from subscription_rows(wish.team)) if not row.draining}
    busy = yield from busy_agents(wish.team)
    decided = list(decide_subscriptions(wish, subscriptions, at))
    left = _left(subscriptions, decided, wish)
    decisions = [
        *decide_sources(wish, sources, at),
        *decide_agents(wish, agents, at, needed_by=left, busy=busy),
        *decided,
        *(yield from decide_quota(wish)),
    ]
    protocols = {name: row.public["protocol"] for name, row in agents.items()} if wish.subscriptions else {}
    _demand_agents(wish, protocols | {name: spec.protocol for name, spec in wish.agents.items()})
    return decisions


def _left(rows: dict[str, SubscriptionRow], decided: Sequence[Decision], wish: Wish) -> dict[str, str]:
    """A subscription that is there afterwards, by the agents that its events may come to."""
    gone = {decision.change.name for decision in decided if decision.change.action in {Action.DELETE, Action.DRAIN}}
    kept = {name: row.config.spec for name, row in rows.items() if name not in gone} | dict(wish.subscriptions)
    return {agent: name for name, spec in kept.items() for agent in spec.agents}


def _demand_agents(wish: Wish, protocols: Mapping[str, str]) -> None:
    # An agent that goes in this apply cannot be wanted: `needed_by` keeps it.
    for name, spec in wish.subscriptions.items():
        for agent, within in _agents_of(spec):
            place = f"/subscriptions/{name}/{within}"
            if agent not in protocols:
                raise Invalid(f"subscription {name}: there is no agent `{agent}`", place=place)
            if place.endswith("/notify") and protocols[agent] == PULL:
                raise Invalid(f"subscription {name}: a notice is sent, and `{agent}` is never called: it fetches", place=place)


def _agents_of(spec: SubscriptionSpec) -> Iterator[tuple[str, str]]:
    yield spec.agent, "agent"
    for number, step in enumerate(spec.fallback):
        if step.agent is not None:
            yield step.agent, f"fallback/{number}/agent"
        if step.notify is not None:
            yield step.notify, f"fallback/{number}/notify"


def _objects(changed: Sequence[Decision]) -> str:
    return changed[0].change.kind + "/" + changed[0].change.name if len(changed) == 1 else f"{len(changed)} objects"


def _detail(changed: Sequence[Decision], wish: Wish) -> str:
    text = "; ".join(_sentence(decision.change) for decision in changed)
    return (f"by {wish.managed_by}: " + text)[:_LONGEST_DETAIL]


def _sentence(change: ObjectChange) -> str:
    fields = ", ".join(field.field for field in change.fields)
    return f"{change.action} {change.kind}/{change.name}" + (
        f" ({fields})" if fields and change.action is Action.UPDATE else ""
    )
