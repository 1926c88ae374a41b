"""The dispatcher over a ledger in memory, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import pytest

from schemas.config import SubscriptionState
from schemas.errors import AgentUnreachable
from schemas.invocation import Order, State
from tests.dispatcher.world import Heard, Running, Said, World, agreeable, until
from tests.fakes.clock import run_virtually


def virtually(scenario: Callable[[World], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @wraps(scenario)
    def test() -> None:
        world = World()
        world.roster.agent("triage", max_concurrency=4, timeout_s=10)
        world.roster.subscription("bugs", "triage", retry={"first_delay": 1, "max_delay": 60, "max_attempts": 4})
        run_virtually(scenario(world), world.clock)

    del test.__wrapped__  # pytest would ask for `world` as a fixture
    return test


def states(world: World) -> set[State]:
    return set(world.ledger.states().values())


@virtually
async def test_an_offered_invocation_reaches_its_agent_and_is_done(world: World) -> None:
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await until(lambda: not world.ledger.unfinished)

    assert states(world) == {State.DONE}
    assert [heard.document["context"] for heard in world.caller.heard] == [{"n": {"sequence": 1}}]
    assert "due" in world.ledger.calls, "the first look over all"


@virtually
async def test_what_is_handed_over_in_memory_is_not_read_back(world: World) -> None:
    async with Running(world.dispatcher()) as dispatcher:
        await asyncio.sleep(0.5)
        world.ledger.calls.clear()
        dispatcher.offer([world.admit("bugs", f"k{number % 3}") for number in range(30)])
        await until(lambda: not world.ledger.unfinished)

    assert {name for name in world.ledger.calls if name not in {"hold_shards", "release_shards"}} == {"open", "settle"}


@virtually
async def test_what_was_queued_before_the_start_is_found(world: World) -> None:
    for number in range(100):
        world.admit("bugs", f"k{number % 7}")

    async with Running(world.dispatcher()):
        await until(lambda: not world.ledger.unfinished)

    assert len(world.caller.heard) == 100


@virtually
async def test_a_lane_keeps_its_order_through_retries(world: World) -> None:
    failures = {"left": 2}

    async def fails_twice(heard: Heard) -> Said:
        if failures["left"]:
            failures["left"] -= 1
            return Said(500)
        return Said()

    world.caller.scripts["triage"] = fails_twice
    async with Running(world.dispatcher()) as dispatcher:
        offered = [world.admit("bugs", "k") for _ in range(5)]
        dispatcher.offer(offered)
        await until(lambda: not world.ledger.unfinished)

    ids = [one.invocation.id for one in offered]
    assert world.caller.ids("triage") == [ids[0], ids[0], *ids]


@virtually
async def test_a_lane_that_waits_holds_no_other(world: World) -> None:
    async def fails_for_one(heard: Heard) -> Said:
        return Said(500 if heard.document["invocation"]["ordering_key"] == "bad" else 200)

    world.caller.scripts["triage"] = fails_for_one
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", key) for key in ("bad", "good", "bad", "good")])
        await until(lambda: sum(state is State.DONE for state in world.ledger.states().values()) == 2, within_s=0.5)


@virtually
async def test_retries_end_at_max_attempts_and_the_lane_goes_on(world: World) -> None:
    async def fails(heard: Heard) -> Said:
        return Said(500 if heard.document["context"]["n"]["sequence"] == 1 else 200)

    world.caller.scripts["triage"] = fails
    async with Running(world.dispatcher()) as dispatcher:
        first, second = world.admit("bugs", "k"), world.admit("bugs", "k")
        dispatcher.offer([first, second])
        await until(lambda: not world.ledger.unfinished)

    assert world.ledger.rows[first.invocation.id].state is State.BURIED
    assert world.ledger.rows[first.invocation.id].reason == "max_attempts: answered 500"
    assert world.ledger.rows[second.invocation.id].state is State.DONE
    assert [heard.document["invocation"]["attempt"] for heard in world.caller.heard] == [1, 2, 3, 4, 1]


@virtually
async def test_no_more_than_max_concurrency_run_at_once_and_that_many_do(world: World) -> None:
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", f"k{number}") for number in range(50)])
        await until(lambda: not world.ledger.unfinished)

    assert world.caller.most["triage"] == 4


@virtually
async def test_a_dead_agent_does_not_slow_another(world: World) -> None:
    async def hangs(heard: Heard) -> Said:
        await asyncio.sleep(3600)
        return Said()

    world.roster.agent("dead", max_concurrency=4, timeout_s=10)
    world.roster.subscription("to-dead", "dead")
    world.caller.scripts["dead"] = hangs
    async with Running(world.dispatcher()) as dispatcher:
        for _ in range(40):
            dispatcher.offer([world.admit("to-dead", f"d{number}") for number in range(20)])
            dispatcher.offer([world.admit("bugs", f"k{number}") for number in range(4)])
            await dispatcher.room()
            await asyncio.sleep(0.02)
        elapsed = world.clock.elapsed_s

    assert len(world.caller.ids("triage")) == 160
    assert elapsed < 2


@virtually
async def test_every_attempt_has_its_row_before_the_call(world: World) -> None:
    seen = []

    async def looks(heard: Heard) -> Said:
        row = world.ledger.rows[heard.id]
        seen.append((row.state, row.attempts, len(row.settled)))
        return Said(500 if row.attempts == 1 else 200)

    world.caller.scripts["triage"] = looks
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await until(lambda: not world.ledger.unfinished)

    assert seen == [(State.RUNNING, 1, 0), (State.RUNNING, 2, 1)]


@virtually
async def test_a_410_disables_the_subscription_and_buries(world: World) -> None:
    async def gone(heard: Heard) -> Said:
        world.roster.state("bugs", SubscriptionState.DISABLED)
        return Said(410)

    world.caller.scripts["triage"] = gone
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k"), world.admit("bugs", "k")])
        await asyncio.sleep(5)

    assert world.ledger.disabled == {"sub-bugs"}
    assert sorted(row.reason for row in world.ledger.rows.values()) == ["gone", "paused"]
    assert len(world.caller.heard) == 1


@virtually
async def test_a_paused_subscription_waits_and_a_resumed_one_goes_on_in_order(world: World) -> None:
    async with Running(world.dispatcher()) as dispatcher:
        world.roster.state("bugs", SubscriptionState.PAUSED)
        dispatcher.notice()
        await asyncio.sleep(0.1)
        offered = [world.admit("bugs", "k") for _ in range(3)]
        dispatcher.offer(offered)
        await asyncio.sleep(30)
        assert world.caller.heard == []
        assert {row.state for row in world.ledger.rows.values()} <= {State.WAITING, State.QUEUED}
        world.roster.state("bugs", SubscriptionState.LIVE)
        await until(lambda: not world.ledger.unfinished, within_s=2)

    assert world.caller.ids("triage") == [one.invocation.id for one in offered]


@virtually
async def test_resuming_while_nothing_runs_is_found_at_the_start(world: World) -> None:
    world.roster.state("bugs", SubscriptionState.PAUSED)
    async with Running(world.dispatcher("one")) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await until(lambda: [row.reason for row in world.ledger.rows.values()] == ["paused"])
    world.roster.state("bugs", SubscriptionState.LIVE)

    async with Running(world.dispatcher("two")):
        await until(lambda: not world.ledger.unfinished, within_s=5)


@virtually
async def test_invocations_of_a_subscription_that_is_gone_are_canceled(world: World) -> None:
    offered = world.admit("bugs", "k")
    world.roster.drop_subscription("bugs")

    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([offered])
        await until(lambda: not world.ledger.unfinished)

    assert states(world) == {State.CANCELED}
    assert world.caller.heard == []


@virtually
async def test_a_misconfigured_agent_is_probed_with_growing_pauses_and_released_by_itself(world: World) -> None:
    mended = {"at": 100.0}

    async def unknown_path(heard: Heard) -> Said:
        return Said(404 if heard.at_s < mended["at"] else 200)

    world.caller.scripts["triage"] = unknown_path
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", f"k{number}") for number in range(20)])
        await asyncio.sleep(0.3)
        assert dispatcher.in_memory == 0, "what is held need not be in memory"
        await asyncio.sleep(98.7)
        probes = [heard.at_s for heard in world.caller.heard]
        assert states(world) <= {State.WAITING, State.QUEUED}
        await until(lambda: not world.ledger.unfinished, within_s=62)

    assert len(probes) <= 4 + 8, "the four that were on their way, then one at a time"
    pauses = [later - earlier for earlier, later in itertools.pairwise(probes)]
    assert pauses[-1] > 4 * pauses[0]
    assert states(world) == {State.DONE}


@virtually
async def test_nothing_of_a_held_agent_is_buried_before_max_age_and_all_of_it_after(world: World) -> None:
    world.roster.subscription("bugs", "triage", retry={"first_delay": 1, "max_delay": 5, "max_attempts": 2, "max_age": 600})

    async def forbidden(heard: Heard) -> Said:
        return Said(403)

    world.caller.scripts["triage"] = forbidden
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", f"k{number % 5}") for number in range(50)])
        await asyncio.sleep(598)
        assert states(world) <= {State.WAITING, State.QUEUED}
        await until(lambda: not world.ledger.unfinished, within_s=120)

    assert states(world) == {State.BURIED}


@virtually
async def test_an_agent_that_was_not_there_gets_its_waiting_work_as_soon_as_it_is(world: World) -> None:
    world.roster.subscription("bugs", "triage", retry={"first_delay": 60, "max_delay": 3600})

    async def away(heard: Heard) -> Said:
        if heard.at_s < 300:
            raise AgentUnreachable("refused", kind="refused", sent=False)
        return Said()

    world.caller.scripts["triage"] = away
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", f"k{number}") for number in range(30)])
        await until(lambda: not world.ledger.unfinished, within_s=310)

    assert states(world) == {State.DONE}
    assert any(name == "agent_released" for name, _ in world.said)


@virtually
async def test_a_graceful_stop_lets_the_running_finish_and_gives_the_shards_back(world: World) -> None:
    async def slow(heard: Heard) -> Said:
        await asyncio.sleep(3)
        return Said()

    world.caller.scripts["triage"] = slow
    dispatcher = world.dispatcher()
    async with Running(dispatcher):
        dispatcher.offer([world.admit("bugs", f"k{number}") for number in range(10)])
        await asyncio.sleep(1)

    assert [row.state for row in world.ledger.rows.values()].count(State.DONE) == 4
    assert all(not row.owner for row in world.ledger.shards.values())
    assert world.ledger.calls[-1] == "release_shards"


@virtually
async def test_a_stop_that_cannot_wait_records_what_it_cut_off_as_unknown(world: World) -> None:
    async def slow(heard: Heard) -> Said:
        await asyncio.sleep(9)
        return Said()

    world.caller.scripts["triage"] = slow
    async with Running(world.dispatcher(grace_s=2)) as dispatcher:
        offered = world.admit("bugs", "k")
        dispatcher.offer([offered])
        await asyncio.sleep(1)

    row = world.ledger.rows[offered.invocation.id]
    assert (row.state, row.settled, row.tries) == (State.WAITING, {1: "unknown"}, 1)
    assert world.clock.elapsed_s < 4


@virtually
async def test_an_attempt_that_a_crash_left_open_is_repeated_with_the_same_id(world: World) -> None:
    async def slow(heard: Heard) -> Said:
        await asyncio.sleep(5)
        return Said()

    world.caller.scripts["triage"] = slow
    first = asyncio.create_task(world.dispatcher("one").run())
    await asyncio.sleep(1)
    offered = world.admit("bugs", "k")
    world.admit("bugs", "k")
    await asyncio.sleep(7)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    world.caller.scripts["triage"] = agreeable

    async with Running(world.dispatcher("two")):
        await until(lambda: not world.ledger.unfinished, within_s=200)

    row = world.ledger.rows[offered.invocation.id]
    assert row.state is State.DONE
    assert world.ledger.fenced == 0


@virtually
async def test_a_store_that_goes_away_in_the_middle_loses_nothing(world: World) -> None:
    async with Running(world.dispatcher()) as dispatcher:
        for _ in range(30):
            dispatcher.offer([world.admit("bugs", f"k{number}") for number in range(5)])
            await asyncio.sleep(0.01)
        world.ledger.is_down = True
        await asyncio.sleep(10)
        world.ledger.is_down = False
        await until(lambda: not world.ledger.unfinished, within_s=30)

    assert states(world) == {State.DONE}
    assert len(world.caller.heard) == 150, "an answer that could not be written down was kept, not asked for again"


@virtually
async def test_when_the_lease_cannot_be_renewed_everything_stops_before_it_ends(world: World) -> None:
    stopped = []

    async def slow(heard: Heard) -> Said:
        try:
            await asyncio.sleep(500)
        except asyncio.CancelledError:
            stopped.append(world.clock.elapsed_s)
            raise
        return Said()

    world.roster.agent("triage", max_concurrency=4, timeout_s=600)
    world.caller.scripts["triage"] = slow
    async with Running(world.dispatcher(lease_ms=30_000)) as dispatcher:
        dispatcher.offer([world.admit("bugs", f"k{number}") for number in range(3)])
        await asyncio.sleep(5)
        world.ledger.is_down = True
        await asyncio.sleep(60)
        assert len(stopped) == 3
        assert max(stopped) <= 30.0 + 0.001, "the last renewal was asked for at 0 s"
        world.ledger.is_down = False


@virtually
async def test_a_store_that_is_slow_to_grant_shards_is_waited_for(world: World) -> None:
    granted = world.ledger.hold_shards

    async def slowly(*args: Any, **more: Any) -> Any:
        await asyncio.sleep(2)  # a lease of sixty seconds is worth that
        return await granted(*args, **more)

    world.ledger.hold_shards = slowly  # type: ignore[method-assign]
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await until(lambda: not world.ledger.unfinished, within_s=20)

    assert len(world.caller.ids("triage")) == 1


@virtually
async def test_orderless_invocations_run_side_by_side(world: World) -> None:
    world.roster.subscription("bugs", "triage", order=Order.NONE)
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "same") for _ in range(10)])
        await until(lambda: not world.ledger.unfinished)

    assert world.caller.most["triage"] == 4


@virtually
async def test_what_memory_has_no_place_for_is_read_back_in_order(world: World) -> None:
    from dispatcher.lanes import Bounds

    async with Running(world.dispatcher(bounds=Bounds(max_count=10, min_share=2))) as dispatcher:
        offered = [world.admit("bugs", f"k{number % 2}") for number in range(200)]
        for one in offered:
            dispatcher.offer([one])
        assert dispatcher.in_memory <= 10
        await until(lambda: not world.ledger.unfinished)

    for key in ("k0", "k1"):
        sent = [heard.id for heard in world.caller.heard if heard.document["invocation"]["ordering_key"] == key]
        assert sent == [one.invocation.id for one in offered if one.invocation.ordering_key == key]


@virtually
async def test_room_waits_while_memory_is_full_but_never_for_long(world: World) -> None:
    from dispatcher.lanes import Bounds

    async def hangs(heard: Heard) -> Said:
        await asyncio.sleep(8)
        return Said()

    world.caller.scripts["triage"] = hangs
    async with Running(world.dispatcher(bounds=Bounds(max_count=8))) as dispatcher:
        dispatcher.offer([world.admit("bugs", f"k{number}") for number in range(8)])
        before = world.clock.elapsed_s
        await dispatcher.room()
        assert 0.9 < world.clock.elapsed_s - before < 1.1
        await asyncio.sleep(8)
        before = world.clock.elapsed_s
        await dispatcher.room()
        assert world.clock.elapsed_s == before


@virtually
async def test_an_idle_dispatcher_asks_the_ledger_seldom(world: World) -> None:
    async with Running(world.dispatcher()):
        await asyncio.sleep(10)
        world.ledger.calls.clear()
        await asyncio.sleep(600)

    asked = [name for name in world.ledger.calls if name in {"due", "next_due_ms", "next_in_lane"}]
    assert len(asked) <= 2 * 600 / 5 + 4


@virtually
async def test_the_line_of_an_attempt_says_all_there_is_to_say(world: World) -> None:
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await until(lambda: not world.ledger.unfinished)

    [(name, line)] = [said for said in world.said if said[0] == "attempt"]
    assert name == "attempt"
    assert line["agent"] == "triage"
    assert line["outcome"] == "delivered"
    assert line["trace"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert line["number"] == line["tries"] == 1


@virtually
async def test_a_context_that_cannot_be_made_is_a_failed_attempt_and_no_crash(world: World) -> None:
    dispatcher = world.dispatcher()

    def breaks(*_: Any, **__: Any) -> Any:
        raise RecursionError("deep")

    world.curator.plain = breaks
    async with Running(dispatcher):
        dispatcher.offer([world.admit("bugs", "k")])
        await until(lambda: not world.ledger.unfinished)

    [row] = world.ledger.rows.values()
    assert row.state is State.BURIED
    assert row.reason == "max_attempts: context: RecursionError: deep"
    assert world.caller.heard == []


@pytest.mark.parametrize("status", [400, 408, 422, 451])
def test_another_4xx_buries_at_once(status: int) -> None:
    world = World()
    world.roster.agent("triage")
    world.roster.subscription("bugs", "triage")

    async def refuses(heard: Heard) -> Said:
        return Said(status)

    world.caller.scripts["triage"] = refuses

    async def scenario() -> None:
        async with Running(world.dispatcher()) as dispatcher:
            dispatcher.offer([world.admit("bugs", "k")])
            await until(lambda: not world.ledger.unfinished, within_s=1)

    run_virtually(scenario(), world.clock)

    assert states(world) == {State.BURIED}
    assert len(world.caller.heard) == 1


@virtually
async def test_a_rate_is_kept_and_a_burst_allowed(world: World) -> None:
    world.roster.agent("triage", max_concurrency=50, rate_per_s=10, burst=5)
    async with Running(world.dispatcher()) as dispatcher:
        await asyncio.sleep(5)
        dispatcher.offer([world.admit("bugs", f"k{number}") for number in range(45)])
        await until(lambda: not world.ledger.unfinished)

    starts = [heard.at_s for heard in world.caller.heard]
    assert starts[-1] - starts[0] == pytest.approx(4.4, abs=0.6)
    for first, last in zip(starts, starts[10:], strict=False):
        assert last - first > 0.4


@virtually
async def test_of_latest_only_the_newest_is_delivered_and_the_others_say_so(world: World) -> None:
    world.roster.subscription("bugs", "triage", order=Order.LATEST)

    async def slow(heard: Heard) -> Said:
        await asyncio.sleep(2)
        return Said()

    world.caller.scripts["triage"] = slow
    async with Running(world.dispatcher()) as dispatcher:
        offered = [world.admit("bugs", "k") for _ in range(2)]
        dispatcher.offer(offered[:1])
        await asyncio.sleep(1)
        dispatcher.offer(offered[1:])
        offered += [world.admit("bugs", "k") for _ in range(5)]
        dispatcher.offer(offered[2:])
        await until(lambda: not world.ledger.unfinished)

    ids = [one.invocation.id for one in offered]
    assert world.caller.ids("triage") == [ids[0], ids[-1]]
    assert [world.ledger.rows[each].state for each in ids[1:-1]] == [State.SUPERSEDED] * 5
    assert {world.ledger.rows[each].reason for each in ids[1:-1]} == {ids[-1]}


@virtually
async def test_latest_finishes_what_has_started_before_the_newer_one(world: World) -> None:
    world.roster.subscription("bugs", "triage", order=Order.LATEST, retry={"first_delay": 1})

    async def fails_once(heard: Heard) -> Said:
        return Said(500 if len(world.caller.heard) == 1 else 200)

    world.caller.scripts["triage"] = fails_once
    async with Running(world.dispatcher()) as dispatcher:
        offered = [world.admit("bugs", "k")]
        dispatcher.offer(offered)
        await until(lambda: len(world.caller.heard) == 1)
        offered += [world.admit("bugs", "k") for _ in range(3)]
        dispatcher.offer(offered[1:])
        await until(lambda: not world.ledger.unfinished)

    ids = [one.invocation.id for one in offered]
    assert world.caller.ids("triage") == [ids[0], ids[0], ids[-1]]


@virtually
async def test_a_delay_holds_back_the_first_attempt(world: World) -> None:
    world.roster.subscription("bugs", "triage", delay="90s")
    async with Running(world.dispatcher()) as dispatcher:
        start = world.clock.elapsed_s
        dispatcher.offer([world.admit("bugs", "k"), world.admit("bugs", "k")])
        await until(lambda: not world.ledger.unfinished, within_s=100)

    assert world.caller.heard[0].at_s - start == pytest.approx(90, abs=0.2)


@virtually
async def test_what_was_planned_for_later_starts_when_it_is_due(world: World) -> None:
    async with Running(world.dispatcher()) as dispatcher:
        await asyncio.sleep(1)
        start = world.clock.elapsed_s
        dispatcher.offer([world.admit("bugs", "k", due_in_ms=20_000)])
        await until(lambda: not world.ledger.unfinished, within_s=100)

    assert world.caller.heard[0].at_s - start == pytest.approx(20, abs=0.1)


@virtually
async def test_an_event_that_is_too_old_expires_and_its_lane_goes_on(world: World) -> None:
    world.roster.subscription("bugs", "triage", expires_after=5, retry={"first_delay": 1, "max_delay": 1, "max_attempts": 1000})

    async def fails_for_one(heard: Heard) -> Said:
        return Said(500 if heard.document["context"]["n"]["sequence"] == 1 else 200)

    world.caller.scripts["triage"] = fails_for_one
    async with Running(world.dispatcher()) as dispatcher:
        start = world.clock.elapsed_s
        first = world.admit("bugs", "k")
        dispatcher.offer([first])
        await asyncio.sleep(4)
        second = world.admit("bugs", "k")
        dispatcher.offer([second])
        await until(lambda: not world.ledger.unfinished)

    assert world.ledger.rows[first.invocation.id].state is State.EXPIRED
    assert world.ledger.rows[second.invocation.id].state is State.DONE
    assert max(heard.at_s for heard in world.caller.heard if heard.id == first.invocation.id) < start + 5


@virtually
async def test_the_processs_own_limit_is_kept_and_shared_in_turn(world: World) -> None:
    for name in ("a", "b", "c"):
        world.roster.agent(name, max_concurrency=8)
        world.roster.subscription(f"to-{name}", name)
    async with Running(world.dispatcher(max_in_flight=4)) as dispatcher:
        for name in ("a", "b", "c"):
            dispatcher.offer([world.admit(f"to-{name}", f"k{number}") for number in range(40)])
        most = 0
        while world.ledger.unfinished:
            most = max(most, sum(world.caller.running.values()))
            await asyncio.sleep(0.004)

    assert most == 4
    firsts = [heard.agent for heard in world.caller.heard[:60]]
    assert min(firsts.count(name) for name in ("a", "b", "c")) >= 10


@virtually
async def test_after_a_bug_ended_it_the_same_dispatcher_runs_again_and_goes_on(world: World) -> None:
    dispatcher, settle, bugs = world.dispatcher(), world.ledger.settle, [KeyError("a bug")]

    async def settle_with_a_bug(settlement: Any) -> bool:
        if bugs:
            raise bugs.pop()
        return await settle(settlement)

    world.ledger.settle = settle_with_a_bug
    task = asyncio.create_task(dispatcher.run())
    await until(lambda: dispatcher.is_ready)
    dispatcher.offer([world.admit("bugs", f"k{number}") for number in range(6)])
    with pytest.raises(ExceptionGroup):
        await task
    assert not dispatcher.is_ready
    dispatcher.offer([world.admit("bugs", "late")])

    async with Running(dispatcher):
        await until(lambda: not world.ledger.unfinished, within_s=120)

    assert states(world) == {State.DONE}
    assert dispatcher.in_memory == 0


@virtually
async def test_a_mended_agent_is_probed_as_soon_as_its_setting_changes(world: World) -> None:
    world.roster.subscription("bugs", "triage", retry={"first_delay": 200, "max_delay": 300})

    async def unauthorised(heard: Heard) -> Said:
        return Said(200 if "x-key" in heard.headers else 401)

    world.caller.scripts["triage"] = unauthorised
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", f"k{number}") for number in range(3)])
        await asyncio.sleep(10)
        assert dispatcher.standings["default", "triage"].cause == "misconfigured"
        world.roster.agent("triage", max_concurrency=4, headers={"X-Key": "mended"})
        await until(lambda: bool(world.caller.heard[3:]), within_s=300)
        late = world.clock.elapsed_s
        await until(lambda: not world.ledger.unfinished, within_s=30)

    assert late < 20, "held lanes are called forward for the probe"


@virtually
async def test_being_misconfigured_uses_up_no_attempts(world: World) -> None:
    world.roster.subscription("bugs", "triage", retry={"first_delay": 1, "max_delay": 2, "max_attempts": 2})
    answers = [404, 404, 404, 404, 404, 500, 200]

    async def answer(heard: Heard) -> Said:
        return Said(answers[len(world.caller.heard) - 1])

    world.caller.scripts["triage"] = answer
    async with Running(world.dispatcher()) as dispatcher:
        dispatcher.offer([world.admit("bugs", "k")])
        await until(lambda: not world.ledger.unfinished)

    assert states(world) == {State.DONE}
    assert len(world.caller.heard) == 7


@virtually
async def test_after_a_sleep_of_the_machine_nothing_is_sent_under_a_lease_that_ran_out(world: World) -> None:
    opened, sleeps = world.ledger.open, [3600.0]

    async def open_and_sleep(opening: Any) -> bool:
        done = await opened(opening)
        world.clock.elapsed_s += sleeps.pop() if sleeps else 0
        return done

    world.ledger.open = open_and_sleep
    async with Running(world.dispatcher()) as dispatcher:
        offered = world.admit("bugs", "k")
        dispatcher.offer([offered])
        await until(lambda: not world.ledger.unfinished, within_s=10_000)

    assert world.ledger.rows[offered.invocation.id].settled == {1: "unknown", 2: "delivered"}
    assert [heard.document["invocation"]["attempt"] for heard in world.caller.heard] == [2]


@virtually
async def test_shards_are_shared_evenly_and_move_when_a_dispatcher_joins_or_goes(world: World) -> None:
    def held(owner: str) -> int:
        return sum(row.owner == owner for row in world.ledger.shards.values())

    async with Running(world.dispatcher("one", lease_ms=6_000)):
        assert held("one") == 64
        async with Running(world.dispatcher("two", lease_ms=6_000)):
            await until(lambda: held("one") == held("two") == 32, within_s=5)
        await until(lambda: held("one") == 64, within_s=10)


@virtually
async def test_two_dispatchers_together_keep_lanes_in_order(world: World) -> None:
    for name in ("a", "b", "c", "d"):
        world.roster.agent(name, max_concurrency=3)
        world.roster.subscription(f"to-{name}", name)
    offered = []
    async with Running(world.dispatcher("one", lease_ms=6_000)) as one, Running(world.dispatcher("two", lease_ms=6_000)) as two:
        for round_ in range(60):
            some = [world.admit(f"to-{name}", f"k{round_ % 2}") for name in ("a", "b", "c", "d")]
            offered += some
            one.offer(some)
            two.offer(some)
            await asyncio.sleep(0.1)
        await until(lambda: not world.ledger.unfinished)

    for lane in {one_.invocation.lane for one_ in offered}:
        wanted = [each.invocation.id for each in offered if each.invocation.lane == lane]
        assert [heard.id for heard in world.caller.heard if heard.id in set(wanted)] == wanted
