import asyncio

from prometheus_client import CollectorRegistry, generate_latest

from runtime.health import FRESH_S, Health, LoopLag, publish_build_info
from schemas.errors import LogUnavailable


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


async def yes():
    return True


async def no():
    return False


async def raises():
    raise LogUnavailable


async def test_ready_is_every_check_by_name():
    health = Health(clock=Clock())
    health.watch("log", yes)
    health.watch("store", no)
    health.watch("spool", raises)

    report = await health.ready()

    assert not report.is_ok
    assert report.checks == {"log": "ok", "store": "unavailable", "spool": "log_unavailable"}
    assert report.document() == {"status": "unavailable", "checks": report.checks}


async def test_ready_again_when_the_trouble_is_over_and_the_answer_is_old():
    clock = Clock()
    health = Health(clock=clock)
    answers = [False, True]

    async def flaky():
        return answers.pop(0)

    health.watch("log", flaky)
    first = await health.ready()
    again = await health.ready()
    clock.now += FRESH_S
    later = await health.ready()

    assert (first.is_ok, again is first, later.is_ok) == (False, True, True)


async def test_a_worker_in_trouble_makes_it_unready_until_it_is_well():
    health = Health(clock=Clock())

    health.note("router", "crashed")
    assert (await health.ready()).checks == {"router": "crashed"}

    health.note("router")
    assert (await health.ready()).is_ok


async def test_draining_is_not_ready_and_still_alive():
    health = Health(clock=Clock())

    health.drain()

    assert (await health.ready()).checks == {"process": "draining"}
    assert health.live().is_ok


async def test_a_process_that_failed_is_neither_alive_nor_ready():
    health = Health(clock=Clock())

    health.fail("too many crashes")

    assert health.live().checks == {"process": "too many crashes"}
    assert not health.live().is_ok
    assert (await health.ready()).checks == {"process": "too many crashes"}


async def test_a_probe_that_hangs_is_cut_off(monkeypatch):
    monkeypatch.setattr("runtime.health.PROBE_TIMEOUT_S", 0.001)
    health = Health(clock=Clock())
    health.watch("store", asyncio.Event().wait)

    assert "no answer" in (await health.ready()).checks["store"]


def test_loop_lag_is_a_histogram_and_a_worst():
    registry = CollectorRegistry()
    lag = LoopLag(registry=registry)

    lag.observe(0.004)
    lag.observe(0.3)
    lag.observe(-0.001)

    shown = generate_latest(registry).decode()
    assert 'nightbell_event_loop_lag_seconds_bucket{le="0.005"} 2.0' in shown
    assert "nightbell_event_loop_lag_max_seconds 0.3" in shown


async def test_loop_lag_is_measured_while_it_runs():
    registry = CollectorRegistry()
    lag = LoopLag(registry=registry, period_s=0)

    task = asyncio.ensure_future(lag.run())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()

    assert registry.get_sample_value("nightbell_event_loop_lag_seconds_count") >= 1


def test_the_build_is_named():
    registry = CollectorRegistry()

    publish_build_info(registry=registry)

    assert 'nightbell_build_info{python="3' in generate_latest(registry).decode()
