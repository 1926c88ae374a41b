"""Flow control as an agent sees it: digests, late events, blocked keys, limits and rates of a subscription."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from schemas.config import QuotaSpec
from schemas.event import Event
from schemas.invocation import Admitted, Flow, State, Wait
from tests.dispatcher.world import Heard, Running, Said, World, until
from tests.fakes.clock import run_virtually


@pytest.fixture
def world() -> World:
    return World()


def admit(world: World, subscription: str, key: str, *, lane: str = "", due_in_ms: int = 0, **flow: Any) -> Admitted:
    invocation, event = world.invocation(subscription, key, due_in_ms=due_in_ms)
    made = replace(invocation, flow=Flow(**flow) if flow else None, lane=lane or invocation.lane)
    return world.ledger.admit(made, event, {"sequence": world.sequence})


def states(world: World) -> list[tuple[str, str]]:
    return [(row.state.value, row.reason) for row in world.ledger.rows.values()]


def ended(world: World) -> bool:
    return not world.ledger.unfinished


def slow(seconds: float = 1.0) -> Any:
    async def answer(_: Heard) -> Said:
        await asyncio.sleep(seconds)
        return Said()

    return answer


# --- a blocked key


def test_after_a_burial_a_key_is_blocked_where_its_subscription_says_so(world: World) -> None:
    async def refuse_first(heard: Heard) -> Said:
        return Said(422 if heard.document["context"]["n"]["sequence"] == 1 else 200)

    async def main() -> None:
        world.roster.agent("a")
        world.roster.subscription("s", "a", on_burial="block")
        world.caller.scripts["a"] = refuse_first
        for key in ("k", "k", "other"):
            admit(world, "s", key)
        async with Running(world.dispatcher()):
            await until(lambda: len(world.caller.heard) == 2)
            await asyncio.sleep(100)

    run_virtually(main(), world.clock)

    assert states(world) == [("waiting", "blocked"), ("queued", ""), ("done", "delivered")]
    assert ("lane_blocked", "rejected: answered 422") in [(name, said.get("reason")) for name, said in world.said]


def test_a_key_that_no_longer_blocks_goes_on(world: World) -> None:
    async def refuse_first(heard: Heard) -> Said:
        return Said(422 if heard.document["context"]["n"]["sequence"] == 1 else 200)

    async def main() -> None:
        world.roster.agent("a")
        world.roster.subscription("s", "a", on_burial="block")
        world.caller.scripts["a"] = refuse_first
        for _ in range(2):
            admit(world, "s", "k")
        async with Running(world.dispatcher()):
            await until(lambda: len(world.caller.heard) == 1)
            await asyncio.sleep(1)
            world.roster.subscription("s", "a", on_burial="continue")
            await until(lambda: ended(world))

    run_virtually(main(), world.clock)

    assert [state for state, _ in states(world)] == ["buried", "done"]


def test_a_held_agents_oldest_event_blocks_its_key_when_its_time_is_over(world: World) -> None:
    async def unknown(_: Heard) -> Said:
        return Said(404)

    async def main() -> None:
        world.roster.agent("a")
        world.roster.subscription("s", "a", on_burial="block", retry={"max_age": 60, "first_delay": 1, "max_delay": 5})
        world.caller.scripts["a"] = unknown
        for _ in range(2):
            admit(world, "s", "k")
        async with Running(world.dispatcher()):
            await asyncio.sleep(600)

    run_virtually(main(), world.clock)

    assert states(world) == [("waiting", "blocked"), ("queued", "")]


# --- late events


@pytest.mark.parametrize(("then", "told"), [("flag", True), ("deliver", False)])
def test_an_agent_is_told_of_a_late_event_where_it_asked(world: World, then: str, told: bool) -> None:
    async def main() -> None:
        world.roster.agent("a")
        world.roster.subscription("s", "a", stale={"then": then})
        admit(world, "s", "k", stale='{"by":"version"}')
        async with Running(world.dispatcher()):
            await until(lambda: ended(world))

    run_virtually(main(), world.clock)

    assert world.caller.heard[0].document.get("stale") == ({"by": "version"} if told else None)


# --- digests


def digests(world: World) -> list[list[str]]:
    found = []
    for heard in world.caller.heard:
        listed = heard.document["digest"]["events"]
        assert heard.document["digest"]["count"] == len(listed)
        assert heard.document["event"]["id"] == listed[-1]["event"]["id"]
        found.append([each["event"]["id"] for each in listed])
    return found


def test_all_events_of_a_quiet_spell_are_handed_over_as_one(world: World) -> None:
    admitted: list[Event] = []

    async def main() -> None:
        world.roster.agent("a")
        world.roster.subscription("s", "a", debounce={"wait": 5, "max_wait": 60})
        dispatcher = world.dispatcher()
        async with Running(dispatcher):
            for _ in range(4):
                one = admit(world, "s", "k", due_in_ms=5_000, full_at=100)
                admitted.append(one.event)
                dispatcher.offer([one])
                await asyncio.sleep(3)
            await until(lambda: ended(world))

    run_virtually(main(), world.clock)

    assert digests(world) == [[event.id for event in admitted]]
    assert world.caller.heard[0].at_s == pytest.approx(14, abs=0.5), "the last came after 9 s, and 5 s were quiet"
    assert [state for state, _ in states(world)] == ["digested"] * 3 + ["done"]


def test_a_batch_goes_when_it_is_full_and_the_rest_when_its_time_is_over(world: World) -> None:
    admitted: list[str] = []

    async def main() -> None:
        world.roster.agent("a")
        world.roster.subscription("s", "a", batch={"max_events": 3, "max_wait": 20})
        dispatcher = world.dispatcher()
        async with Running(dispatcher):
            for number in range(5):
                one = admit(world, "s", f"k{number}", lane="s/", due_in_ms=20_000, full_at=3)
                admitted.append(one.event.id)
                if one.ahead + 1 >= 3:  # as the ledger's admission does
                    world.ledger.rows[world.ledger.lanes["s/"][0]].due_ms = world.clock.now_ms()
                dispatcher.offer([one])
                await asyncio.sleep(0.1)
            await until(lambda: ended(world))

    run_virtually(main(), world.clock)

    assert digests(world) == [admitted[:3], admitted[3:]]
    first, second = (heard.at_s for heard in world.caller.heard)
    assert first < 1
    assert 19 < second < 21.5


def test_a_digest_that_fails_is_tried_again_with_the_same_events(world: World) -> None:
    answers = iter([Said(500), Said(500)])

    async def moody(_: Heard) -> Said:
        return next(answers, Said())

    async def main() -> None:
        world.roster.agent("a")
        world.roster.subscription("s", "a", debounce={"wait": 2, "max_wait": 4}, retry={"first_delay": 1, "max_delay": 1})
        world.caller.scripts["a"] = moody
        for _ in range(2):
            admit(world, "s", "k", due_in_ms=2_000, full_at=100)
        async with Running(world.dispatcher()):
            await until(lambda: len(world.caller.heard) == 1)
            admit(world, "s", "k", due_in_ms=2_000, full_at=100)
            await until(lambda: ended(world))

    run_virtually(main(), world.clock)

    sent = digests(world)
    assert [len(each) for each in sent] == [2, 2, 2, 1]
    assert sent[0] == sent[1] == sent[2]
    assert len({heard.id for heard in world.caller.heard[:3]}) == 1


# --- limits of a subscription


def test_equal_keys_run_as_many_as_may_and_others_are_not_held_up(world: World) -> None:
    running: dict[str, int] = {}
    most: dict[str, int] = {}

    async def counted(heard: Heard) -> Said:
        limit = world.ledger.rows[heard.id].invocation.flow.limit_key
        running[limit] = running.get(limit, 0) + 1
        most[limit] = max(most.get(limit, 0), running[limit])
        await asyncio.sleep(1)
        running[limit] -= 1
        return Said()

    async def main() -> None:
        world.roster.agent("a", max_concurrency=20)
        world.roster.subscription("s", "a", concurrency={"key": "data.org", "per_key": 2})
        world.caller.scripts["a"] = counted
        offered = [admit(world, "s", f"k{n}", limit_key="busy") for n in range(40)]
        offered += [admit(world, "s", f"calm{n}", limit_key="calm") for n in range(2)]
        dispatcher = world.dispatcher()
        async with Running(dispatcher):
            dispatcher.offer(offered)
            await until(lambda: ended(world), within_s=200)

    run_virtually(main(), world.clock)

    assert most == {"busy": 2, "calm": 2}
    calm = [heard.at_s for heard in world.caller.heard if world.ledger.rows[heard.id].invocation.flow.limit_key == "calm"]
    assert max(calm) < 2, "a key that is full strands no other"
    assert world.caller.heard[-1].at_s < 25, "40 of a second each, two at a time, and no pause between them"


def test_a_subscriptions_own_cap_leaves_its_agents_other_subscriptions_alone(world: World) -> None:
    async def main() -> None:
        world.roster.agent("a", max_concurrency=10)
        world.roster.subscription("narrow", "a", concurrency={"max": 1})
        world.roster.subscription("wide", "a")
        world.caller.scripts["a"] = slow()
        for n in range(10):
            admit(world, "narrow", f"k{n}")
            admit(world, "wide", f"k{n}")
        async with Running(world.dispatcher()):
            await until(lambda: ended(world), within_s=100)

    run_virtually(main(), world.clock)

    times = {name: [] for name in ("narrow", "wide")}
    for heard in world.caller.heard:
        times[heard.document["invocation"]["subscription"]].append(heard.at_s)
    assert max(times["wide"]) < 3
    gaps = [later - earlier for earlier, later in zip(times["narrow"], times["narrow"][1:], strict=False)]
    assert min(gaps) > 0.99


def test_places_are_known_anew_after_a_crash(world: World) -> None:
    async def main() -> None:
        world.roster.agent("a", max_concurrency=10, timeout_s=3)
        world.roster.subscription("s", "a", concurrency={"max": 2})
        world.caller.scripts["a"] = slow(2)
        for n in range(8):
            admit(world, "s", f"k{n}")
        task = asyncio.create_task(world.dispatcher("first").run())
        await until(lambda: len(world.caller.heard) == 2)
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with Running(world.dispatcher("second")):
            await until(lambda: ended(world), within_s=400)

    run_virtually(main(), world.clock)

    assert {state for state, _ in states(world)} == {"done"}
    assert world.caller.most["a"] == 2


def test_a_wider_limit_counts_at_once(world: World) -> None:
    async def main() -> None:
        world.roster.agent("a", max_concurrency=10)
        world.roster.subscription("s", "a", concurrency={"max": 1})
        world.caller.scripts["a"] = slow(50)
        for n in range(5):
            admit(world, "s", f"k{n}")
        async with Running(world.dispatcher()):
            await until(lambda: len(world.caller.heard) == 1)
            await asyncio.sleep(1)
            world.roster.subscription("s", "a", concurrency={"max": 4})
            await asyncio.sleep(5)

    run_virtually(main(), world.clock)

    assert world.caller.most["a"] == 4


def test_a_subscription_has_a_rate_of_its_own(world: World) -> None:
    async def main() -> None:
        world.roster.agent("a", max_concurrency=100)
        world.roster.subscription("s", "a", rate_per_s=2)
        world.roster.subscription("free", "a")
        for n in range(20):
            admit(world, "s", f"k{n}")
            admit(world, "free", f"k{n}")
        async with Running(world.dispatcher()):
            await until(lambda: len(world.caller.heard) == 25)
            waits = {reason for state, reason in states(world) if state == State.WAITING}
            await until(lambda: ended(world), within_s=100)
        assert waits == {Wait.RATE}

    run_virtually(main(), world.clock)

    mine = [heard.at_s for heard in world.caller.heard if heard.document["invocation"]["subscription"] == "s"]
    assert len(mine) == 20
    assert mine[-1] - mine[0] == pytest.approx(9.5, abs=0.3)
    for first, last in zip(mine, mine[4:], strict=False):
        assert last - first > 1.8, "never more than two a second, whoever waits"


def test_a_probe_that_finds_no_place_leaves_its_agent_to_be_probed_again(world: World) -> None:
    async def lost(_: Heard) -> Said:
        return Said(404 if world.clock.elapsed_s < 30 else 200)

    async def main() -> None:
        world.roster.agent("a")
        world.roster.subscription("s", "a", delay=20, retry={"first_delay": 1, "max_delay": 4})
        world.roster.subscription("now", "a", retry={"first_delay": 1, "max_delay": 4})
        world.caller.scripts["a"] = lost
        admit(world, "now", "k")
        async with Running(world.dispatcher()):
            await until(lambda: len(world.caller.heard) == 1)
            for n in range(3):
                admit(world, "s", f"k{n}")
            await until(lambda: ended(world), within_s=200)

    run_virtually(main(), world.clock)

    assert {state for state, _ in states(world)} == {"done"}


# --- a team's quota


def test_a_team_makes_no_more_attempts_in_a_span_than_its_quota_however_many_serve_it() -> None:
    world = World(lease_ms=3_000)

    async def main() -> None:
        world.ledger.quotas["default"] = (10, 60_000)
        world.roster.quota = QuotaSpec(attempts=10, per=60)
        for name in "abcdefgh":
            world.roster.agent(name)
            world.roster.subscription(f"to-{name}", name)
        async with Running(world.dispatcher("first")), Running(world.dispatcher("second")):
            await asyncio.sleep(5)
            for number in range(40):
                admit(world, f"to-{'abcdefgh'[number % 8]}", f"k{number}")
            await until(lambda: ended(world), within_s=600)

    run_virtually(main(), world.clock)

    spans: dict[int, int] = {}
    for row in world.ledger.rows.values():
        (opening,) = row.opened.values()
        spans[opening.started_ms // 60_000] = spans.get(opening.started_ms // 60_000, 0) + 1
    assert sum(spans.values()) == 40
    assert max(spans.values()) == 10
    assert len(spans) <= 5


def test_a_team_without_a_quota_any_more_goes_on() -> None:
    world = World()

    async def main() -> None:
        world.ledger.quotas["default"] = (2, 60_000)
        world.roster.quota = QuotaSpec(attempts=2, per=60)
        world.roster.agent("a")
        world.roster.subscription("s", "a")
        for number in range(10):
            admit(world, "s", f"k{number}")
        async with Running(world.dispatcher()):
            await until(lambda: len(world.caller.heard) == 2)
            del world.ledger.quotas["default"]
            world.roster.quota = None
            world.roster.agent("a")
            await until(lambda: ended(world), within_s=70)

    run_virtually(main(), world.clock)

    assert len(world.caller.heard) == 10


# --- places of runs that agents accepted


def test_an_accepted_run_keeps_its_place_until_it_ends_also_over_a_restart() -> None:
    world = World(lease_ms=3_000)

    async def accept(_: Heard) -> Said:
        return Said(202)

    async def main() -> None:
        world.roster.agent("a", max_concurrency=10, supervision={"lease": 600, "max_run": 600})
        world.roster.subscription("s", "a", concurrency={"key": "data.org", "per_key": 2})
        world.caller.scripts["a"] = accept
        for number in range(6):
            admit(world, "s", f"k{number}", limit_key="org")
        async with Running(world.dispatcher("first")):
            await until(lambda: len(world.caller.heard) == 2)
            await asyncio.sleep(20)
            assert len(world.caller.heard) == 2
        async with Running(world.dispatcher("second")):
            await asyncio.sleep(20)
            assert len(world.caller.heard) == 2, "the runs of the owner before hold their places"

    run_virtually(main(), world.clock)
