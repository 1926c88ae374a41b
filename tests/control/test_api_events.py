"""Events, traces, explanations, and what is tried on them."""

from __future__ import annotations

import orjson
import pytest

from control.auth import Role
from schemas.invocation import State
from store.bodies import digest_of
from store.engine import Call
from store.ledger import Ledger
from store.prepared import Prepared
from store.tables import bodies
from tests.fakes.api_world import World
from tests.store.plans import NOW, a_settlement, an_opening


async def delivered(world: World, identity: str = "one") -> str:
    """An event that was delivered at the second attempt; gives its id."""
    plan = await world.admit(identity)
    invocation = plan.invocations[0]
    now = world.now.ms
    ledger = Ledger(world.store.engine)
    leases = {lease.shard: lease.epoch for lease in await ledger.hold_shards("me", lease_ms=60_000)}
    epoch = leases[invocation.shard]
    await ledger.open(an_opening(invocation, epoch=epoch, started_ms=now + 10))
    failed = {"reason": "retry", "due_ms": now + 100, "ended_ms": now + 50, "status": 500, "duration_ms": 40.0, "sent": True}
    assert await ledger.settle(a_settlement(invocation, State.WAITING, epoch=epoch, outcome="failed", **failed))
    await ledger.open(an_opening(invocation, number=2, epoch=epoch, started_ms=now + 100))
    won = {"ended_ms": now + 120, "status": 200, "duration_ms": 20.0, "answer": b"thanks", "sent": True, "tokens": 12}
    assert await ledger.settle(a_settlement(invocation, number=2, epoch=epoch, **won))
    return plan.event.id


async def test_an_event_is_shown_as_its_document_with_the_data_in_it(world: World) -> None:
    await world.applied()
    plan = await world.admit("one", body=b'{"n": 1, "deep": {"x": [1]}}')

    status, found = await world.call("GET", f"/v1/events/{plan.event.id}")

    assert status == 200
    assert found["data"] == {"n": 1, "deep": {"x": [1]}}
    assert (found["specversion"], found["id"], found["type"]) == ("1.0", plan.event.id, "github.issues.opened")


async def test_the_body_comes_back_byte_for_byte_as_a_download(world: World) -> None:
    await world.applied()
    body = b'{"a" : 1.0,\n "a": 2}' + b" " * 500
    plan = await world.admit("one", body=body)

    headers = {"authorization": f"Bearer {world.keys['viewer']}"}
    async with world.client.get(f"/v1/events/{plan.event.id}/body", headers=headers) as answer:
        content = await answer.read()

    assert content == body
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.content_type == "application/octet-stream"


async def test_an_event_whose_body_is_gone_says_so(world: World) -> None:
    await world.applied()
    plan = await world.admit("one")
    drop = Prepared(bodies.delete())

    def script():
        yield Call(drop)

    await world.store.engine.write(script)

    _, found = await world.call("GET", f"/v1/events/{plan.event.id}")
    status, _ = await world.call("GET", f"/v1/events/{plan.event.id}/body")
    assert digest_of(plan.event.body)
    assert (found["data"], found["flags"]) == (None, ["body_gone"])
    assert status == 404


async def test_events_are_listed_newest_first_in_pages(world: World) -> None:
    await world.applied()
    ids = [(await world.admit(str(number))).event.id for number in range(5)]

    seen, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        _, page = await world.call("GET", "/v1/events", **query)
        seen += [event["id"] for event in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen == ids[::-1]
    assert page["items"][0]["states"] == {"queued": 1}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"source": "gh"}, {"a", "b", "c"}),
        ({"source": "other"}, set()),
        ({"type": "github.issues.opened"}, {"a", "b"}),
        ({"type": "github.*"}, {"a", "b", "c"}),
        ({"type": "GITHUB.*"}, set()),
        ({"type": "github_*"}, set()),
        ({"subject": "acme/shop/*"}, {"a", "b"}),
        ({"subject": "acme/shop/issues/1"}, {"a"}),
        ({"outcome": "unmatched"}, {"c"}),
        ({"outcome": "queued"}, {"a", "b"}),
        ({"outcome": "open"}, {"a", "b"}),
        ({"outcome": "done"}, set()),
        ({"until": "2000-01-01T00:00:00Z"}, set()),
        ({"since": "2000-01-01T00:00:00Z", "type": "github.issues.*", "outcome": "open"}, {"a", "b"}),
    ],
)
async def test_events_are_filtered(world: World, query: dict[str, str], found: set[str]) -> None:
    await world.applied()
    names = {
        (await world.admit("a", subject="acme/shop/issues/1")).event.id: "a",
        (await world.admit("b", subject="acme/shop/issues/2")).event.id: "b",
        (await world.admit("c", subject="acme_shop", type="github.push", subscription=None)).event.id: "c",
    }

    status, listed = await world.call("GET", "/v1/events", **query)

    assert status == 200
    assert {names[event["id"]] for event in listed["items"]} == found


