"""When an invocation may start."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.flow import Bucket, Window, closes_at_ms, expires_at_ms, starts_at_ms


def test_a_bucket_lets_a_burst_go_and_then_the_rate() -> None:
    bucket = Bucket(10, 3)
    bucket.wait_s(100.0)
    started = []
    now = 200.0
    while len(started) < 8:
        wait = bucket.wait_s(now)
        now += wait
        bucket.take(now)
        started.append(round(now - 200.0, 6))

    assert started == [0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.5]


def test_a_fresh_bucket_is_not_full() -> None:
    bucket = Bucket(1, 100)

    bucket.take(50.0)

    assert bucket.wait_s(50.0) == pytest.approx(1.0)


@given(rate=st.floats(0.01, 10_000), burst=st.integers(1, 50), pauses=st.lists(st.floats(0, 20), min_size=1, max_size=60))
def test_no_more_than_burst_and_rate_ever_start(rate: float, burst: int, pauses: list[float]) -> None:
    bucket, now, starts = Bucket(rate, burst), 1_000.0, []
    for pause in pauses:
        now += pause
        now += bucket.wait_s(now)
        bucket.take(now)
        starts.append(now)

    for first in range(len(starts)):
        for last in range(first, len(starts)):
            assert last - first + 1 <= burst + (starts[last] - starts[first]) * rate + 1e-3


def test_a_delay_counts_from_creation_and_an_expiry_from_receipt() -> None:
    assert starts_at_ms(1_000, delay_s=2.5) == 3_500
    assert expires_at_ms(1_000, expires_after_s=60) == 61_000
    assert expires_at_ms(1_000, expires_after_s=None) is None


def test_a_window_closes_after_a_quiet_spell_or_its_longest_wait_or_when_it_is_full() -> None:
    window = Window(1, 1_000, 1_000)
    assert closes_at_ms(window, quiet_s=5, max_wait_s=60, max_count=100) == 6_000

    for number in range(20):
        window = window.joined(1_000 + number * 4_000)
    assert closes_at_ms(window, quiet_s=5, max_wait_s=60, max_count=100) == 61_000
    assert closes_at_ms(window, quiet_s=5, max_wait_s=60, max_count=20) == window.last_ms


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.floats(0, 100), st.floats(0, 1000), st.integers(1, 50))
def test_a_window_never_stays_open_longer_than_it_may(times: list[int], quiet: float, longest: float, most: int) -> None:
    first, *rest = sorted(times)
    window = Window(1, first, first)
    for at in rest:
        window = window.joined(at)

    closes = closes_at_ms(window, quiet_s=quiet, max_wait_s=longest, max_count=most)

    assert window.count == len(times)
    assert window.count >= most or closes <= window.first_ms + round(longest * 1000)
