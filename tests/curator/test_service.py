"""The curator as a process uses it: it gathers at the same time, and loses no delivery to a store that is away."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson
import pytest

from curator.lookups import Lookups
from curator.metrics import CONTEXTS, TOKENS
from curator.ports import KnownFact, PastEvent
from curator.service import Curation
from schemas.config import SubscriptionConfig, SubscriptionSpec
from schemas.context import Envelope
from schemas.errors import StoreUnavailable
from tests.curator.conftest import make_event
from tests.curator.test_lookups import Clock, Crm

NOW = 1_795_149_373_000
DATA = {"issue": {"title": "T", "number": 42}, "customer": {"n": 42}}
VIEW = "{title: data.issue.title}"


class Shelf:
    """Histories and facts in memory; `is_away` makes both unreachable."""

    def __init__(self) -> None:
        self.is_away = False
        self.asked: list[dict] = []

    async def last(self, **asked):
        self.asked.append(asked)
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable
        return [PastEvent("evt_0", "github.issues.opened", NOW - 60_000, "nora", "Issue 42 opened", "done")]

    async def about(self, **asked):
        self.asked.append(asked)
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable
        return [KnownFact("tier", "gold", "triage", NOW - 1000)]


def subscription(**context) -> SubscriptionConfig:
    spec = SubscriptionSpec(agent="triage", pattern={}, context=context)
    return SubscriptionConfig("default", "bugs", "sub_1", 1, spec)


def curation(shelf, crm=None) -> Curation:
    return Curation(fence_secret=b"k" * 32, histories=shelf, facts=shelf, lookups=Lookups(crm, crm, Clock()) if crm else None)


FULL = {
    "view": VIEW, "history": {"events": 3}, "facts": ["tier"], "enrich": {"crm": {"url": "https://crm.example/{data.customer.n}"}},
}  # fmt: skip


async def test_a_contract_gathers_history_facts_and_lookups():
    shelf, crm = Shelf(), Crm()

    found = await curation(shelf, crm).full(subscription(**FULL), make_event(DATA), DATA, invocation_id="inv_1")

    assert {name for name, _ in found.siblings} == {"history", "facts", "enrich", "provenance", "manifest"}
    assert shelf.asked[0]["thing"] == "default/github-acme/1"
    assert crm.asked[0][0] == "https://crm.example/42"


async def test_a_store_that_is_away_is_told_and_loses_no_delivery():
    shelf = Shelf()
    shelf.is_away = True

    found = await curation(shelf, Crm()).full(subscription(**FULL), make_event(DATA), DATA, invocation_id="inv_1")

    assert found.verdict == "deliver"
    assert orjson.loads(found.context) == {"title": "T"}
    assert set(found.missing) == {"history: store_unavailable", "facts: store_unavailable"}


async def test_a_required_fact_of_a_store_that_is_away_is_decided_by_the_contract():
    shelf = Shelf()
    shelf.is_away = True
    wanted = subscription(view=VIEW, facts=["tier"], required=["facts.tier"], on_missing="park")

    found = await curation(shelf).full(wanted, make_event(DATA), DATA, invocation_id="inv_1")

    assert found.verdict == "park"
    assert "facts.tier" in found.reason


async def test_what_is_not_asked_for_is_not_gathered():
    shelf = Shelf()

    await curation(shelf).full(subscription(view=VIEW, model="claude-opus-4"), make_event(DATA), DATA, invocation_id="inv_1")

    assert shelf.asked == []


def test_a_plain_context_is_made_without_waiting_and_counted():
    before = TOKENS.labels("default", "bugs", "delivered")._value.get(), CONTEXTS.labels("deliver")._value.get()

    found = curation(Shelf()).plain(subscription(view=VIEW, max_tokens=100), make_event(DATA), DATA)

    assert found.context == b'{"title":"T"}'
    assert TOKENS.labels("default", "bugs", "delivered")._value.get() == before[0] + found.tokens
    assert CONTEXTS.labels("deliver")._value.get() == before[1] + 1


def test_a_view_and_a_budget_are_plain_and_anything_more_is_not():
    assert subscription(view=VIEW, max_tokens=100).spec.context.is_plain
    for more in ({"history": {}}, {"facts": ["*"]}, {"required": ["a"]}, {"format": "text"}, {"model": "claude"}):
        assert not subscription(**more).spec.context.is_plain


async def test_fifty_agents_of_one_event_get_the_sum_of_their_views():
    shelf, crm = Shelf(), Crm()
    shared = curation(shelf, crm)
    data = {**DATA, "issue": {**DATA["issue"], "noise": "x y z " * 4000}}
    event = make_event(data)

    made = await asyncio.gather(*(shared.full(subscription(**FULL), event, data, invocation_id=f"inv_{n}") for n in range(50)))

    assert sum(each.tokens for each in made) == 50 * made[0].tokens
    assert made[0].tokens < made[0].raw_tokens / 10
    assert len(crm.asked) == 1


OURS = Envelope(b'{"invocation":{"id":"inv_1"},"links":{"event":"https://nb.test/v1/events/evt_1"}}', 40)
FULLER = {"view": VIEW, "required": ["title"]}


@pytest.mark.parametrize("context", [{"view": VIEW}, FULLER], ids=["plain", "full"])
@pytest.mark.parametrize(("summary", "brief"), [("Issue 42 opened", False), ("𠮷𡈽 " * 250, True)])
async def test_a_long_summary_takes_no_room_from_the_context(context, summary, *, brief):
    envelope = replace(OURS, outside=orjson.dumps({"summary": summary}))
    maker, event = curation(Shelf()), make_event(DATA)

    config = subscription(**context, max_tokens=300)
    if config.spec.context.is_plain:
        found = maker.plain(config, event, DATA, envelope=envelope)
    else:
        found = await maker.full(config, event, DATA, invocation_id="inv_1", envelope=envelope)

    assert found.brief is brief
    assert orjson.loads(found.context) == {"title": "T"}
    assert found.verdict == "deliver"


async def test_an_envelope_that_fills_the_budget_alone_is_parked_with_its_reason():
    envelope = Envelope(b'{"links":"' + b"a long address " * 100 + b'"}', 40)

    plain = curation(Shelf()).plain(subscription(view=VIEW, max_tokens=100), make_event(DATA), DATA, envelope=envelope)
    full = await curation(Shelf()).full(
        subscription(**FULLER, max_tokens=100), make_event(DATA), DATA, invocation_id="inv_1", envelope=envelope
    )

    assert plain.verdict == full.verdict == "park"
    assert "the budget has 100" in plain.reason
