"""Facts, secrets, parts of bodies, sums of contexts, and contexts that are tried before they are saved, over the API."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from control.auth import Role
from runtime.curation import curation_of
from schemas.config import SubscriptionConfig
from schemas.context import Curated
from schemas.event import Event
from store.credentials import Credentials
from tests.fakes.api_world import DOCUMENT, World

THING = "default/gh/42"


async def test_an_operator_writes_a_fact_and_reads_when_it_was_said(world: World) -> None:
    status, made = await world.call("PUT", "/v1/facts", {"thing": THING, "name": "tier", "value": "gold", "pinned": True})
    _, found = await world.call("GET", "/v1/facts", thing=THING, name="tier")

    assert (status, made["version"], made["by"]) == (200, 1, "admin")
    assert found["items"] == [made]


async def test_an_agent_writes_facts_about_what_woke_it_and_nothing_else(world: World) -> None:
    await world.applied()
    mine, other = await world.admit("one"), await world.admit("two", subscription=None)
    await world.key(Role.AGENT, agent="triage")
    run = mine.invocations[0].id
    fact = {"name": "refunded", "value": {"amount": 12}}

    status, made = await world.call("PUT", "/v1/facts", {**fact, "invocation": run}, who="agent")
    refused = [
        (await world.call("PUT", "/v1/facts", {**fact, **more}, who="agent"))[0]
        for more in (
            {},
            {"thing": other.event.partitionkey},
            {"invocation": run, "thing": THING},
            {"invocation": run, "pinned": True},
        )
    ]
    _, told = await world.call("GET", "/v1/facts", who="agent", invocation=run)
    _, seen = await world.call("GET", "/v1/facts", thing=mine.event.partitionkey, name="refunded")

    assert (status, made["thing"], made["by"], made["invocation"]) == (200, mine.event.partitionkey, "triage", run)
    assert refused == [422] * 4
    assert told["items"] == seen["items"] == [made]


async def test_a_token_opens_the_facts_of_its_own_event(world: World) -> None:
    await world.applied()
    plan = await world.admit("one")
    token = world.tokens.mint(
        team="default", invocation_id=plan.invocations[0].id, event_id=plan.event.id, expires_ms=world.now.ms + 1000
    )

    status, made = await world.call("PUT", "/v1/facts", {"name": "seen", "value": True}, who=token)

    assert (status, made["thing"], made["invocation"]) == (200, plan.event.partitionkey, plan.invocations[0].id)


@pytest.mark.parametrize(
    "body",
    [
        {"name": "a b", "value": 1},
        {"name": "a"},
        {"name": "a", "value": "x" * 9000},
        {"name": "a", "value": 1, "expires_in": -1},
    ],
)
async def test_a_fact_that_cannot_be_kept_is_refused(world: World, body: dict[str, Any]) -> None:
    status, _ = await world.call("PUT", "/v1/facts", {"thing": THING, **body})

    assert status == 422


async def test_a_secret_is_kept_and_never_shown(world: World) -> None:
    status, made = await world.call("PUT", "/v1/secrets/crm", {"value": "canary-secret"})
    _, listed = await world.call("GET", "/v1/secrets")
    refused, _ = await world.call("GET", "/v1/secrets", who="operator") if "operator" in world.keys else (403, None)

    assert status == 200
    assert "canary" not in str((made, listed))
    assert [item["name"] for item in listed["items"]] == ["crm"]
    assert refused == 403
    assert await Credentials(world.store.engine, world.vault).secret(team="default", name="crm") == "canary-secret"
    assert (await world.call("DELETE", "/v1/secrets/crm"))[0] == 200
    assert (await world.call("DELETE", "/v1/secrets/crm"))[0] == 404


async def test_a_part_of_a_body_is_fetched_by_its_pointer_and_counted_for_the_next_view(world: World) -> None:
    document = {**DOCUMENT, "subscriptions": {"bugs": {**DOCUMENT["subscriptions"]["bugs"], "context": {"view": "{t: type}"}}}}
    await world.applied(document)
    plan = await world.admit("one", body=b'{"issue":{"labels":[{"a/b":"x"}]}}')
    run = plan.invocations[0].id
    token = world.tokens.mint(team="default", invocation_id=run, event_id=plan.event.id, expires_ms=world.now.ms + 1000)

    status, part = await world.call("GET", f"/v1/events/{plan.event.id}/body", who=token, pointer="/issue/labels/0/a~1b")
    missing, _ = await world.call("GET", f"/v1/events/{plan.event.id}/body", who=token, pointer="/issue/labels/1")
    wrong, _ = await world.call("GET", f"/v1/events/{plan.event.id}/body", who=token, pointer="issue")

    assert (status, part) == (200, b'"x"')
    assert (missing, wrong) == (404, 422)
    rows = await world.call("GET", "/v1/contexts/stats")
    assert rows == (200, {"items": [], "next_cursor": None})  # no attempt yet


def with_contexts(world: World) -> None:
    """Give the desk the curator itself."""
    curation = curation_of(world.store.engine, world.vault, None, counts=False)

    async def made(subscription: SubscriptionConfig, event: Event, data: Any) -> Curated:
        if subscription.spec.context.is_plain:
            return curation.plain(subscription, event, data)
        return await curation.full(subscription, event, data, invocation_id="inv_tried")

    tools = replace(world.desk.tools, contexts=made)
    object.__setattr__(world.desk, "tools", tools)


@pytest.mark.parametrize(
    ("context", "place"),
    [
        ({"view": "{n: length(data.n)}"}, "/context/view"),
        ({"view": "{n: data.n}", "required": ["n", "nope"]}, "/context/required"),
        ({"view": "{n: data.long}", "required": ["n"], "max_tokens": 200}, "/context/max_tokens"),
        ({"format": "text", "template": "{{ 1 / context.nothing }}"}, "/context/template"),
        ({"enrich": {"crm": {"url": "https://crm.example/{data.customer.id}"}}}, "/context/enrich/crm/url"),
    ],
)
async def test_a_context_that_no_kept_event_can_fill_is_refused_when_it_is_saved(
    world: World, context: dict[str, Any], place: str
) -> None:
    await world.applied()
    plan = await world.admit("one", body=b'{"n":1,"long":"%s"}' % b" ".join(b"%d" % n for n in range(2000)))
    with_contexts(world)
    wanted = {**DOCUMENT["subscriptions"]["bugs"], "context": context}

    status, problem = await world.call("PUT", "/v1/subscriptions/bugs", wanted, force="true")
    other, _ = await world.call(
        "PUT", "/v1/subscriptions/bugs", {**wanted, "context": {"view": "{n: data.n}", "required": ["n"]}}, force="true"
    )

    assert status == 422
    assert place in str(problem)
    assert plan.event.id in str(problem)
    assert other == 200


async def test_curating_for_a_subscription_shows_what_stands_beside_the_context(world: World) -> None:
    asked = {"view": "{n: data.n}", "facts": ["*"], "history": {}}
    await world.applied({**DOCUMENT, "subscriptions": {"bugs": {**DOCUMENT["subscriptions"]["bugs"], "context": asked}}})
    plan = await world.admit("one", body=b'{"n":1}')
    await world.call("PUT", "/v1/facts", {"thing": plan.event.partitionkey, "name": "tier", "value": "gold"})
    with_contexts(world)

    both = [await world.call("POST", "/v1/curate", {"event": plan.event.id, "subscription": "bugs"}) for _ in range(2)]

    assert both[0] == both[1]
    status, found = both[0]
    assert (status, found["context"], found["verdict"], found["sent"]) == (200, {"n": 1}, "deliver", [])
    assert found["beside"]["facts"]["tier"]["value"] == "gold"


PREFIX = {"prefix": "stripe."}


async def test_a_rule_that_names_no_types_is_tried_on_what_it_matches(world: World) -> None:
    await world.applied()
    await world.admit("one", body=b'{"n":1}')
    with_contexts(world)
    wanted = {**DOCUMENT["subscriptions"]["bugs"], "context": {"view": "{n: data.n}", "required": ["gone"]}}

    mixed, other = ({**wanted, "pattern": {"type": named}} for named in (["github.issues.opened", PREFIX], [PREFIX]))

    refused, _ = await world.call("PUT", "/v1/subscriptions/bugs", mixed, force="true")
    untried, _ = await world.call("PUT", "/v1/subscriptions/bugs", other, force="true")

    assert refused == 422
    assert untried == 200  # no kept event of that kind to try it on


async def test_what_was_cut_is_fetched_by_the_pointer_that_the_manifest_names(world: World) -> None:
    asked = {"view": "{n: data.n, text: data.text}", "max_tokens": 400, "required": ["n"]}
    await world.applied({**DOCUMENT, "subscriptions": {"bugs": {**DOCUMENT["subscriptions"]["bugs"], "context": asked}}})
    text = "words and more words " * 200
    plan = await world.admit("one", body=json.dumps({"n": 1, "text": text}).encode())
    with_contexts(world)
    run = plan.invocations[0].id
    token = world.tokens.mint(team="default", invocation_id=run, event_id=plan.event.id, expires_ms=world.now.ms + 1000)
    _, made = await world.call("POST", "/v1/curate", {"event": plan.event.id, "subscription": "bugs"})

    [cut] = made["beside"]["manifest"]["cut"]
    pointer = cut.split(" ")[0]
    status, part = await world.call("GET", f"/v1/invocations/{run}/context", who=token, pointer=pointer)
    whole = await world.call("GET", f"/v1/invocations/{run}/context", who=token)
    missing, _ = await world.call("GET", f"/v1/invocations/{run}/context", who=token, pointer="/nothing")

    assert pointer == "/text"
    assert (status, json.loads(part)) == (200, text)
    assert json.loads(whole[1]) == {"n": 1, "text": text}
    assert missing == 404
