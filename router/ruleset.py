"""The rules in force: an immutable picture of all subscriptions, built aside and swapped whole."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from router.flow import FlowRule, compile_flow
from router.matcher import Matcher
from router.pattern import Pattern
from router.rule import compile_key, compile_rule
from schemas.config import SubscriptionConfig, SubscriptionState
from schemas.errors import Invalid
from schemas.ids import shard_of, shards_of
from schemas.invocation import Order


@dataclass(frozen=True, slots=True)
class Rule:
    """What planning needs of one subscription, worked out once."""

    uid: str
    team: str
    name: str
    generation: int
    agent: str
    shard: int
    order: Order
    pattern: Pattern
    key_of: Callable[[Mapping[str, Any]], str | None] | None = None  # what dedups, of an event's document
    window_ms: int = 0
    hears_outcomes: bool = False  # it may be woken by what became of invocations
    flow: FlowRule | None = None
    spread: int = 1  # over how many shards its agent is


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All rules that can plan, by uid, and the matcher over them.

    `broken` names the subscriptions whose stored pattern no longer compiles (another build wrote it): they plan nothing, and
    are shown.
    """

    version: int
    matcher: Matcher
    rules: Mapping[str, Rule] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    listeners: frozenset[str] = frozenset()  # teams with a rule that hears outcomes

    def matching(
        self, team: str, document: Mapping[str, Any], *, exact: Callable[[], Mapping[str, Any]] | None = None, now_ms: int = 0
    ) -> list[Rule]:
        """The rules of `team` that match the event's document, in the order of their uids.

        `exact` gives the document with numbers as they were written; it is called only where a pattern asks for such a number.
        """
        return [self.rules[uid] for uid in self.matcher.match(team, document, exact=exact, now_ms=now_ms)]


def plans(subscription: SubscriptionConfig) -> bool:
    """Whether new events are matched against it: a paused one queues, a disabled or draining one takes nothing new."""
    return not subscription.draining and subscription.spec.state is not SubscriptionState.DISABLED


def build_ruleset(version: int, subscriptions: Iterable[SubscriptionConfig], *, before: Ruleset | None = None) -> Ruleset:
    """The ruleset of these subscriptions; what has not changed since `before` is taken over, not compiled again."""
    with collector_at_rest():
        return _built(version, subscriptions, before)


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Build without the garbage collector's passes: all that is made is kept, and looking through it takes as long again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _built(version: int, subscriptions: Iterable[SubscriptionConfig], before: Ruleset | None) -> Ruleset:
    known = before.rules if before else {}
    rules: dict[str, Rule] = {}
    broken: dict[str, str] = {}
    for config in filter(plans, subscriptions):
        old = known.get(config.uid)
        if (
            old
            and old.generation == config.generation
            and old.agent == config.spec.agent
            and old.name == config.name
            and old.spread == config.agent_shards
        ):
            rules[config.uid] = old
            continue
        try:
            rules[config.uid] = _rule(config)
        except Invalid as exc:
            broken[config.uid] = exc.detail
    listeners = frozenset(rule.team for rule in rules.values() if rule.hears_outcomes)
    return Ruleset(version, _matcher(rules, before), rules, broken, listeners)


def _spread(config: SubscriptionConfig) -> tuple[int, ...]:
    """The shards of an agent that is spread over several; none where it has one."""
    return shards_of(config.team, config.spec.agent, config.agent_shards) if config.agent_shards > 1 else ()


def _rule(config: SubscriptionConfig) -> Rule:
    dedup = config.spec.dedup
    return Rule(
        uid=config.uid,
        team=config.team,
        name=config.name,
        generation=config.generation,
        agent=config.spec.agent,
        shard=shard_of(config.team, config.spec.agent),
        order=config.spec.order,
        pattern=compile_rule(config.spec),
        key_of=compile_key(dedup.key, field="dedup.key") if dedup else None,
        window_ms=max(1, round(dedup.window * 1000)) if dedup else 0,
        hears_outcomes=config.spec.hears_outcomes,
        flow=compile_flow(config.uid, config.spec, shards=_spread(config)),
        spread=config.agent_shards,
    )


def _matcher(rules: Mapping[str, Rule], before: Ruleset | None) -> Matcher:
    old = before.rules if before else {}
    matcher = before.matcher if before else Matcher()
    gone = [(uid, rule.team) for uid, rule in old.items() if rules.get(uid) is not rule]
    added = [(uid, rule.team, rule.pattern) for uid, rule in rules.items() if old.get(uid) is not rule]
    return matcher.with_rules(add=added, remove=gone)
