"""Publishes what became of invocations: always on the outcomes topic, and as events where a subscription hears them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter

from eventlog.log import EventLog
from router.loops import LoopGuard, LoopLimits
from router.ruleset import Ruleset
from schemas.errors import NightbellError
from schemas.event import Flag, to_headers
from schemas.ledger import Outcome
from schemas.outcomes import OWN, Chain, next_chain, outcome_data, outcome_event
from schemas.topics import Draft, events_topic, outcomes_topic
from store.outbox import Cause, Outbox

_LOOK_EVERY_S = 5.0
_PAUSE_S = 1.0
_PAGE = 500
_GATHER_S = 0.05  # outcomes are for onlookers: many in one append cost the hot path less than each at once
_say = structlog.get_logger()


class Heralds:
    """Turns outcomes into events, where the rules in force have a subscription that they match; elsewhere costs nothing."""

    def __init__(
        self,
        outbox: Outbox,
        rules: Callable[[], Awaitable[Ruleset]],
        ensure: Callable[[], Awaitable[None]],
        *,
        limits: LoopLimits,
        prefix: str,
        now_ms: Callable[[], int],
        registry: CollectorRegistry = REGISTRY,
    ) -> None:
        """`rules` waits for the first ruleset; `ensure` makes the topic of our own events."""
        self._outbox, self._rules, self._ensure, self._now_ms = outbox, rules, ensure, now_ms
        self._topic = events_topic(OWN, prefix)
        self._guard = LoopGuard(limits)
        self._published = Counter("nightbell_outcome_events_total", "Outcomes published as events", registry=registry)
        self._cut = Counter(
            "nightbell_loops_cut_total", "Chains of outcomes that the loop guard cut", ["reason"], registry=registry
        )

    async def drafts(self, outcomes: Sequence[Outcome]) -> list[Draft]:
        """The records of those outcomes that a subscription hears, those that the loop guard cut among them."""
        rules = await self._rules()
        if not rules.listeners:
            return []
        told = [(each, orjson.loads(each.body)) for each in outcomes]
        wanted = [(each, said) for each, said in told if said["team"] in rules.listeners]
        causes = await self._outbox.causes({said["event"] for _, said in wanted}) if wanted else {}
        found = [self._draft(each, said, causes.get(said["event"], Cause({}, None)), rules) for each, said in wanted]
        drafts = [draft for draft in found if draft is not None]
        if drafts:
            await self._ensure()
        return drafts

    def _draft(self, outcome: Outcome, told: dict[str, Any], cause: Cause, rules: Ruleset) -> Draft | None:
        chain = next_chain(told["event"], cause.data)
        data = outcome_data(told, cause.envelope, chain or Chain("", 0))
        event = outcome_event(told, cause.envelope, key=outcome.key, body=orjson.dumps(data))
        now_ms = self._now_ms()
        matching = rules.matching(event.team, event.document(data), now_ms=now_ms)
        heard_by = [rule.uid for rule in matching if rule.hears_outcomes]
        if not heard_by:
            return None
        if reason := self._guard.cut(chain, heard_by, now_ms=now_ms):
            flags = (Flag.LOOP_CUT,)
            event = outcome_event(told, cause.envelope, key=outcome.key, body=event.body, flags=flags)
            self._cut.labels(reason).inc()
            _say.warning(
                "loop_cut",
                reason=reason,
                event_id=event.id,
                invocation=told["invocation"],
                agent=told["agent"],
                root=chain.root if chain else "",
                hops=chain.hops if chain else 0,
            )
        else:
            self._published.inc()
        return Draft(self._topic, event.partitionkey, event.body, to_headers(event))


async def publish_outcomes(log: EventLog, outbox: Outbox, heralds: Heralds, *, prefix: str) -> None:
    """Append what was settled to the outcomes topic, and as events where heard, until cancelled.

    A crash in between repeats, and never loses: outcomes are dropped only when all of it is durable.  Woken by each settlement,
    with a slow look behind it.
    """
    wake = asyncio.Event()
    topic = outcomes_topic(prefix)
    stop_listening = outbox.listen(lambda _: wake.set())
    try:
        while True:
            wake.clear()
            try:
                while outcomes := await outbox.pending(limit=_PAGE):
                    drafts = [Draft(topic, each.key, each.body, {"content-type": "application/json"}) for each in outcomes]
                    await log.append(drafts + await heralds.drafts(outcomes))
                    await outbox.drop([each.seq for each in outcomes])
            except NightbellError as exc:
                _say.warning("outcomes_wait", code=exc.code, detail=exc.detail)
                await asyncio.sleep(_PAUSE_S)
            try:
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await wake.wait()
                await asyncio.sleep(_GATHER_S)
            except TimeoutError:
                continue
    finally:
        stop_listening()
