"""Ten thousand generated events (a million in `make fuzz`): no budget broken, no required fact lost; and time grows with the size."""

from __future__ import annotations

import sys

import orjson
import pytest

from curator.compose import Materials, compose
from curator.contract import Contract, contract_of
from curator.tokens import default_counter
from schemas.config import ContextSpec
from tests.curator.conftest import make_event
from tests.curator.fuzz import run

SLICES, SLICE = 10, 1000
GROWTH = 8


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, SLICES * SLICE, SLICE))
def test_no_generated_event_breaks_its_budget_or_loses_what_is_required(first):
    tally = run(SLICE, first)

    assert tally.breaches == []
    assert tally.events == SLICE
    assert tally.required > SLICE / 2
    assert tally.verdicts["deliver"] > SLICE / 2
    assert tally.cut > SLICE / 4


class Counting:
    """The default counter, and how much text it was given."""

    def __init__(self) -> None:
        self.name = "counting"
        self.chars = 0

    def count(self, text: str) -> int:
        self.chars += len(text)
        return default_counter().count(text)

    def count_within(self, text: str, limit: int) -> int | None:
        self.chars += len(text)
        return default_counter().count_within(text, limit)


def operations(data, view) -> tuple[int, int]:
    """Calls made for one context, of Python's and C's functions alike, and characters that were counted."""
    made = contract_of(ContextSpec(view=view, required=("key",), max_tokens=300, facts=("*",), history={}))
    counter = Counting()
    contract = Contract(made.spec, counter, made.limit, made.members, made.facts, made.lookups)
    event, calls = make_event(data), 0

    def called(_frame, kind, _arg):
        nonlocal calls
        calls += kind in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(called)
    try:
        found = compose(contract, event, data, Materials(), invocation_id="inv_1", fence_secret=b"k" * 32)
    finally:
        sys.setprofile(before)
    assert found.verdict == "deliver"
    assert orjson.loads(found.context)["key"] == "k"
    return calls, counter.chars


SHAPES = {
    "fields": lambda n: {"key": "k", "record": {f"custom_{i}": f"value {i}" for i in range(n)}},
    "rows": lambda n: {"key": "k", "rows": [{"id": i, "note": "some words " * 3} for i in range(n)]},
    "words": lambda n: {"key": "k", "text": "\u4f60\u597d words " * n * 10},
    "one-word": lambda n: {"key": "k", "text": "x" * n * 100},
    "lists": lambda n: {"key": "k", "lists": [[i, [i]] for i in range(n)]},
    "texts": lambda n: {"key": "k", "texts": ["prose of some length " * 12 for _ in range(n)]},
    "keys": lambda n: {"key": "k", **{f"{i} " * 20: None if i % 2 else {} for i in range(n)}},
}


@pytest.mark.parametrize("view", [None, "data"])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_it_costs_grows_no_faster_than_the_event(shape, view):
    small, large = (operations(SHAPES[shape](n), view) for n in (500, 500 * GROWTH))

    for few, many in zip(small, large, strict=True):
        assert many <= few * GROWTH * 1.2 + 1000
