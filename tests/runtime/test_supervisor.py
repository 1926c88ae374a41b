import asyncio
import os
import signal

import pytest
import structlog

from runtime.health import Health
from runtime.supervisor import Part, Patience, Supervisor
from schemas.errors import CursorLost, StoreUnavailable


@pytest.fixture
def lines():
    with structlog.testing.capture_logs() as captured:
        yield captured


class Clock:
    """Time passes only when somebody sleeps."""

    def __init__(self):
        self.now = 0.0
        self.slept = []

    def __call__(self):
        return self.now

    async def sleep(self, pause_s):
        self.slept.append(pause_s)
        self.now += pause_s
        await asyncio.sleep(0)


def supervisor(*parts, clock=None, health=None, **patience):
    clock = clock or Clock()
    return Supervisor(parts, health=health, patience=Patience(**patience), clock=clock, sleep=clock.sleep)


async def forever():
    await asyncio.Event().wait()


def stoppable(name, stopped):
    """A part that goes on until it is stopped, and notes when."""
    asked = asyncio.Event()

    async def stop():
        asked.set()

    async def run():
        await asked.wait()
        stopped.append(name)

    return Part(name, run, stop)


async def test_asked_to_stop_it_stops_the_parts_in_order_and_ends_with_0(lines):
    stopped = []

    def closed(name):
        async def stop():
            stopped.append(name)

        return Part(name, None, stop)

    workers = [stoppable(name, stopped) for name in ("ingest", "router", "dispatcher")]
    subject = supervisor(*workers, Part("onlooker", forever), closed("log"), closed("store"))
    running = asyncio.ensure_future(subject.run())
    await asyncio.sleep(0)

    subject.request_stop()

    assert await running == 0
    assert stopped == ["ingest", "router", "dispatcher", "log", "store"]
    assert [line["event"] for line in lines] == ["draining", "stopped"]


async def test_a_crashed_worker_starts_again_after_a_growing_pause(lines):
    clock, runs = Clock(), []

    async def crashes():
        runs.append(clock.now)
        if len(runs) == 4:
            subject.request_stop()
            await forever()
        raise ZeroDivisionError

    subject = supervisor(Part("router", crashes), clock=clock)

    assert await subject.run() == 0
    assert clock.slept == [0.25, 0.5, 1.0]
    assert [line["event"] for line in lines][:3] == ["worker_crashed"] * 3
    assert lines[0]["worker"] == "router"


async def test_a_worker_that_ran_calmly_begins_with_the_short_pause_again():
    clock, runs = Clock(), []

    async def crashes():
        runs.append(clock.now)
        if len(runs) == 3:
            clock.now += 100
        if len(runs) == 4:
            subject.request_stop()
            await forever()
        raise ZeroDivisionError

    subject = supervisor(Part("router", crashes), clock=clock)
    await subject.run()

    assert clock.slept == [0.25, 0.5, 0.25]


async def test_too_many_crashes_in_a_short_time_end_the_process(lines):
    health = Health()
    stopped = []

    async def crashes():
        raise ZeroDivisionError

    async def stop():
        stopped.append("log")

    subject = supervisor(Part("router", crashes), Part("log", None, stop), crash_limit=3, crash_window_s=60, health=health)

    assert await subject.run() == 1
    assert stopped == ["log"]
    assert not health.live().is_ok
    assert "crash_limit" in [line["event"] for line in lines]


async def test_as_many_crashes_over_a_long_time_do_not():
    clock, runs = Clock(), []

    async def crashes():
        runs.append(1)
        clock.now += 40
        if len(runs) == 8:
            subject.request_stop()
            await forever()
        raise ZeroDivisionError

    subject = supervisor(Part("router", crashes), clock=clock, crash_limit=3, crash_window_s=60)

    assert await subject.run() == 0


@pytest.mark.parametrize(("error", "event"), [(StoreUnavailable, "worker_waits"), (CursorLost, "worker_held")])
async def test_what_is_no_bug_is_tried_for_ever_and_shown(lines, error, event):
    health, runs = Health(clock=lambda: 0), []

    async def fails():
        runs.append((await health.ready()).checks)
        if len(runs) == 20:
            subject.request_stop()
            await forever()
        raise error

    subject = supervisor(Part("router", fails), crash_limit=3, health=health)

    assert await subject.run() == 0
    assert {line["event"] for line in lines} == {event, "draining", "stopped"}
    assert all(checks == {} for checks in runs)


