"""Explain: its verdict is the match's, and its sentence names what came nearest."""

import pytest
from hypothesis import HealthCheck, given, settings

from router.cesql import compile_cesql
from router.explain import explain, nearest_misses
from router.pattern import compile_pattern
from tests.router import pattern_strategies as strategies

EVENT = {
    "type": "github.issues.opened",
    "data": {
        "number": "5",
        "stars": 7,
        "ip": "10.0.0.1",
        "isue": {"title": "x"},
        "empty": {},
        "big": 9007199254740993,
        "on": True,
        "labels": [{"name": "bug", "color": "red"}, {"name": "ui", "color": "blue"}],
    },
}


@given(pattern=strategies.patterns, event=strategies.events)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_verdict_is_that_of_matching(pattern, event):
    compiled = compile_pattern(pattern)

    told = explain(compiled, event)

    assert told.matched is compiled.matches(event)
    assert told.as_json()["matched"] is told.matched
    assert told.text().startswith("matched" if told.matched else "did not match")
    if not told.matched:
        assert told.notes or not all(field.holds for field in told.fields)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ({"type": ["github.issues.OPENED", "x"]}, 'differs only in case: wanted "github.issues.OPENED"'),
        ({"type": ["github.issues.opened "]}, "differs only in white space"),
        ({"type": ["stripe.paid", "github.issues.closed"]}, 'nearest alternative: "github.issues.closed"'),
        ({"type": [{"prefix": "gitlab."}]}, 'does not start with "gitlab."'),
        ({"type": [{"prefix": "GitHub."}]}, "it would in another case"),
        ({"type": [{"suffix": "closed"}]}, 'does not end with "closed"'),
        ({"type": [{"wildcard": "*.closed"}]}, 'does not fit "*.closed"'),
        ({"type": [{"anything-but": {"prefix": "github."}}]}, "excludes"),
        ({"data": {"number": [5]}}, "differs only in type: the pattern has 5, the event has a string"),
        ({"data": {"on": ["true"]}}, "differs only in type"),
        ({"data": {"number": [{"numeric": [">", 3]}]}}, "it is a number written as a string"),
        ({"data": {"stars": [{"numeric": [">=", 10, "<", 20]}]}}, "7 is not >= 10: off by 3"),
        ({"data": {"stars": [8]}}, "wanted 8, found 7"),
        ({"data": {"stars": [{"prefix": "7"}]}}, "prefix takes strings only, and this is a number"),
        ({"data": {"big": [9007199254740992]}}, "which no double holds"),
        ({"data": {"ip": [{"cidr": "10.1.0.0/16"}]}}, "is not in the network 10.1.0.0/16"),
        ({"data": {"number": [{"cidr": "10.1.0.0/16"}]}}, "is no IP address"),
        ({"data": {"stars": [{"exists": False}]}}, "wanted no such field, and it is there"),
        ({"data": {"issue": {"title": ["x"]}}}, "there is no data.issue; there is data.isue"),
        ({"data": {"Stars": [7]}}, "there is no data.Stars; there is data.stars"),
        ({"data": {"stars": {"count": [7]}}}, "data.stars is 7, not an object"),
        ({"data": {"empty": ["x"]}}, "data.empty is an empty object"),
        ({"data": {"labels": ["bug"]}}, "data.labels is an array of objects"),
        ({"data": {"labels": {"title": ["bug"]}}}, "there is no data.labels.title"),
    ],
)
def test_a_failed_field_says_what_came_nearest(pattern, sentence):
    told = explain(compile_pattern(pattern), EVENT)

    assert not told.matched
    assert sentence in told.text()
    assert not told.as_json()["fields"][0]["ok"]


def test_fields_that_hold_in_different_elements_are_told_apart():
    told = explain(compile_pattern({"data": {"labels": {"name": ["bug"], "color": ["blue"]}}}), EVENT)

    assert not told.matched
    assert all(field.holds for field in told.fields)
    assert "array consistency" in told.notes[0]


def test_the_nearest_branch_of_an_or_is_shown():
    told = explain(compile_pattern({"$or": [{"type": ["x"]}, {"type": ["y"], "data": {"stars": [7]}}]}), EVENT)

    assert [field.path for field in told.fields] == ["data.stars", "type"]
    assert told.as_json()["branches"] == 2


def test_a_guard_that_refuses_is_named():
    told = explain(compile_cesql("type = 'github.issues.opened' AND subject = 'x'"), EVENT)

    assert not told.matched
    assert "not satisfied: type = 'github.issues.opened'" in told.text()


def test_the_verdicts_of_later_steps_are_told_after_the_match():
    told = explain(compile_pattern({"type": ["github.issues.opened"]}), EVENT).after(("paused", "by nora"))

    assert told.as_json()["later"] == [{"step": "paused", "reason": "by nora"}]
    assert told.text().endswith("paused: by nora")


def test_the_nearest_misses_are_ranked_by_what_holds_and_a_match_is_none():
    rules = [
        ("far", compile_pattern({"type": ["x"], "data": {"stars": [8]}})),
        ("half", compile_pattern({"type": ["github.issues.opened"], "data": {"stars": [8]}})),
        ("near", compile_pattern({"type": ["github.issues.opened"], "data": {"stars": [7], "on": [False]}})),
        ("hit", compile_pattern({"type": ["github.issues.opened"]})),
    ]

    assert [rule for rule, _ in nearest_misses(rules, EVENT)] == ["near", "half"]
    assert [rule for rule, _ in nearest_misses(rules, EVENT, limit=1)] == ["near"]
