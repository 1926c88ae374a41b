"""Contexts for the dispatcher: gathers what a contract asks for, makes the context, counts it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import perf_counter
from typing import Any

from curator.compose import Materials, compose
from curator.contract import LEAST_TOKENS, Contract, contract_of
from curator.curate import DEFAULT_MAX_TOKENS, curate
from curator.lookups import Lookups
from curator.metrics import observe
from curator.ports import (
    NOTHING_LEARNT,
    Calibrations,
    Facts,
    Found,
    Histories,
    KnownFact,
    Learnt,
    PastEvent,
    TokenCounter,
)
from curator.tokens import default_counter, family_of
from schemas.config import ContextSpec, SubscriptionConfig
from schemas.context import NO_ENVELOPE, Curated, Envelope
from schemas.errors import NightbellError
from schemas.event import Event

MAX_CONTRACTS = 4096
OUTSIDERS_SHARE = 4


class Curation:
    """The curator as a process uses it.  A plain view and budget never wait; only a contract that asks for more does."""

    def __init__(
        self,
        *,
        fence_secret: bytes,
        histories: Histories | None = None,
        facts: Facts | None = None,
        calibrations: Calibrations | None = None,
        lookups: Lookups | None = None,
        counts: bool = True,
    ) -> None:
        """`fence_secret` is one for all processes of an installation.  The tokenizer is loaded here, not at the first event.

        Without `counts` the metrics do not hear of it: for what is only tried.
        """
        self._counts = counts
        self._fence_secret = fence_secret
        self._histories = histories
        self._facts = facts
        self._calibrations = calibrations
        self._lookups = lookups
        self._contracts: dict[tuple[str, int, Learnt], Contract] = {}
        default_counter()  # it takes a second to load

    def plain(self, subscription: SubscriptionConfig, event: Event, data: Any, *, envelope: Envelope = NO_ENVELOPE) -> Curated:
        """The context of a subscription whose spec `is_plain`.

        The envelope is counted only where the budget may be too small for both: no text has more tokens than bytes.
        """
        started = perf_counter()
        spec = subscription.spec.context
        made = curate(event, data, view=spec.view, max_tokens=spec.max_tokens)
        limit = DEFAULT_MAX_TOKENS if spec.max_tokens is None else spec.max_tokens
        if made.tokens + len(envelope.text) + len(envelope.outside) + envelope.spare > limit:
            reserve, brief = reserved(envelope, default_counter(), limit)
            if made.tokens + reserve > limit:
                made = curate(event, data, view=spec.view, max_tokens=spec.max_tokens, reserve_tokens=reserve)
            made = _within(made, reserve, limit, brief=brief)
        if self._counts:
            observe(made, team=subscription.team, subscription=subscription.name, elapsed_s=perf_counter() - started)
        return made

    async def full(
        self,
        subscription: SubscriptionConfig,
        event: Event,
        data: Any,
        *,
        invocation_id: str,
        envelope: Envelope = NO_ENVELOPE,
    ) -> Curated:
        """The context that the subscription's contract asks for.

        History, facts and lookups are gathered at the same time.  A store that is out of reach gives none of what it holds: the
        context says so under `missing`, and a contract that requires a fact decides by its `on_missing`.
        """
        materials, learnt = await self._gathered(subscription.spec.context, event, data)
        contract = self._contract(subscription, learnt)
        started = perf_counter()
        reserve, brief = reserved(envelope, contract.counter, contract.limit)
        made = compose(
            contract,
            event,
            data,
            materials,
            invocation_id=invocation_id,
            fence_secret=self._fence_secret,
            reserve_tokens=reserve,
        )
        made = replace(made, brief=True) if brief else made
        if self._counts:
            observe(made, team=subscription.team, subscription=subscription.name, elapsed_s=perf_counter() - started)
        return made

    def _contract(self, subscription: SubscriptionConfig, learnt: Learnt) -> Contract:
        key = (subscription.uid, subscription.generation, learnt)
        found = self._contracts.get(key)
        if found is None:
            while len(self._contracts) >= MAX_CONTRACTS:
                del self._contracts[next(iter(self._contracts))]
            found = self._contracts[key] = contract_of(subscription.spec.context, learnt)
        return found

    async def _gathered(self, spec: ContextSpec, event: Event, data: Any) -> tuple[Materials, Learnt]:
        lost: dict[str, str] = {}
        async with asyncio.TaskGroup() as group:
            history = group.create_task(self._history(spec, event, lost))
            facts = group.create_task(self._known(spec, event, lost))
            lookups = group.create_task(self._found(spec, event, data))
            learnt = group.create_task(self._learnt(spec, event))
        return Materials(history.result(), facts.result(), lookups.result(), lost=lost), learnt.result()

    async def _learnt(self, spec: ContextSpec, event: Event) -> Learnt:
        if not spec.model or self._calibrations is None:
            return NOTHING_LEARNT
        try:
            return await self._calibrations.of(team=event.team, family=family_of(spec.model))
        except NightbellError:
            return NOTHING_LEARNT  # the family's default is the safer figure

    async def _history(self, spec: ContextSpec, event: Event, lost: dict[str, str]) -> tuple[PastEvent, ...]:
        if spec.history is None or self._histories is None:
            return ()
        after_ms = event.received_ms - int(spec.history.max_age * 1000)
        try:
            return tuple(
                await self._histories.last(
                    team=event.team,
                    thing=event.partitionkey,
                    before_ms=event.received_ms,
                    after_ms=after_ms,
                    limit=spec.history.events,
                )
            )
        except NightbellError as exc:
            lost["history"] = exc.code
            return ()

    async def _known(self, spec: ContextSpec, event: Event, lost: dict[str, str]) -> tuple[KnownFact, ...]:
        if not spec.facts or self._facts is None:
            return ()
        try:
            return tuple(await self._facts.about(team=event.team, thing=event.partitionkey, at_ms=event.received_ms))
        except NightbellError as exc:
            lost["facts"] = exc.code
            return ()

    async def _found(self, spec: ContextSpec, event: Event, data: Any) -> dict[str, Found]:
        if not spec.enrich or self._lookups is None:
            return {}
        return await self._lookups.all_of(spec.enrich, team=event.team, document=event.document(data))


def _within(made: Curated, reserve: int, limit: int, *, brief: bool) -> Curated:
    """`made`, parked where the envelope alone is too much."""
    if made.tokens + reserve <= limit:
        return replace(made, brief=True) if brief else made
    reason = f"without a context there are {reserve} tokens already; the budget has {limit}"
    return replace(made, verdict="park", reason=reason, brief=brief)


def reserved(envelope: Envelope, counter: TokenCounter, limit: int) -> tuple[int, bool]:
    """Tokens of the budget that the envelope takes, at most; and whether that is its brief form.

    What outsiders wrote there (a summary, a subject) has at most a quarter of the budget: no sender chooses how much is left.
    """
    ours = counter.count(envelope.text.decode()) + envelope.spare
    outside = counter.count(envelope.outside.decode())
    is_long = outside > limit // OUTSIDERS_SHARE or ours + outside + LEAST_TOKENS > limit
    return (ours, True) if outside and is_long else (ours + outside, False)
