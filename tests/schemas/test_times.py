"""Instants and spans."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.times import iso, ms_of, seconds_of


@given(st.integers(0, 4102444800000))
def test_an_instant_is_read_back_as_written(at_ms):
    assert ms_of(iso(at_ms)) == at_ms


def test_milliseconds_stand_only_where_there_are_any():
    assert iso(1795255200000) == "2026-11-21T10:00:00Z"
    assert iso(1795255201120) == "2026-11-21T10:00:01.120Z"


def test_an_instant_without_an_offset_is_utc():
    assert ms_of("2026-11-21T10:00:00") == ms_of("2026-11-21T11:00:00+01:00")


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("30s", 30), ("5m", 300), ("24h", 86400), ("7d", 604800), (2.5, 2.5), ("3", 3)]
)
def test_spans_have_units(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "-3s"])
def test_a_span_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="span of time"):
        seconds_of(text)
