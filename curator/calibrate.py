"""A model family's token factor, learnt from what agents report: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curator.tokens import default_factor

LEAST_EXACT = 5
LEAST_BOUNDS = 20
STEP = 0.05  # a factor moves in steps, so that contexts do not change with every report
MAX_FACTOR = 3.0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run said: our own count of what it was sent (o200k), and its provider's.

    `is_exact`: the provider counted just that.  Otherwise it counted the whole run's input, which holds more: then the true
    factor is at most the ratio, and nothing is learnt but that.
    """

    counted: int
    reported: int
    is_exact: bool


def factor_of(family: str, samples: Sequence[Sample]) -> float | None:
    """The factor that the samples teach, in steps of 0.05, from 1 to 3; None where they are too few to leave the default.

    A budget is a ceiling: of exact samples the largest ratio counts; bounds can lower the family's default, never raise it.
    """
    exact = [sample.reported / sample.counted for sample in samples if sample.is_exact and sample.counted > 0]
    if len(exact) >= LEAST_EXACT:
        return _stepped(max(exact), MAX_FACTOR)
    bounds = [sample.reported / sample.counted for sample in samples if not sample.is_exact and sample.counted > 0]
    if len(bounds) < LEAST_BOUNDS:
        return None
    learnt = _stepped(max([min(bounds), *exact]), default_factor(family))
    return learnt if learnt < default_factor(family) else None


def _stepped(ratio: float, most: float) -> float:
    """`ratio` rounded up to a step, within 1 and `most`."""
    steps = -int(-(ratio - 1e-9) // STEP)
    return min(max(1.0, round(steps * STEP, 2)), most)
