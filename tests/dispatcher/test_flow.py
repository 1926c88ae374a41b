"""When an invocation may start."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.flow import Bucket, expires_at_ms, starts_at_ms


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
