"""What reported usage teaches about token counts."""

from __future__ import annotations

import pytest

from curator.calibrate import MAX_FACTOR, Sample, factor_of
from curator.tokens import counter_for, default_factor, family_of


def exact(*ratios: float) -> list[Sample]:
    return [Sample(1000, round(1000 * ratio), is_exact=True) for ratio in ratios]


def bounds(*ratios: float) -> list[Sample]:
    return [Sample(1000, round(1000 * ratio), is_exact=False) for ratio in ratios]


@pytest.mark.parametrize(
    ("samples", "factor"),
    [
        ([], None),
        (exact(1.1, 1.1, 1.1, 1.1), None),
        (exact(1.1, 1.12, 1.2, 1.15, 1.18), 1.2),
        (exact(*[1.21] * 5), 1.25),
        (exact(*[0.7] * 5), 1.0),
        (exact(1.1, 1.1, 1.1, 1.1, 80.0), MAX_FACTOR),
        (bounds(*[1.12] * 19), None),
        (bounds(*[9.0] * 19, 1.12), 1.15),
        (bounds(*[9.0] * 30), None),
        (bounds(*[0.4] * 20), 1.0),
        (bounds(*[1.02] * 20) + exact(1.3), 1.3),
        ([Sample(0, 50, is_exact=True)] * 9, None),
    ],
)
def test_exact_counts_set_the_factor_and_whole_runs_only_lower_it(samples, factor):
    assert factor_of("claude", samples) == factor


def test_a_learnt_factor_keeps_every_exact_sample_within_the_budget():
    samples = exact(1.03, 1.17, 1.222, 1.31, 1.29)
    counter = counter_for("claude-opus-4", factor=factor_of("claude", samples))

    text = "some words of a context, with numbers 1234567 and names" * 20
    plain = counter_for(None).count(text)

    assert all(sample.reported / sample.counted * plain <= counter.count(text) for sample in samples)


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("claude-opus-4", "claude"), ("anthropic/claude-sonnet-5", "claude"), ("gpt-5.1", "gpt"), ("o3-mini", "o3"),
        ("mistral-large", "mistral"), ("Gemini-3-pro", "gemini"), ("7b", "other"), ("x" * 99, "x" * 32),
    ],
)  # fmt: skip
def test_a_models_family_is_how_its_name_begins(model, family):
    assert family_of(model) == family
    assert default_factor(family) >= 1