async def test_while_it_waits_to_start_again_the_process_is_not_ready():
    health = Health(clock=lambda: 0)
    seen = []

    async def crashes():
        raise StoreUnavailable

    async def sleep(_):
        seen.append((await health.ready()).checks)
        subject.request_stop()

    subject = Supervisor([Part("router", crashes)], health=health, sleep=sleep)
    await subject.run()

    assert seen == [{"router": "store_unavailable"}]


async def test_a_worker_that_ends_by_itself_counts_as_crashed(lines):
    async def ends():
        return

    await supervisor(Part("router", ends), crash_limit=2).run()

    assert "ended by itself" in str(lines[0]["exc_info"])


async def test_asked_twice_it_stops_at_once(lines):
    async def hangs():
        await asyncio.Event().wait()

    subject = supervisor(Part("dispatcher", forever, hangs))
    running = asyncio.ensure_future(subject.run())
    await asyncio.sleep(0)
    subject.request_stop()
    await asyncio.sleep(0)
    subject.request_stop()

    assert await running == 1
    assert "stopped_at_once" in [line["event"] for line in lines]


async def test_a_part_that_cannot_stop_does_not_keep_the_others_from_stopping(lines):
    stopped = []

    async def breaks():
        raise ZeroDivisionError

    async def stop():
        stopped.append("store")

    subject = supervisor(Part("log", forever, breaks), Part("store", None, stop))
    running = asyncio.ensure_future(subject.run())
    await asyncio.sleep(0)
    subject.request_stop()

    assert await running == 1
    assert stopped == ["store"]
    assert "part_stop_failed" in [line["event"] for line in lines]


async def test_a_part_that_hangs_is_left_behind_when_the_time_is_over(lines):
    stopped = []

    async def hangs():
        await asyncio.Event().wait()

    async def stop():
        stopped.append("store")

    subject = supervisor(Part("dispatcher", forever, hangs), Part("store", None, stop), drain_timeout_s=0)
    running = asyncio.ensure_future(subject.run())
    await asyncio.sleep(0)
    subject.request_stop()

    assert await running == 0
    assert stopped == ["store"]
    assert "part_stop_timed_out" in [line["event"] for line in lines]


async def test_a_worker_may_return_once_its_stop_was_called():
    ended = asyncio.Event()

    async def stop():
        ended.set()

    async def run():
        await ended.wait()

    subject = supervisor(Part("router", run, stop))
    running = asyncio.ensure_future(subject.run())
    await asyncio.sleep(0)
    subject.request_stop()

    assert await running == 0


async def test_sigterm_drains():
    stopped = []

    async def kills():
        os.kill(os.getpid(), signal.SIGTERM)
        await forever()

    assert await supervisor(Part("killer", kills), stoppable("ingest", stopped)).run() == 0
    assert stopped == ["ingest"]


async def test_what_is_under_way_is_waited_for_before_the_next_part_stops():
    steps = []
    asked = asyncio.Event()

    async def stop():
        asked.set()

    async def run():
        await asked.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        steps.append("the last attempt ended")

    async def close():
        steps.append("the store closed")

    subject = supervisor(Part("dispatcher", run, stop), Part("store", None, close))
    running = asyncio.ensure_future(subject.run())
    await asyncio.sleep(0)
    subject.request_stop()

    assert await running == 0
    assert steps == ["the last attempt ended", "the store closed"]


async def test_a_worker_that_waits_to_start_again_does_not_hold_up_the_stop(lines):
    pausing = asyncio.Event()

    async def crashes():
        raise StoreUnavailable

    async def sleep(_):
        pausing.set()
        await forever()

    async def stop():
        return

    subject = Supervisor([Part("router", crashes, stop)], sleep=sleep)
    running = asyncio.ensure_future(subject.run())
    await pausing.wait()
    subject.request_stop()

    assert await running == 0
    assert "part_stop_timed_out" not in [line["event"] for line in lines]
