"""A digest: several events of one window, handed over by one invocation, within one budget."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson

from dispatcher.ports import Curated, Curator
from payload.read import view
from schemas.config import BatchSpec, SubscriptionConfig, SubscriptionSpec
from schemas.context import Envelope
from schemas.event import Event
from schemas.ledger import Head, Window
from schemas.times import iso

DEFAULT_MAX_TOKENS = 4000
LEAST_TOKENS = 32  # of one event's context, however many share the budget
_AT_ONCE = 25
_NAMES = ("kind", "subject", "actor", "url", "summary", "replayid")


def window_of(spec: SubscriptionSpec) -> Window | None:
    """When a subscription's digests close; None where it has none."""
    digest = spec.digest
    if digest is None:
        return None
    wait_s = 0.0 if isinstance(digest, BatchSpec) else digest.wait
    return Window(max(0, round(wait_s * 1000)), max(1, round(digest.max_wait * 1000)), digest.max_events)


async def digested(curate: Curator, head: Head, subscription: SubscriptionConfig, envelope: Envelope) -> Curated:
    """The context of a digest: the newest event's, and beside it `digest`: every event of the window with its own context.

    `max_tokens` is the ceiling of all of them together: each has an equal share, and no less than `LEAST_TOKENS`.  What a
    contract gathers beside the view (history, facts, lookups) is gathered once, for the newest.
    """
    events = head.digest
    limit = subscription.spec.context.max_tokens or DEFAULT_MAX_TOKENS
    shared = _with_budget(subscription, max(LEAST_TOKENS, limit // (len(events) + 1)))
    newest = events[-1]
    data = _data_of(newest)
    if subscription.spec.context.is_plain:
        main = curate.plain(shared, newest, data, envelope=envelope)
    else:
        main = await curate.full(subscription, newest, data, invocation_id=head.invocation.id, envelope=envelope)
    parts: list[bytes] = []
    tokens = raw_tokens = 0
    for number, event in enumerate(events):
        if number and number % _AT_ONCE == 0:
            await asyncio.sleep(0)  # a long digest lets others run in between
        one = curate.plain(shared, event, _data_of(event))
        tokens, raw_tokens = tokens + one.tokens, raw_tokens + one.raw_tokens
        parts.append(b'{"event":%b,"context":%b}' % (orjson.dumps(_named(event)), one.context))
    head_line = orjson.dumps({"count": len(events), "first": iso(events[0].received_ms), "last": iso(newest.received_ms)})
    listed = b'%b,"events":[%b]}' % (head_line[:-1], b",".join(parts))
    return replace(
        main,
        tokens=main.tokens + tokens,
        raw_tokens=raw_tokens,
        siblings=(*main.siblings, ("digest", listed)),
    )


def _with_budget(subscription: SubscriptionConfig, max_tokens: int) -> SubscriptionConfig:
    context = subscription.spec.context.model_copy(update={"max_tokens": max_tokens})
    return replace(subscription, spec=subscription.spec.model_copy(update={"context": context}))


def _data_of(event: Event) -> object:
    return view(event.body, event.datacontenttype, event.pointer)[0]


def _named(event: Event) -> dict[str, str]:
    found = {"id": event.id, "source": event.source, "type": event.type, "time": iso(event.time_ms)}
    found.update({name: value for name in _NAMES if (value := getattr(event, name))})
    return found
