"""Runs under supervision, by the API: what agents say of them, early, twice or late; what people ask of them; work that is fetched."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from control.auth import Role
from schemas.invocation import Planned, State
from schemas.ledger import RunTerms
from schemas.times import iso
from store.engine import Call, OneStep
from store.ledger import Ledger
from store.outbox import Outbox
from store.prepared import Prepared
from tests.control.test_api_work import running, state_of
from tests.fakes.api_world import DOCUMENT, World
from tests.store.plans import a_settlement, an_opening

SPAN_MS, LONGEST_MS = 300_000, 3_600_000
PULLED = {**DOCUMENT, "agents": {"triage": {"protocol": "pull", "supervision": {"lease": "20s", "max_run": "1m"}}}}


async def accepted(world: World, identity: str = "one", *, offer: bytes | None = None) -> tuple[str, Planned]:
    """A run that lives, and the invocation's id; `token` holds the token of its first attempt."""
    plan = await running(world, identity)
    ledger, invocation, now = Ledger(world.store.engine), plan.invocations[0], world.now.ms
    leases = {lease.shard: lease.epoch for lease in await ledger.hold_shards("me", lease_ms=60_000)}
    settlement = a_settlement(invocation, State.ACCEPTED, epoch=leases[invocation.shard], outcome="accepted", ended_ms=now)
    terms = RunTerms(SPAN_MS, now + LONGEST_MS, offer)
    reason = "" if offer is None else "offered"
    assert await ledger.settle(replace(settlement, run=terms, due_ms=now + SPAN_MS, reason=reason))
    world.token(plan, expires_ms=now + 10 * LONGEST_MS)
    return invocation.id, plan


async def say(world: World, ident: str, call: str, body: Any = None, *, who: str = "token") -> tuple[int, Any]:
    return await world.call("POST", f"/v1/invocations/{ident}/{call}", {} if body is None else body, who=who)


async def run_of(world: World, ident: str) -> Any:
    return (await world.call("GET", f"/v1/invocations/{ident}"))[1]["run"]


async def test_a_heartbeat_carries_the_run_for_another_lease_and_never_beyond_its_longest_time(world: World) -> None:
    await world.applied()
    ident, _ = await accepted(world)
    begun = world.now.ms

    world.now.ms += 100_000
    _, first = await say(world, ident, "heartbeat")
    world.now.ms = begun + LONGEST_MS - 1_000
    _, last = await say(world, ident, "heartbeat")

    assert (first["state"], first["stop"], first["signal"]) == ("accepted", False, "")
    assert first["lease_until"] == iso(begun + 100_000 + SPAN_MS)
    assert last["lease_until"] == last["deadline_at"] == iso(begun + LONGEST_MS)


@pytest.mark.parametrize(
    ("outcome", "state", "reason"),
    [
        ("done", "done", "reported: as seen"),
        ("declined", "declined", "reported: as seen"),
        ("needs_human", "waiting", "human"),
        ("failed", "buried", "reported: as seen"),
        ("unsure", "done", "reported: as seen"),
    ],
)
async def test_a_run_ends_by_its_agents_word_and_the_same_word_may_come_again(
    world: World, outcome: str, state: str, reason: str
) -> None:
    await world.applied()
    ident, plan = await accepted(world)
    usage = {"input_tokens": 12, "output_tokens": 3, "cost": 0.02, "currency": "EUR"}
    body = {"outcome": outcome, "note": "as seen", "result": {"pr": 7}, "usage": usage}

    status, found = await say(world, ident, "complete", body)
    again, _ = await say(world, ident, "complete", body)
    other, _ = await say(world, ident, "fail", {"error": "x", "retryable": False})

    assert (status, found["state"], again, other) == (200, state, 200, 409)
    assert await state_of(world, ident) == (state, reason, outcome)
    told = [orjson.loads(each.body) for each in await Outbox(world.store.engine).pending()]
    assert [(each["outcome"], each["report"]["result"], each["report"]["usage"]) for each in told] == [
        (outcome, {"pr": 7}, usage)
    ]
    _, trace = await world.call("GET", f"/v1/events/{plan.event.id}/trace")
    assert f"run 1 {outcome}" in [step["step"] for step in trace["steps"]]


