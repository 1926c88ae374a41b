"""Contexts for the dispatcher: gathers what a contract asks for, makes the context, counts it."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

from curator.compose import Materials, compose
from curator.contract import Contract, contract_of
from curator.curate import DEFAULT_MAX_TOKENS, curate
from curator.lookups import Lookups
from curator.metrics import observe
from curator.ports import Facts, Found, Histories, KnownFact, PastEvent, TokenCounter
from curator.tokens import default_counter
from schemas.config import ContextSpec, SubscriptionConfig
from schemas.context import NO_ENVELOPE, Curated, Envelope
from schemas.errors import NightbellError
from schemas.event import Event

MAX_CONTRACTS = 4096


class Curation:
    """The curator as a process uses it.  A plain view and budget never wait; only a contract that asks for more does."""

    def __init__(
        self,
        *,
        fence_secret: bytes,
        histories: Histories | None = None,
        facts: Facts | None = None,
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
        self._lookups = lookups
        self._contracts: dict[tuple[str, int], Contract] = {}
        default_counter()  # it takes a second to load

    def plain(self, subscription: SubscriptionConfig, event: Event, data: Any, *, envelope: Envelope = NO_ENVELOPE) -> Curated:
        """The context of a subscription whose spec `is_plain`.

        The envelope is counted only where the budget may be too small for both: no text has more tokens than bytes.
        """
        started = perf_counter()
        spec = subscription.spec.context
        made = curate(event, data, view=spec.view, max_tokens=spec.max_tokens)
        limit = DEFAULT_MAX_TOKENS if spec.max_tokens is None else spec.max_tokens
        if made.tokens + len(envelope.text) + envelope.spare > limit:
            reserve = _reserve(envelope, default_counter())
            if made.tokens + reserve > limit:
                made = curate(event, data, view=spec.view, max_tokens=spec.max_tokens, reserve_tokens=reserve)
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
        contract = self._contract(subscription)
        materials = await self._gathered(contract.spec, event, data)
        started = perf_counter()
        made = compose(
            contract,
            event,
            data,
            materials,
            invocation_id=invocation_id,
            fence_secret=self._fence_secret,
            reserve_tokens=_reserve(envelope, contract.counter),
        )
        if self._counts:
            observe(made, team=subscription.team, subscription=subscription.name, elapsed_s=perf_counter() - started)
        return made

    def _contract(self, subscription: SubscriptionConfig) -> Contract:
        key = (subscription.uid, subscription.generation)
        found = self._contracts.get(key)
        if found is None:
            while len(self._contracts) >= MAX_CONTRACTS:
                del self._contracts[next(iter(self._contracts))]
            found = self._contracts[key] = contract_of(subscription.spec.context)
        return found

    async def _gathered(self, spec: ContextSpec, event: Event, data: Any) -> Materials:
        lost: dict[str, str] = {}
        async with asyncio.TaskGroup() as group:
            history = group.create_task(self._history(spec, event, lost))
            facts = group.create_task(self._known(spec, event, lost))
            lookups = group.create_task(self._found(spec, event, data))
        return Materials(history.result(), facts.result(), lookups.result(), lost=lost)

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


def _reserve(envelope: Envelope, counter: TokenCounter) -> int:
    """Tokens of the budget that the envelope takes, at most."""
    return counter.count(envelope.text.decode()) + envelope.spare
