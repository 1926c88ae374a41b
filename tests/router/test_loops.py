from __future__ import annotations

from router.loops import DEPTH, RATE, LoopGuard, LoopLimits
from schemas.outcomes import Chain


def test_a_chain_ends_at_its_depth() -> None:
    guard = LoopGuard(LoopLimits(max_hops=3))

    verdicts = [guard.cut(Chain("evt_a", hops), ["sub"], now_ms=0) for hops in range(1, 6)]

    assert verdicts == ["", "", "", DEPTH, DEPTH]


def test_a_chain_of_unknown_depth_ends() -> None:
    assert LoopGuard(LoopLimits()).cut(None, ["sub"], now_ms=0) == DEPTH


def test_one_event_wakes_one_subscription_only_so_often_in_a_minute() -> None:
    guard = LoopGuard(LoopLimits(max_wakes_per_minute=5))

    verdicts = [guard.cut(Chain("evt_a", 1), ["sub"], now_ms=number) for number in range(7)]

    assert verdicts == [""] * 5 + [RATE] * 2
    assert guard.cut(Chain("evt_b", 1), ["sub"], now_ms=7) == "", "another event's chain has its own count"
    assert guard.cut(Chain("evt_a", 1), ["other"], now_ms=7) == "", "and so has another subscription"
    assert guard.cut(Chain("evt_a", 1), ["sub"], now_ms=60_000) == "", "and the next minute"


def test_a_clock_that_steps_back_begins_a_new_minute() -> None:
    guard = LoopGuard(LoopLimits(max_wakes_per_minute=1))
    guard.cut(Chain("evt_a", 1), ["sub"], now_ms=10**9)

    assert guard.cut(Chain("evt_a", 1), ["sub"], now_ms=0) == ""


def test_what_is_remembered_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr("router.loops._MAX_KNOWN", 10)
    guard = LoopGuard(LoopLimits())

    for number in range(100):
        guard.cut(Chain(f"evt_{number}", 1), ["sub"], now_ms=0)

    assert len(guard._wakes) == 10