@pytest.mark.parametrize("call", ["heartbeat", "checkpoint", "status"])
async def test_a_sign_of_life_before_the_202_begins_the_run_and_the_202_finds_it_alive(world: World, call: str) -> None:
    await world.applied()
    plan = await running(world, "one")
    invocation = plan.invocations[0]
    world.token(plan)

    status, early = await say(world, invocation.id, call, {"checkpoint": {"step": 1}} if call == "checkpoint" else None)
    ledger = Ledger(world.store.engine)
    epoch = next(each.epoch for each in await ledger.hold_shards("me", lease_ms=60_000) if each.shard == invocation.shard)
    answer = a_settlement(invocation, State.ACCEPTED, epoch=epoch, outcome="accepted", status=202, duration_ms=4.0, tokens=9)
    settled = await ledger.settle(
        replace(answer, run=RunTerms(SPAN_MS, world.now.ms + LONGEST_MS), due_ms=world.now.ms + SPAN_MS)
    )
    done, _ = await say(world, invocation.id, "complete")

    assert (status, early["state"], early["stop"], settled, done) == (200, "accepted", False, True, 200)
    _, shown = await world.call("GET", f"/v1/invocations/{invocation.id}")
    assert (shown["state"], shown["attempts"][0]["status"], shown["attempts"][0]["outcome"]) == ("done", 202, "accepted")


async def test_silence_of_the_call_does_not_end_a_run_that_lives_and_an_answer_does(world: World) -> None:
    await world.applied()
    ledger = Ledger(world.store.engine)
    states = {}
    for outcome, state in (("unknown", State.WAITING), ("failed", State.WAITING), ("delivered", State.DONE)):
        plan = await running(world, outcome)
        invocation = plan.invocations[0]
        world.token(plan)
        await say(world, invocation.id, "heartbeat")
        epoch = next(each.epoch for each in await ledger.hold_shards("me", lease_ms=60_000) if each.shard == invocation.shard)
        await ledger.settle(
            a_settlement(invocation, state, epoch=epoch, outcome=outcome, reason="retry", due_ms=world.now.ms + 5)
        )
        states[outcome] = (await state_of(world, invocation.id))[0]

    assert states == {"unknown": "accepted", "failed": "waiting", "delivered": "done"}


async def test_a_report_before_the_202_counts_and_the_answer_that_follows_fills_in_its_attempt(world: World) -> None:
    await world.applied()
    plan = await running(world, "one")
    invocation = plan.invocations[0]
    world.token(plan)

    status, _ = await say(world, invocation.id, "complete", {"note": "quick"})
    ledger = Ledger(world.store.engine)
    epoch = next(each.epoch for each in await ledger.hold_shards("me", lease_ms=60_000) if each.shard == invocation.shard)
    late = await ledger.settle(
        a_settlement(invocation, State.WAITING, epoch=epoch, outcome="failed", status=500, duration_ms=7.0)
    )

    _, shown = await world.call("GET", f"/v1/invocations/{invocation.id}")
    assert (status, late, shown["state"], shown["reason"]) == (200, False, "done", "reported: quick")
    assert [(each["outcome"], each["status"], each["duration_ms"]) for each in shown["attempts"]] == [("accepted", 500, 7.0)]


async def test_a_checkpoint_is_kept_for_the_next_attempt_and_has_a_bound(world: World) -> None:
    await world.applied()
    ident, plan = await accepted(world)

    status, kept = await say(world, ident, "checkpoint", {"checkpoint": {"step": 5, "seen": ["a"]}})
    large, problem = await say(world, ident, "checkpoint", {"checkpoint": "x" * 20_000})
    await say(world, ident, "fail", {"error": "no memory"})
    head = await Ledger(world.store.engine).next_in_lane(plan.invocations[0].lane)

    assert (status, kept["kept"], large, problem["code"]) == (200, True, 413, "too_large")
    assert head is not None
    assert head.run is not None
    assert head.run.checkpoint == b'{"step":5,"seen":["a"]}'


async def test_a_retryable_failure_waits_for_its_schedule_and_a_final_one_is_buried(world: World) -> None:
    await world.applied()
    first, _ = await accepted(world, "one")
    second, _ = await accepted(world, "two")
    await world.key(Role.AGENT, agent="triage", who="mine")

    _, retried = await say(world, first, "fail", {"error": "no memory"}, who="mine")
    _, buried = await say(world, second, "fail", {"error": "no", "retryable": False}, who="mine")

    assert (retried["retried"], retried["state"], retried["reason"]) == (True, "waiting", "retry")
    assert retried["due_at"]
    assert (buried["retried"], buried["state"], buried["due_at"]) == (False, "buried", None)


