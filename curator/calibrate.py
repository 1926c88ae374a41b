"""A model family's factor, learnt from the usage that its agents report."""

from __future__ import annotations

from collections.abc import Sequence

LEAST_REPORTS = 20
MAX_FACTOR = 3.0


def factor_of(reports: Sequence[tuple[int, int]]) -> float | None:
    """How many of the model's tokens one of ours is, so that a budget stays a ceiling; None before there are 20 reports.

    Each report is (tokens that we counted in o200k, tokens that the agent says it was charged for the same text).  The 95th
    percentile is taken, rounded up to a hundredth, never below 1: single odd reports do not move it, nor does their order.
    """
    ratios = sorted(theirs / ours for ours, theirs in reports if ours > 0 and theirs > 0)
    if len(ratios) < LEAST_REPORTS:
        return None
    at = ratios[min(len(ratios) - 1, int(len(ratios) * 0.95))]
    return min(MAX_FACTOR, max(1.0, -int(-at * 100 // 1) / 100))
