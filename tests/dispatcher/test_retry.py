"""What becomes of an invocation after an attempt."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.protocols.base import OUTCOMES, Outcome
from dispatcher.retry import Bury, Delivered, Hold, RetryAt, Step, chance, next_step, pause_ms, retry_after_ms
from schemas.config import RetryPolicy

NOW = 1_795_000_000_000
POLICY = RetryPolicy(max_attempts=12, max_age=86_400, first_delay=5, max_delay=3600)


def step(word: str, *, retry_after: str = "", tries: int = 1, pauses: int = 1, age_s: float = 0, policy: RetryPolicy = POLICY,
         attempt_id: str = "inv_a:1") -> Step:  # fmt: skip
    outcome = Outcome(word, status=0, retry_after=retry_after, error="why")
    begun_ms = NOW - round(age_s * 1000)
    return next_step(outcome, tries=tries, pauses=pauses, policy=policy, begun_ms=begun_ms, now_ms=NOW, attempt_id=attempt_id)


@pytest.mark.parametrize("word", ["delivered", "accepted"])
def test_a_2xx_is_the_end_whatever_the_tries_and_the_age(word: str) -> None:
    assert step(word, tries=99, age_s=1e7) == Delivered(word)


def test_a_410_buries_and_disables() -> None:
    assert step("gone") == Bury("gone", disable=True)


def test_a_rejection_buries_at_the_first_try() -> None:
    assert step("rejected") == Bury("rejected: why")


def test_the_last_allowed_try_buries_and_the_one_before_does_not() -> None:
    assert isinstance(step("failed", tries=11), RetryAt)
    assert step("failed", tries=12) == Bury("max_attempts: why")


def test_age_buries_only_when_it_is_over() -> None:
    assert isinstance(step("failed", age_s=86_399), RetryAt)
    assert step("failed", age_s=86_400) == Bury("max_age: why")


def test_the_last_try_is_made_when_the_age_ends_and_not_given_up_before() -> None:
    late = step("failed", tries=11, age_s=86_399.5, attempt_id="inv_late:11")

    assert late == RetryAt(NOW + 500, "why")


def test_misconfiguration_holds_however_often_it_was_tried() -> None:
    assert isinstance(step("misconfigured", tries=500), Hold)
    assert step("misconfigured", tries=500, age_s=86_400) == Bury("max_age: why")


def test_a_hold_ends_with_the_age_so_that_the_burial_is_in_time() -> None:
    assert step("misconfigured", pauses=30, age_s=86_390) == Hold(NOW + 10_000, "why")


@pytest.mark.parametrize(
    ("said", "at_least_s", "at_most_s"),
    [("10", 10, 12), ("0", 0, 0), ("3600", 3600, 3600), ("1000000000", 3600, 3600), ("3500", 3500, 3600)],
)
def test_retry_after_wins_with_up_to_a_fifth_more_and_never_beyond_max_delay(
    said: str, at_least_s: int, at_most_s: int
) -> None:
    for number in range(50):
        found = step("throttled", retry_after=said, attempt_id=f"inv_a:{number}")
        assert isinstance(found, RetryAt)
        assert at_least_s * 1000 <= found.due_ms - NOW <= at_most_s * 1000


@pytest.mark.parametrize("said", ["-5", "soon", "", "1e9", "5.5", "٣", "²", "Sat, 99 Nov 2026 10:00:00 GMT", "\x00", "9" * 64])
def test_what_is_no_retry_after_leaves_the_schedule(said: str) -> None:
    found = step("throttled", retry_after=said)

    assert isinstance(found, RetryAt)
    assert found.due_ms <= NOW + (3600_000 if said.isdigit() and said.isascii() else 5_000)


def test_a_retry_after_of_another_answer_does_not_count() -> None:
    found = step("failed", retry_after="3000")

    assert isinstance(found, RetryAt)
    assert found.due_ms <= NOW + 5_000


def test_a_date_is_read_as_the_time_until_then_and_a_past_one_as_now() -> None:
    in_a_minute = format_datetime(datetime.fromtimestamp(NOW / 1000 + 60, UTC), usegmt=True)
    a_minute_ago = format_datetime(datetime.fromtimestamp(NOW / 1000 - 60, UTC), usegmt=True)

    assert retry_after_ms(in_a_minute, now_ms=NOW) == 60_000
    assert retry_after_ms(a_minute_ago, now_ms=NOW) == 0
    assert retry_after_ms("Sat, 21 Nov 2026 10:00:00 -0000", now_ms=0) == 1_795_255_200_000


def test_backoff_doubles_and_its_jitter_covers_the_whole_range() -> None:
    for tries, ceiling_s in ((1, 5), (2, 10), (5, 80), (11, 3600)):
        delays = []
        for number in range(400):
            found = step("failed", tries=tries, attempt_id=f"inv_{number}:{tries}")
            assert isinstance(found, RetryAt)
            delays.append((found.due_ms - NOW) / 1000)
        assert max(delays) <= ceiling_s
        assert max(delays) > 0.95 * ceiling_s
        assert min(delays) < 0.05 * ceiling_s


def test_the_pauses_of_a_held_agent_double_up_to_five_minutes() -> None:
    policy = RetryPolicy(first_delay=1)
    pauses = [pause_ms(policy, pauses=number, attempt_id="x") / (1 + chance("x")) * 2 for number in range(1, 20)]

    assert pauses[:4] == pytest.approx([1000, 2000, 4000, 8000], rel=0.01)
    assert pauses[-1] == pytest.approx(300_000, rel=0.01)


def test_a_policy_without_delays_still_leaves_a_held_agent_a_moment() -> None:
    assert 50 <= pause_ms(RetryPolicy(first_delay=0, max_delay=0), pauses=1, attempt_id="x") <= 100


@given(
    word=st.sampled_from(sorted(OUTCOMES)), retry_after=st.text(max_size=64) | st.integers().map(str),
    tries=st.integers(1, 10_000), pauses=st.integers(0, 10_000), age_ms=st.integers(-10**9, 10**11),
    first=st.floats(0, 1e6), cap=st.floats(0, 1e6), most=st.integers(1, 1000), max_age=st.floats(0.001, 1e7), seed=st.text(),
)  # fmt: skip
def test_every_step_keeps_the_policy(
    word: str, retry_after: str, tries: int, pauses: int, age_ms: int, first: float, cap: float, most: int, max_age: float,
    seed: str,
) -> None:  # fmt: skip
    policy = RetryPolicy(max_attempts=most, max_age=max_age, first_delay=first, max_delay=cap)
    outcome = Outcome(word, retry_after=retry_after)
    begun = NOW - age_ms

    found = next_step(outcome, tries=tries, pauses=pauses, policy=policy, begun_ms=begun, now_ms=NOW, attempt_id=seed)

    assert found == next_step(
        outcome, tries=tries, pauses=pauses, policy=policy, begun_ms=begun, now_ms=NOW, attempt_id=seed
    ), "pure"
    ends = begun + round(max_age * 1000)
    if isinstance(found, RetryAt):
        assert tries < most
        assert NOW <= found.due_ms <= min(NOW + round(cap * 1000) + 1, ends)
    elif isinstance(found, Hold):
        assert word == "misconfigured"
        assert NOW <= found.due_ms <= ends
    elif isinstance(found, Bury) and word not in {"gone", "rejected"}:
        assert ends <= NOW or (tries >= most and word != "misconfigured")


@given(st.text())
def test_chance_is_in_range(seed: str) -> None:
    assert 0 <= chance(seed) < 1
