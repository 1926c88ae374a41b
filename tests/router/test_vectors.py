"""The project's own table of vectors, through one pattern, the index and the naive matcher."""

import pytest

from router.matcher import Matcher
from router.operators import OPERATORS
from router.pattern import compile_pattern
from schemas.errors import Invalid
from tests.router import naive_matcher as naive
from tests.router import pattern_vectors as vectors

GOOD = list(vectors.all_vectors())


def test_the_table_has_at_least_five_hundred_vectors():
    assert len(GOOD) + len(vectors.BAD) >= 500
    used = {
        name for _, pattern, _, _ in GOOD for element in pattern.get("f", []) if isinstance(element, dict) for name in element
    }
    assert used == set(OPERATORS)


@pytest.mark.parametrize(("pattern", "event", "expected"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD])
def test_a_pattern_matches_as_its_vector_says(engine, pattern, event, expected):
    compiled = compile_pattern(pattern)

    assert compiled.matches(event) is expected
    assert bool(Matcher([("r", "t", compiled)], engine=engine).match("t", event)) is expected


def test_all_vectors_in_one_index_match_as_each_says(engine):
    matcher = Matcher(((str(at), "t", compile_pattern(pattern)) for at, (_, pattern, _, _) in enumerate(GOOD)), engine=engine)

    for at, (name, _, event, expected) in enumerate(GOOD):
        assert (str(at) in matcher.match("t", event)) is expected, name


NAIVE_CANNOT = {9007199254740993, 12345678901234567890}


def test_the_naive_matcher_agrees_with_the_table():
    def exact(pattern, event):
        return any(str(number) in repr((pattern, event)) for number in NAIVE_CANNOT)

    wrong = [
        name
        for name, pattern, event, expected in GOOD
        if not exact(pattern, event) and naive.matches(pattern, event) is not expected
    ]

    assert wrong == []


@pytest.mark.parametrize(("pattern", "part"), vectors.BAD, ids=[f"{pattern!r:.70}" for pattern, _ in vectors.BAD])
def test_a_bad_pattern_is_refused_with_its_place_and_what_would_be_right(pattern, part):
    with pytest.raises(Invalid) as refused:
        compile_pattern(pattern)

    assert part in refused.value.detail
    assert "; in the pattern " in refused.value.detail