async def test_an_attempt_that_another_has_taken_over_changes_nothing(world: World) -> None:
    await world.applied()
    ident, plan = await accepted(world)
    await say(world, ident, "fail", {"error": "again"})
    world.token(plan, who="second", attempt=2)
    ledger, invocation = Ledger(world.store.engine), plan.invocations[0]
    epoch = next(each.epoch for each in await ledger.hold_shards("me", lease_ms=60_000) if each.shard == invocation.shard)
    assert await ledger.open(an_opening(invocation, number=2, epoch=epoch))

    late, problem = await say(world, ident, "complete", {"note": "from the first"})
    _, beat = await say(world, ident, "heartbeat")
    mine, _ = await say(world, ident, "complete", {"note": "from the second"}, who="second")

    assert (late, "attempt 2" in problem["detail"], beat["stop"], mine) == (409, True, True, 200)
    assert await state_of(world, ident) == ("done", "reported: from the second", "done")


async def test_what_is_asked_to_stop_hears_of_it_at_its_next_heartbeat_and_says_so(world: World) -> None:
    await world.applied()
    ident, _ = await accepted(world)

    unasked, _ = await say(world, ident, "complete", {"outcome": "stopped"})
    await world.call("POST", f"/v1/invocations/{ident}/cancel")
    _, beat = await say(world, ident, "heartbeat")
    stopped, _ = await say(world, ident, "complete", {"outcome": "stopped", "note": "cleaned up"})

    assert (unasked, beat["signal"], beat["stop"], stopped) == (409, "cancel", True, 200)
    assert await state_of(world, ident) == ("canceled", "canceled by an operator", "stopped")


async def test_a_forced_cancel_ends_the_run_here_and_now(world: World) -> None:
    await world.applied()
    ident, _ = await accepted(world)

    _, forced = await world.call("POST", f"/v1/invocations/{ident}/cancel", force="true")
    _, beat = await say(world, ident, "heartbeat")
    late, _ = await say(world, ident, "complete")

    assert (forced["state"], beat["stop"], late) == ("canceled", True, 409)


async def test_a_newer_event_of_its_key_reaches_a_running_agent_where_the_order_is_latest(world: World) -> None:
    await world.applied()
    ident, plan = await accepted(world)
    await world.store.engine.write(OneStep(Call(Prepared(text("UPDATE invocations SET ordering = 'latest'")))))
    _, alone = await say(world, ident, "heartbeat")
    newer = await world.admit("two", partitionkey=plan.event.partitionkey)
    _, beat = await say(world, ident, "heartbeat")
    _, stopped = await say(world, ident, "complete", {"outcome": "stopped"})

    assert (alone["signal"], beat["signal"], beat["stop"], beat["newer_event"]) == ("", "supersede", False, newer.event.id)
    assert stopped["state"] == "superseded"


@pytest.mark.parametrize(
    ("word", "state"), [("done", "done"), ("declined", "declined"), ("failed", "buried"), ("again", "queued")]
)
async def test_what_waits_for_a_person_is_listed_and_goes_the_way_that_one_says(world: World, word: str, state: str) -> None:
    await world.applied()
    ident, _ = await accepted(world)
    await say(world, ident, "complete", {"outcome": "needs_human", "note": "which customer?"})

    _, waiting = await world.call("GET", "/v1/invocations", state="waiting")
    status, found = await world.call("POST", f"/v1/invocations/{ident}/resolve", {"outcome": word, "note": "asked them"})
    twice, _ = await world.call("POST", f"/v1/invocations/{ident}/resolve", {"outcome": word})

    assert [(each["id"], each["reason"], each["outcome"]) for each in waiting["items"]] == [(ident, "human", "needs_human")]
    assert (status, found["state"], twice) == (200, state, 409)
    assert (await state_of(world, ident))[1] == "resolved by admin: asked them"


