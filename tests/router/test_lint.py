"""Lint: what is valid and probably not meant."""

import pytest

from router.cesql import compile_cesql
from router.lint import Finding, implies, lint
from router.pattern import compile_pattern


def _codes(*patterns, **given):
    rules = [
        (f"r{at}", compile_pattern(pattern) if isinstance(pattern, dict) else pattern) for at, pattern in enumerate(patterns)
    ]
    return [(finding.rule, finding.code) for finding in lint(rules, **given)]


GOOD = {"type": ["github.push"], "data": {"ref": ["refs/heads/main"]}}


def test_a_plain_pattern_has_no_finding():
    assert _codes(GOOD, types=["github.push"], samples=[{"type": "github.push", "data": {"ref": "refs/heads/dev"}}]) == []


@pytest.mark.parametrize(
    ("pattern", "code"),
    [
        ({"type": ["a"], "x": ["v"], "x.y": ["w"]}, "contradiction"),
        (compile_cesql("type = 'a' AND type = 'b'"), "contradiction"),
        ({"type": ["a"], "data": {"x": [{"anything-but": "v"}, {"anything-but": "w"}]}}, "anything-but-or"),
        ({"type": ["a", {"prefix": "a"}]}, "redundant-alternative"),
        ({"type": ["a"], "data": {"n": [{"numeric": [">", 5]}, {"numeric": [">=", 3]}]}}, "redundant-alternative"),
        ({"data": {"x": [{"anything-but": "v"}]}}, "not-indexed"),
        ({"data": {"x": [{"exists": False}]}}, "not-indexed"),
        ({"data": {"x": [{"wildcard": "*v*"}]}}, "not-indexed"),
    ],
)
def test_a_dubious_pattern_is_found(pattern, code):
    assert ("r0", code) in _codes(pattern)


def test_a_type_that_no_kept_event_has_is_found_with_the_nearest_there_is():
    found = lint([("r", compile_pattern({"type": ["github.isues.opened"]}))], types=["github.issues.opened", "github.push"])

    assert [finding.as_json() for finding in found] == [
        {
            "rule": "r",
            "code": "unknown-type",
            "path": "type",
            "text": "no kept event has the type 'github.isues.opened'; there is github.issues.opened",
        }
    ]


def test_kept_events_show_arrays_and_types():
    samples = [{"type": "a", "data": {"labels": ["x", "y"], "n": "1"}}]
    pattern = {"type": ["a"], "data": {"labels": [{"anything-but": "x"}], "n": [1]}}

    assert _codes(pattern, samples=samples) == [("r0", "anything-but-array"), ("r0", "type-mismatch")]


def test_duplicates_and_subsumed_rules_are_found_also_among_the_others():
    narrow = {**GOOD, "actor": [{"prefix": "nora"}]}
    wide = {"type": [{"prefix": "github."}]}

    assert _codes(GOOD, dict(GOOD)) == [("r0", "duplicate"), ("r1", "duplicate")]
    assert _codes(narrow, GOOD) == [("r0", "subsumed")]
    assert lint([("new", compile_pattern(GOOD))], among=[("old", compile_pattern(wide))]) == [
        Finding("new", "subsumed", "every event that it matches, old matches too", other="old")
    ]
    assert _codes(wide, {"type": ["gitlab.push"]}) == []


@pytest.mark.parametrize(
    ("narrow", "wide", "expected"),
    [
        ("x", "x", True),
        ("x", {"prefix": ""}, True),
        ("xy", {"prefix": "x"}, True),
        ("xy", {"suffix": "x"}, False),
        ("10.0.0.1", {"cidr": "10.0.0.0/8"}, False),
        (5, {"numeric": [">", 4]}, True),
        (5, {"anything-but": [6]}, True),
        (5, {"anything-but": [5]}, False),
        ({"prefix": "xyz"}, {"prefix": "xy"}, True),
        ({"prefix": "xy"}, {"prefix": "xyz"}, False),
        ({"suffix": "xyz"}, {"suffix": "yz"}, True),
        ({"suffix": "yz"}, {"prefix": "y"}, False),
        ({"numeric": [">", 3, "<", 5]}, {"numeric": [">=", 3]}, True),
        ({"numeric": [">=", 3]}, {"numeric": [">", 3]}, False),
        ({"numeric": ["=", 3]}, {"numeric": [">=", 3, "<", 4]}, True),
        ({"cidr": "10.1.0.0/16"}, {"cidr": "10.0.0.0/8"}, True),
        ({"cidr": "10.0.0.0/8"}, {"cidr": "10.1.0.0/16"}, False),
        ({"cidr": "2001:db8::/32"}, {"cidr": "0.0.0.0/0"}, False),
        ({"wildcard": "a*b"}, {"exists": True}, True),
        ({"exists": True}, "x", False),
    ],
)
def test_one_alternative_implies_another_only_where_it_surely_does(narrow, wide, expected):
    def test_of(element):
        return compile_pattern({"a": [element]}).branches[0].fields[0].tests[0]

    assert implies(test_of(narrow), test_of(wide)) is expected
