"""Invocations, redrives, replays, and what agents report about their runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from control.auth import Role
from schemas.invocation import Planned, State
from store.ledger import Ledger
from store.outbox import Outbox
from tests.fakes.api_world import World
from tests.store.plans import a_settlement, an_opening


async def ended(world: World, identity: str, state: str, *, reason: str = "", outcome: str = "x") -> Planned:
    """An event whose only attempt ended so."""
    plan = await running(world, identity)
    invocation = plan.invocations[0]
    ledger = Ledger(world.store.engine)
    epoch = await _epoch(ledger, invocation.shard)
    assert await ledger.settle(a_settlement(invocation, State(state), epoch=epoch, reason=reason, outcome=outcome))
    return plan


async def running(world: World, identity: str) -> Planned:
    plan = await world.admit(identity)
    invocation = plan.invocations[0]
    ledger = Ledger(world.store.engine)
    assert await ledger.open(an_opening(invocation, epoch=await _epoch(ledger, invocation.shard)))
    return plan


async def _epoch(ledger: Ledger, shard: int) -> int:
    leases = await ledger.hold_shards("me", lease_ms=60_000)
    return next(lease.epoch for lease in leases if lease.shard == shard)


async def accepted(world: World, identity: str = "one") -> tuple[str, Planned]:
    """An invocation that was done when its agent answered 202 (`accepted: done`), and its id; `token` is who holds its token."""
    plan = await ended(world, identity, "done", reason="accepted", outcome="accepted")
    world.token(plan)
    return plan.invocations[0].id, plan


async def state_of(world: World, invocation_id: str) -> tuple[str, str, str]:
    _, found = await world.call("GET", f"/v1/invocations/{invocation_id}")
    return found["state"], found["reason"], found["outcome"]


async def test_invocations_are_listed_by_what_is_asked(world: World) -> None:
    await world.applied()
    buried = await ended(world, "one", "buried")
    queued = await world.admit("two")

    _, of_state = await world.call("GET", "/v1/invocations", state="buried")
    _, of_event = await world.call("GET", "/v1/invocations", event=queued.event.id)
    _, of_agent = await world.call("GET", "/v1/invocations", agent="triage", subscription="bugs", limit=1)
    wrong, _ = await world.call("GET", "/v1/invocations", state="lost")

    assert [found["id"] for found in of_state["items"]] == [buried.invocations[0].id]
    assert [found["state"] for found in of_event["items"]] == ["queued"]
    assert len(of_agent["items"]) == 1
    assert of_agent["next_cursor"]
    assert wrong == 422


async def test_counts_tell_how_much_is_in_each_state(world: World) -> None:
    await world.applied()
    await ended(world, "one", "buried")
    await world.admit("two")
    await world.admit("three", subscription=None)

    _, found = await world.call("GET", "/v1/counts", who="viewer")

    assert found == {"events": 3, "invocations": {"buried": 1, "queued": 1}}


async def test_a_buried_invocation_is_redriven_under_its_own_id(world: World) -> None:
    await world.applied()
    plan = await ended(world, "one", "buried", reason="exhausted")
    path = f"/v1/invocations/{plan.invocations[0].id}/redrive"

    tried, _ = await world.call("POST", path, dry_run="true")
    before = await state_of(world, plan.invocations[0].id)
    status, found = await world.call("POST", path, who="operator")
    again, _ = await world.call("POST", path)

    assert (tried, before[0]) == (200, "buried")
    assert (status, found["state"]) == (200, "queued")
    assert again == 409


async def test_what_waits_is_canceled_and_what_runs_is_asked_to_stop(world: World) -> None:
    await world.applied()
    queued = (await world.admit("one")).invocations[0].id
    active = (await running(world, "two")).invocations[0].id

    status, _ = await world.call("POST", f"/v1/invocations/{queued}/cancel")
    _, asked = await world.call("POST", f"/v1/invocations/{active}/cancel")

    assert (status, asked["state"]) == (200, "running")
    assert (await state_of(world, queued))[0] == "canceled"


async def test_a_redrive_by_query_counts_first_and_is_followed_to_its_end(world: World) -> None:
    await world.applied()
    for number in range(3):
        await ended(world, str(number), "buried")

    _, tried = await world.call("POST", "/v1/redrives", {"agent": "triage", "dry_run": True})
    status, begun = await world.call("POST", "/v1/redrives", {"agent": "triage"})
    await world.bulk.work_off()
    _, done = await world.call("GET", f"/v1/redrives/{begun['id']}")
    elsewhere, _ = await world.call("GET", f"/v1/replays/{begun['id']}")

    assert (tried["state"], tried["total"], tried["id"]) == ("dry_run", 3, "")
    assert (status, begun["state"], begun["total"]) == (202, "running", 3)
    assert (done["state"], done["done"]) == ("done", 3)
    assert elsewhere == 404
    _, listed = await world.call("GET", "/v1/invocations", state="queued")
    assert len(listed["items"]) == 3


async def test_dead_letters_are_listed_counted_shown_and_redriven_by_reason(world: World) -> None:
    await world.applied()
    ident = (await ended(world, "one", "buried")).invocations[0].id

    _, listed = await world.call("GET", "/v1/dead-letters", agent="triage")
    _, none = await world.call("GET", "/v1/dead-letters", reason="gone")
    _, counts = await world.call("GET", "/v1/dead-letters/counts")
    status, shown = await world.call("GET", f"/v1/dead-letters/{ident}")
    _, tried = await world.call("POST", "/v1/redrives", {"reason": counts["items"][0]["kind"], "dry_run": True})
    _, other = await world.call("POST", "/v1/redrives", {"reason": "gone", "dry_run": True})

    assert [found["id"] for found in listed["items"]] == [ident]
    assert none["items"] == []
    assert (counts["total"], counts["items"][0]["agent"], counts["items"][0]["count"]) == (1, "triage", 1)
    assert (status, shown["id"], len(shown["exchanges"])) == (200, ident, 1)
    assert (tried["total"], other["total"]) == (1, 0)


async def test_dead_letters_are_purged_by_query_and_the_rest_stays(world: World) -> None:
    await world.applied()
    gone = [(await ended(world, str(number), "buried")).invocations[0].id for number in range(3)]
    done = (await ended(world, "done", "done")).invocations[0].id

    _, tried = await world.call("POST", "/v1/purges", {"dry_run": True})
    status, begun = await world.call("POST", "/v1/purges", {"agent": "triage"})
    await world.bulk.work_off()
    _, followed = await world.call("GET", f"/v1/purges/{begun['id']}")
    _, left = await world.call("GET", "/v1/dead-letters")
    again, _ = await world.call("POST", f"/v1/invocations/{gone[0]}/redrive")

    assert (tried["state"], tried["total"]) == ("dry_run", 3)
    assert (status, followed["state"], followed["done"]) == (202, "done", 3)
    assert left["items"] == []
    assert again == 409
    assert (await state_of(world, gone[0]))[0] == "canceled"
    assert (await state_of(world, done))[0] == "done"


async def test_one_dead_letter_is_purged_by_its_id_and_what_is_none_is_not(world: World) -> None:
    await world.applied()
    ident = (await ended(world, "one", "buried")).invocations[0].id
    done = (await ended(world, "two", "done")).invocations[0].id

    tried, _ = await world.call("DELETE", f"/v1/dead-letters/{ident}", dry_run="true")
    still, _ = await world.call("GET", f"/v1/dead-letters/{ident}")
    status, _ = await world.call("DELETE", f"/v1/dead-letters/{ident}")
    gone, _ = await world.call("GET", f"/v1/dead-letters/{ident}")
    refused, _ = await world.call("DELETE", f"/v1/dead-letters/{done}")

    assert (tried, still, status, gone, refused) == (200, 200, 200, 404, 409)


async def test_what_is_done_is_not_redriven_by_query(world: World) -> None:
    status, problem = await world.call("POST", "/v1/redrives", {"state": "done"})

    assert (status, problem["errors"][0]["place"]) == (422, "/state")


async def test_a_replay_plans_kept_events_anew_once(world: World) -> None:
    await world.applied()
    plan = await ended(world, "one", "done")
    await ended(world, "two", "done")

    status, begun = await world.call("POST", "/v1/replays", {"event": plan.event.id})
    await world.bulk.work_off()
    await world.bulk.work_off()
    _, done = await world.call("GET", f"/v1/replays/{begun['id']}")

    assert (status, begun["total"]) == (202, 1)
    assert (done["state"], done["done"]) == ("done", 1)
    _, listed = await world.call("GET", "/v1/invocations", event=plan.event.id)
    assert [found["replay_id"] for found in listed["items"]] == [begun["id"], ""]


async def test_a_replay_goes_on_after_a_restart_where_it_was(world: World) -> None:
    from control import bulk

    await world.applied()
    for number in range(3):
        await ended(world, str(number), "done")
    _, begun = await world.call("POST", "/v1/replays", {"type": "github.*"})
    fresh = bulk.BulkRunner(world.desk)

    task = asyncio.create_task(fresh.run())
    while (await world.call("GET", f"/v1/replays/{begun['id']}"))[1]["state"] == "running":
        await asyncio.sleep(0)
    task.cancel()

    _, done = await world.call("GET", f"/v1/replays/{begun['id']}")
    assert (done["state"], done["done"]) == ("done", 3)


async def test_a_replay_of_what_is_not_there_is_not_found(world: World) -> None:
    await world.applied()

    event, _ = await world.call("POST", "/v1/replays", {"event": "evt_none"})
    subscription, _ = await world.call("POST", "/v1/replays", {"subscription": "nobody"})

    assert (event, subscription) == (404, 404)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [("done", "done"), ("declined", "declined"), ("needs_human", "done"), ("failed", "buried"), ("unsure", "done")],
)
async def test_an_accepted_run_is_completed_by_its_token(world: World, outcome: str, state: str) -> None:
    await world.applied()
    ident, _ = await accepted(world)
    body: dict[str, Any] = {"outcome": outcome, "note": "as seen", "result": {"pr": 7}, "usage": {"input_tokens": 12}}

    status, found = await world.call("POST", f"/v1/invocations/{ident}/complete", body, who="token")
    again, _ = await world.call("POST", f"/v1/invocations/{ident}/complete", body, who="token")

    assert (status, found["state"], again) == (200, state, 200)
    assert await state_of(world, ident) == (state, "reported: as seen", outcome)
    told = [outcome.body for outcome in await Outbox(world.store.engine).pending()]
    assert b'"pr": 7' in told[-1]
    assert len(told) == 2


async def test_another_report_after_the_first_is_refused(world: World) -> None:
    await world.applied()
    ident, _ = await accepted(world)
    await world.call("POST", f"/v1/invocations/{ident}/complete", {"outcome": "done"}, who="token")

    status, problem = await world.call("POST", f"/v1/invocations/{ident}/complete", {"outcome": "declined"}, who="token")

    assert (status, problem["code"], problem["state"]) == (409, "conflict", "done")
    assert await state_of(world, ident) == ("done", "reported", "done")


@pytest.mark.parametrize(("state", "word"), [("done", "answer 202"), ("queued", "queued")])
async def test_a_report_that_nobody_awaits_is_refused_with_the_reason(world: World, state: str, word: str) -> None:
    await world.applied()
    makers = {"queued": World.admit}
    plan = await (makers[state](world, "one") if state in makers else ended(world, "one", "done", outcome="delivered"))
    world.token(plan)

    status, problem = await world.call("POST", f"/v1/invocations/{plan.invocations[0].id}/complete", {}, who="token")

    assert status == 409
    assert word in problem["detail"]


async def test_a_retryable_failure_is_tried_again_and_another_is_buried(world: World) -> None:
    await world.applied()
    again, _ = await accepted(world, "one")

    _, retried = await world.call("POST", f"/v1/invocations/{again}/fail", {"error": "no memory"}, who="token")
    lost, _ = await accepted(world, "two")
    _, buried = await world.call("POST", f"/v1/invocations/{lost}/fail", {"retryable": False, "error": "no"}, who="token")

    assert (retried["retried"], (await state_of(world, again))[0]) == (True, "queued")
    assert buried["retried"] is False
    assert await state_of(world, lost) == ("buried", "reported: no", "failed")


async def test_a_failure_beyond_the_allowed_attempts_is_buried(world: World) -> None:
    await world.applied()
    await world.call(
        "PUT", "/v1/subscriptions/bugs", {"agent": "triage", "pattern": {}, "retry": {"max_attempts": 1}}, force="true"
    )
    ident, _ = await accepted(world)

    _, found = await world.call("POST", f"/v1/invocations/{ident}/fail", {}, who="token")

    assert (found["retried"], found["state"]) == (False, "buried")


async def test_a_heartbeat_says_where_the_run_stands_and_whether_to_stop(world: World) -> None:
    await world.applied()
    plan = await running(world, "one")
    world.token(plan)
    other = await world.admit("two")
    world.token(other, who="other")
    await world.call("POST", f"/v1/invocations/{other.invocations[0].id}/cancel")

    status, beat = await world.call("POST", f"/v1/invocations/{plan.invocations[0].id}/heartbeat", who="token")
    _, stop = await world.call("POST", f"/v1/invocations/{other.invocations[0].id}/heartbeat", {}, who="other")

    assert (status, beat["state"], beat["stop"]) == (200, "accepted", False)
    assert beat["deadline_at"]
    assert (stop["state"], stop["stop"]) == ("canceled", True)


async def test_a_status_is_kept_for_people(world: World) -> None:
    await world.applied()
    ident, _ = await accepted(world)

    status, _ = await world.call("POST", f"/v1/invocations/{ident}/status", {"tried": "logs", "next": "tests"}, who="token")

    _, shown = await world.call("GET", f"/v1/invocations/{ident}")
    assert status == 200
    assert (shown["run"]["tried"], shown["run"]["next"]) == ("logs", "tests")


async def test_a_checkpoint_of_a_run_that_nobody_watches_is_refused_rather_than_forgotten(world: World) -> None:
    await world.applied()
    ident, _ = await accepted(world)

    status, problem = await world.call("POST", f"/v1/invocations/{ident}/checkpoint", {"checkpoint": {}}, who="token")

    assert (status, problem["code"]) == (409, "conflict")


async def test_a_token_opens_its_own_invocation_and_event_and_nothing_else(world: World) -> None:
    await world.applied()
    mine = await running(world, "one")
    other = await running(world, "two")
    world.token(mine)

    async def status(method: str, path: str) -> int:
        return (await world.call(method, path, who="token"))[0]

    assert await status("GET", f"/v1/events/{mine.event.id}") == 200
    assert await status("GET", f"/v1/events/{mine.event.id}/body") == 200
    assert await status("GET", f"/v1/invocations/{mine.invocations[0].id}") == 200
    assert await status("GET", f"/v1/events/{other.event.id}") == 404
    assert await status("GET", f"/v1/invocations/{other.invocations[0].id}") == 404
    assert await status("POST", f"/v1/invocations/{other.invocations[0].id}/heartbeat") == 404
    assert await status("GET", f"/v1/events/{mine.event.id}/trace") == 403
    assert await status("GET", "/v1/events") == 403


async def test_an_expired_token_opens_nothing(world: World) -> None:
    await world.applied()
    plan = await running(world, "one")
    world.token(plan, expires_ms=world.now.ms)

    status, _ = await world.call("GET", f"/v1/events/{plan.event.id}", who="token")

    assert status == 401


async def test_an_agents_key_reports_for_its_own_agent_alone(world: World) -> None:
    await world.applied()
    ident, _ = await accepted(world)
    await world.call("PUT", "/v1/agents/other", {"url": "https://other.example.com/"})
    await world.key(Role.AGENT, agent="triage", who="mine")
    await world.key(Role.AGENT, agent="other", who="foreign")

    foreign, _ = await world.call("POST", f"/v1/invocations/{ident}/complete", {}, who="foreign")
    mine, _ = await world.call("POST", f"/v1/invocations/{ident}/complete", {}, who="mine")

    assert (foreign, mine) == (404, 200)
