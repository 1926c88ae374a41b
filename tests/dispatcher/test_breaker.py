"""Whether an agent may be called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import breaker
from dispatcher.breaker import CLOSED, FRESH, MIN_FAILING_MS, MIN_FAILURES, OPEN, Standing, after, has_recovered
from dispatcher.protocols.base import OUTCOMES


def failed(times: int, *, word: str = "failed", every_ms: int = 2_000, start: Standing = FRESH) -> Standing:
    standing = start
    for number in range(times):
        standing = after(standing, word, now_ms=1_000 + number * every_ms, pause_until_ms=0)
    return standing


def test_one_misconfigured_answer_opens_it() -> None:
    standing = after(FRESH, "misconfigured", now_ms=1_000, pause_until_ms=3_000)

    assert (standing.state, standing.cause, standing.probe_at_ms, standing.pauses) == (OPEN, "misconfigured", 3_000, 1)
    assert not standing.may_probe(2_999)
    assert standing.may_probe(3_000)


def test_failures_open_it_only_when_they_are_many_and_last() -> None:
    assert failed(MIN_FAILURES - 1).state == CLOSED
    assert failed(MIN_FAILURES, every_ms=2_000).state == OPEN
    assert failed(10 * MIN_FAILURES, every_ms=1).state == CLOSED, "many, but all within a moment"
    assert failed(200, every_ms=1 + MIN_FAILING_MS // 200).state == OPEN


@pytest.mark.parametrize("word", ["delivered", "accepted", "throttled", "rejected", "gone"])
def test_any_answer_that_is_no_failure_closes_it(word: str) -> None:
    assert after(failed(MIN_FAILURES), word, now_ms=10**6, pause_until_ms=0) == FRESH


def test_what_was_on_its_way_when_it_opened_does_not_lengthen_the_pause() -> None:
    opened = after(FRESH, "misconfigured", now_ms=1_000, pause_until_ms=3_000)

    assert after(opened, "misconfigured", now_ms=1_010, pause_until_ms=9_000) is opened
    assert after(opened, "failed", now_ms=1_010, pause_until_ms=0) is opened


def test_a_failed_probe_opens_it_again_for_longer() -> None:
    standing = failed(MIN_FAILURES)
    pauses = []
    for number in range(8):
        now = 100_000 + number * 10_000
        standing = after(breaker.probing(standing), "timeout", now_ms=now, pause_until_ms=0)
        pauses.append(standing.probe_at_ms - now)

    assert pauses == [1_000, 2_000, 4_000, 5_000, 5_000, 5_000, 5_000, 5_000]
    assert standing.since_ms == 1_000


def test_a_changed_agent_is_probed_at_once() -> None:
    opened = after(FRESH, "misconfigured", now_ms=1_000, pause_until_ms=300_000)

    assert breaker.probed_soon(opened).may_probe(1_001)
    assert breaker.probed_soon(FRESH) is FRESH


def test_recovery_is_told_of_agents_that_were_not_called_or_not_there() -> None:
    assert has_recovered(failed(MIN_FAILURES), FRESH)
    assert has_recovered(failed(3, word="unreachable"), FRESH)
    assert not has_recovered(failed(2, word="unreachable"), FRESH)
    assert not has_recovered(failed(5, word="failed"), FRESH), "it answered all the time; its retries keep their schedule"
    assert not has_recovered(FRESH, FRESH)


@given(st.lists(st.tuples(st.sampled_from(sorted(OUTCOMES)), st.integers(0, 60_000), st.booleans()), max_size=80))
def test_it_is_total_and_an_open_one_always_gets_its_probe(history: list[tuple[str, int, bool]]) -> None:
    standing, now = FRESH, 1_000
    for word, later_ms, probe in history:
        now += later_ms
        if probe and standing.may_probe(now):
            standing = breaker.probing(standing)
        standing = after(standing, word, now_ms=now, pause_until_ms=now + 300_000)
        assert standing.state in {CLOSED, OPEN}, "a probe's end decides"
        assert standing.probe_at_ms <= now + 300_000
        assert (standing.state == CLOSED) == (standing.cause == "")
        assert breaker.abandoned(breaker.probing(standing)).state == OPEN