async def test_a_span_means_before_now(world: World) -> None:
    await world.applied()
    await world.admit("one")
    world.now.ms += 2 * 3_600_000

    _, narrow = await world.call("GET", "/v1/events", since="1h")
    _, wide = await world.call("GET", "/v1/events", since="3h")

    assert (len(narrow["items"]), len(wide["items"])) == (0, 1)


async def test_a_trace_tells_every_step_in_order_with_its_time(world: World) -> None:
    await world.applied()
    event_id = await delivered(world)

    status, trace = await world.call("GET", f"/v1/events/{event_id}/trace")

    assert status == 200
    steps = [(step["step"], step["after_ms"]) for step in trace["steps"]]
    assert [name for name, _ in steps] == [
        "received",
        "admitted",
        "planned",
        "attempt 1 started",
        "attempt 1 failed",
        "attempt 2 started",
        "attempt 2 delivered",
        "done",
    ]
    assert steps[-1][1] == world.now.ms + 120 - (NOW - 500)
    invocation = trace["invocations"][0]
    assert [(attempt["status"], attempt["outcome"]) for attempt in invocation["attempts"]] == [
        (500, "failed"),
        (200, "delivered"),
    ]
    assert invocation["attempts"][1]["answer"] == "thanks"
    assert trace["misses"] == []


async def test_a_trace_of_an_unmatched_event_says_why_nothing_matched(world: World) -> None:
    await world.applied()
    plan = await world.admit("one", type="github.push", subscription=None)

    _, trace = await world.call("GET", f"/v1/events/{plan.event.id}/trace")

    assert trace["misses"] == [{"subscription": "bugs", "matched": False, "reason": "type", "fields": []}]


async def test_explain_asks_one_subscription_or_all(world: World) -> None:
    await world.applied()
    plan = await world.admit("one")

    _, every = await world.call("GET", f"/v1/events/{plan.event.id}/explain")
    _, one = await world.call("GET", f"/v1/events/{plan.event.id}/explain", subscription="bugs")
    missing, _ = await world.call("GET", f"/v1/events/{plan.event.id}/explain", subscription="nobody")

    assert every["items"] == one["items"]
    assert every["items"][0]["matched"] is True
    assert missing == 404


async def test_a_pattern_is_tried_on_a_kept_event_or_a_document(world: World) -> None:
    await world.applied()
    plan = await world.admit("one")
    pattern = {"type": ["github.issues.opened"]}

    _, kept = await world.call("POST", "/v1/match", {"pattern": pattern, "event": plan.event.id}, who="viewer")
    _, given = await world.call("POST", "/v1/match", {"pattern": pattern, "event": {"type": "x"}}, who="viewer")

    assert (kept["matched"], given["matched"]) == (True, False)


async def test_a_context_is_tried_with_the_subscriptions_view_or_another(world: World) -> None:
    await world.applied()
    plan = await world.admit("one")

    _, own = await world.call("POST", "/v1/curate", {"event": plan.event.id, "subscription": "bugs"})
    _, other = await world.call("POST", "/v1/curate", {"event": plan.event.id, "view": "data"})
    both, _ = await world.call("POST", "/v1/curate", {"event": plan.event.id, "view": "data", "subscription": "bugs"})

    assert own["context"] == {"view": None, "data": {"n": 1}}
    assert other["context"]["view"] == "data"
    assert (own["tokens"], own["left_out"], both) == (7, ["/x"], 422)


async def test_records_that_were_set_aside_are_listed_for_the_default_team_alone(world: World) -> None:
    from schemas.topics import Record
    from tests.store.plans import LOG, PLACE

    record = Record(PLACE.topic, PLACE.partition, 0, "k", b"poison", {"ce_id": "x"}, 1)
    await world.admission.set_aside(LOG, record, first=0, reason="unreadable", now_ms=NOW)

    _, found = await world.call("GET", "/v1/rejected")
    _, others = await world.call("GET", "/v1/rejected", who="others")

    assert [(line["reason"], line["bytes"]) for line in found["items"]] == [("unreadable", 6)]
    assert others["items"] == []


async def test_an_agents_key_sees_the_events_that_woke_it_and_no_others(world: World) -> None:
    await world.applied()
    seen = await world.admit("one")
    unseen = await world.admit("two", subscription=None)
    await world.key(Role.AGENT, agent="triage")

    mine, document = await world.call("GET", f"/v1/events/{seen.event.id}", who="agent")
    other, _ = await world.call("GET", f"/v1/events/{unseen.event.id}", who="agent")
    listed, _ = await world.call("GET", "/v1/events", who="agent")

    assert (mine, other, listed) == (200, 404, 403)
    assert orjson.dumps(document["data"]) == b'{"n":1}'
