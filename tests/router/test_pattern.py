"""Compiling: what is shared, what is refused however hostile, and how it is quoted."""

import pytest

from router.field import field_of
from router.operators import equals
from router.pattern import compile_pattern
from schemas.errors import Invalid


def _deep(levels):
    pattern = ["x"]
    for _ in range(levels):
        pattern = {"a": pattern}
    return pattern


def test_a_pattern_nested_deeper_than_any_event_is_refused():
    compile_pattern(_deep(60))
    with pytest.raises(Invalid, match="nested deeper than 64"):
        compile_pattern(_deep(100))
    with pytest.raises(Invalid, match="nested too deep to be shown"):
        compile_pattern(_deep(100_000))


def test_a_message_can_always_be_written():
    with pytest.raises(Invalid) as refused:
        compile_pattern({"a\ud800": "x"})

    assert refused.value.detail.encode()


def test_a_long_pattern_is_quoted_in_part():
    with pytest.raises(Invalid) as refused:
        compile_pattern({"a": ["x" * 5000], "b": 1})

    assert len(refused.value.detail) < 700
    assert refused.value.detail.startswith("b: wants an array")


def test_fields_of_equal_meaning_are_one_object():
    one = compile_pattern({"type": ["a"], "n": [1, {"prefix": "x"}]})
    other = compile_pattern({"n": [1.0, {"prefix": "x"}], "type": [{"exactly": "a"}]})

    assert [id(field) for field in one.branches[0].fields] == [id(field) for field in other.branches[0].fields]
    assert field_of("type", [equals("a")]) is one.branches[0].fields[1]


def test_an_address_and_the_same_text_exactly_are_two_fields():
    exactly = compile_pattern({"a": [{"exactly": "10.0.0.1"}]})
    address = compile_pattern({"a": ["10.0.0.1"]})

    assert not exactly.matches({"a": "10.0.0.01"})
    assert address.matches({"a": "10.0.0.01"})


def test_the_cost_counts_fields_and_weighs_wildcards():
    assert compile_pattern({"a": [1]}).cost == 1
    assert compile_pattern({"a": [{"wildcard": "*x*"}], "$or": [{"b": [1]}, {"c": [1]}]}).cost == 14


def test_a_field_shows_what_it_wants():
    field = compile_pattern({"a": ["x", {"prefix": "y"}, {"exists": False}]}).branches[0].fields[0]

    assert repr(field) == "Field(a: ['x', {'prefix': 'y'}] or absent)"