async def test_offered_work_is_fetched_once_and_its_token_reports(world: World) -> None:
    await world.applied(PULLED)
    await world.key(Role.AGENT, agent="triage", who="mine")
    document = {"invocation": {"id": "x", "attempt": 1, "deadline": "-"}, "context": {"n": 1}, "links": {"token": "old"}}
    ident, _ = await accepted(world, offer=orjson.dumps(document))

    status, found = await world.call("POST", "/v1/agents/triage/leases", {"max": 5, "wait_s": 0, "worker": "w1"}, who="mine")
    _, none = await world.call("POST", "/v1/agents/triage/leases", {"wait_s": 0}, who="mine")
    world.keys["leased"] = found["items"][0]["delivery"]["links"]["token"]
    _, beat = await say(world, ident, "heartbeat", who="leased")
    done, _ = await say(world, ident, "complete", {"result": 1}, who="leased")

    assert (status, [each["invocation"] for each in found["items"]], none["items"]) == (200, [ident], [])
    assert found["items"][0]["delivery"]["context"] == {"n": 1}
    assert (beat["state"], beat["stop"], done) == ("accepted", False, 200)
    assert (await run_of(world, ident))["worker"] == "w1"


async def test_a_poll_waits_and_is_answered_as_soon_as_there_is_something(world: World) -> None:
    await world.applied(PULLED)
    await world.key(Role.AGENT, agent="triage", who="mine")

    poll = asyncio.create_task(world.call("POST", "/v1/agents/triage/leases", {"wait_s": 30}, who="mine"))
    await asyncio.sleep(0.2)
    ident, _ = await accepted(world, offer=b'{"invocation":{},"links":{}}')
    async with asyncio.timeout(5):
        _, found = await poll

    assert [each["invocation"] for each in found["items"]] == [ident]


async def test_a_stream_hands_work_over_and_holds_no_more_than_was_asked_for(world: World) -> None:
    await world.applied(PULLED)
    await world.key(Role.AGENT, agent="triage", who="mine")
    first, _ = await accepted(world, "one", offer=b'{"invocation":{},"links":{}}')
    second, _ = await accepted(world, "two", offer=b'{"invocation":{},"links":{}}')
    headers = {"authorization": f"Bearer {world.keys['mine']}"}

    async with asyncio.timeout(10), world.client.get("/v1/agents/triage/leases/stream?max=1", headers=headers) as stream:
        heard = [line async for line in _leases(stream.content, 1)]
        await say(world, first, "complete", who="mine")
        heard += [line async for line in _leases(stream.content, 1)]

    assert stream.headers["content-type"] == "text/event-stream"
    assert heard == [first, second]


async def _leases(content: Any, count: int) -> Any:
    while count:
        line = (await content.readline()).decode()
        if line.startswith("id: "):
            count -= 1
            yield line[4:].strip()


@pytest.mark.parametrize(
    ("who", "agent", "status"), [("foreign", "triage", 404), ("mine", "nobody", 404), ("mine", "other", 404)]
)
async def test_work_is_fetched_by_its_own_agent_alone(world: World, who: str, agent: str, status: int) -> None:
    await world.applied({**PULLED, "agents": {**PULLED["agents"], "other": DOCUMENT["agents"]["triage"]}})
    await world.key(Role.AGENT, agent="triage", who="mine")
    await world.key(Role.AGENT, agent="other", who="foreign")

    assert (await world.call("POST", f"/v1/agents/{agent}/leases", {"wait_s": 0}, who=who))[0] == status


async def test_an_agent_that_is_called_has_nothing_to_fetch(world: World) -> None:
    await world.applied()

    status, problem = await world.call("POST", "/v1/agents/triage/leases", {"wait_s": 0})

    assert (status, problem["code"]) == (409, "conflict")


@pytest.mark.parametrize(("agent", "place"), [({"protocol": "pull", "url": "https://x.example/"}, "/url"), ({}, "/url")])
async def test_a_pull_agent_has_no_address_and_any_other_has_one(world: World, agent: dict[str, str], place: str) -> None:
    status, problem = await world.call("PUT", "/v1/agents/new", agent)

    assert (status, problem["errors"][0]["place"]) == (422, place)


async def test_a_pull_agent_is_made_without_a_secret_to_show(world: World) -> None:
    _, plan = await world.call("PUT", "/v1/agents/new", {"protocol": "pull"})

    assert plan["secrets"] == {}
    assert "secret" not in plan["changes"][0]["fields"]
