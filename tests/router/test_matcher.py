"""The index against a naive matcher, through random rule sets, events and changes."""

import copy
import os
import random
import sys

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.matcher import Matcher
from router.native import NativeIndex
from router.pattern import compile_pattern, parse_pattern_text
from router.values import parse_exact
from tests.router import naive_matcher as naive
from tests.router import pattern_strategies as strategies

# `NBTEST_EXAMPLES=20` looks for twenty times as long.
MORE = int(os.environ.get("NBTEST_EXAMPLES", "1"))
quick = settings(
    max_examples=12 * MORE, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
rule_sets = st.lists(strategies.patterns, max_size=8)


@given(pattern=strategies.patterns, event=strategies.events)
@settings(quick, max_examples=60 * MORE)
def test_a_pattern_matches_as_the_naive_matcher_says(pattern, event):
    expected = naive.matches(pattern, event)

    assert compile_pattern(pattern).matches(event) is expected


@given(patterns=rule_sets, events=st.lists(strategies.events, min_size=1, max_size=4))
@quick
def test_the_index_finds_what_trying_every_rule_finds(engine, patterns, events):
    compiled = [compile_pattern(pattern) for pattern in patterns]
    matcher = Matcher(((f"r{at}", "t", pattern) for at, pattern in enumerate(compiled)), engine=engine)

    for event in events:
        expected = sorted(f"r{at}" for at, pattern in enumerate(patterns) if naive.matches(pattern, event))
        assert matcher.match("t", event) == expected


changes = st.lists(st.tuples(st.integers(0, 9), st.one_of(st.none(), strategies.patterns)), max_size=10)


@given(first=rule_sets, changed=changes, event=strategies.events)
@quick
def test_the_index_stays_right_through_adds_and_removes_and_old_snapshots_stay_what_they_were(engine, first, changed, event):
    rules = {f"r{at}": pattern for at, pattern in enumerate(first)}
    matcher = Matcher(((rule, "t", compile_pattern(pattern)) for rule, pattern in rules.items()), engine=engine)
    snapshots = []

    for number, pattern in changed:
        expected = sorted(rule for rule, wanted in rules.items() if naive.matches(wanted, event))
        snapshots.append((matcher, expected))
        rule = f"r{number}"
        if pattern is None:
            rules.pop(rule, None)
            matcher = matcher.with_rules(remove=[(rule, "t")])
        else:
            rules[rule] = pattern
            matcher = matcher.with_rules(add=[(rule, "t", compile_pattern(pattern))])

    snapshots.append((matcher, sorted(rule for rule, wanted in rules.items() if naive.matches(wanted, event))))
    assert all(snapshot.match("t", event) == expected for snapshot, expected in snapshots)
    assert len(matcher) == len(rules)


@given(patterns=rule_sets, event=strategies.events)
@quick
def test_matching_never_changes_the_event(engine, patterns, event):
    before = copy.deepcopy(event)
    matcher = Matcher(((f"r{at}", "t", compile_pattern(pattern)) for at, pattern in enumerate(patterns)), engine=engine)

    matcher.match("t", event)

    assert event == before
    assert orjson.dumps(event) == orjson.dumps(before)


# ── larger, quicker: rules drawn by seed, so that postings split and tables are sharded ─────────────────────────────────────


def _leaf(rng):
    wanted = rng.choice([f"v{rng.randrange(40)}", rng.randrange(8), True, None])
    text = f"v{rng.randrange(40)}"
    return rng.choice([
        wanted, wanted, wanted, {"prefix": text[:2]}, {"suffix": text[-1]}, {"equals-ignore-case": text.upper()},
        {"wildcard": f"*{text[1:]}"}, {"wildcard": f"*{text[1]}*"}, {"anything-but": text}, {"exists": rng.random() < 0.7},
        {"numeric": [">", rng.randrange(4), "<=", rng.randrange(4, 9)]}, {"numeric": [rng.choice("<>"), rng.randrange(8)]},
        {"cidr": f"10.0.{rng.randrange(4)}.0/24"}, "10.0.1.7",
    ])  # fmt: skip


def _rule(rng):
    rule = {}
    for _ in range(rng.randrange(1, 4)):
        name = rng.choice("abcd")
        leaves = [_leaf(rng) for _ in range(rng.choice([1, 1, 2]))]
        if name == "d":
            rule.setdefault("d", {})[rng.choice("xy")] = leaves
        else:
            rule[name] = leaves
    if rng.random() < 0.2:
        rule["$or"] = [{"a": [_leaf(rng)]}, {"e": [_leaf(rng)]}]
    return rule


def _scalar(rng):
    return rng.choice([f"v{rng.randrange(40)}", rng.randrange(10), True, None, 4.0, f"10.0.{rng.randrange(4)}.7"])


def _event(rng):
    event = {name: _scalar(rng) for name in "abce" if rng.random() < 0.8}
    if rng.random() < 0.3:
        event["b"] = [_scalar(rng) for _ in range(rng.randrange(4))]
    if rng.random() < 0.7:
        elements = [{name: _scalar(rng) for name in "xy" if rng.random() < 0.8} for _ in range(rng.randrange(1, 4))]
        event["d"] = elements if rng.random() < 0.7 else elements[0]
    return event


@pytest.mark.parametrize("seed", range(40 * MORE))
def test_a_large_index_that_changes_all_the_time_agrees_with_the_naive_matcher(engine, seed):
    rng = random.Random(seed)
    rules = {f"r{at}": _rule(rng) for at in range(150)}
    matcher = Matcher(((rule, "t", compile_pattern(pattern)) for rule, pattern in rules.items()), engine=engine)
    hits = 0

    for _ in range(12):
        event = _event(rng)
        expected = sorted(rule for rule, pattern in rules.items() if naive.matches(pattern, event))
        assert matcher.match("t", event) == expected, event
        hits += len(expected)
        for _ in range(10):
            rule = f"r{rng.randrange(200)}"
            if rules.pop(rule, None) is None:
                rules[rule] = _rule(rng)
                matcher = matcher.with_rules(add=[(rule, "t", compile_pattern(rules[rule]))])
            else:
                matcher = matcher.with_rules(remove=[(rule, "t")])

    assert hits > 0


def test_thousands_of_rules_on_one_field_are_found_added_and_removed(engine):
    patterns = {f"r{at}": compile_pattern({"a": [f"v{at}"], "b": [at % 3]}) for at in range(5000)}
    matcher = Matcher(((rule, "t", pattern) for rule, pattern in patterns.items()), engine=engine)

    assert matcher.match("t", {"a": "v4321", "b": 4321 % 3}) == ["r4321"]
    assert matcher.match("t", {"a": "v4321", "b": 7}) == []
    without = matcher.with_rules(remove=[("r4321", "t")])
    assert without.match("t", {"a": "v4321", "b": 4321 % 3}) == []
    assert matcher.match("t", {"a": "v4321", "b": 4321 % 3}) == ["r4321"]
    assert without.with_rules(add=[("new", "t", patterns["r4321"])]).match("t", {"a": "v4321", "b": 4321 % 3}) == ["new"]


def test_many_rules_that_share_their_rarest_value_are_told_apart_by_the_next(engine):
    rules = [
        (f"r{at}", "t", compile_pattern({"type": ["push"], "data": {"repo": [f"x{at % 50}"], "n": [at]}})) for at in range(400)
    ]
    matcher = Matcher(engine=engine)
    for rule in rules:
        matcher = matcher.with_rules(add=[rule])

    assert matcher.match("t", {"type": "push", "data": {"repo": "x7", "n": 57}}) == ["r57"]
    for name, team, _ in rules[:-1]:
        matcher = matcher.with_rules(remove=[(name, team)])
    assert len(matcher) == 1
    assert matcher.match("t", {"type": "push", "data": {"repo": "x49", "n": 399}}) == ["r399"]


# ── teams, snapshots, exact numbers, cost ───────────────────────────────────────────────────────────────────────────────────


def test_rules_of_another_team_never_match(engine):
    matcher = Matcher([("r", "one", compile_pattern({"a": [1]})), ("r", "two", compile_pattern({"a": [2]}))], engine=engine)

    assert matcher.match("one", {"a": 1}) == ["r"]
    assert matcher.match("two", {"a": 1}) == []
    assert matcher.match("three", {"a": 1}) == []
    assert matcher.with_rules(remove=[("r", "one")]).match("two", {"a": 2}) == ["r"]


def test_adding_a_rule_of_the_same_id_replaces_it(engine):
    matcher = Matcher([("r", "t", compile_pattern({"a": [1]}))], engine=engine).with_rules(
        add=[("r", "t", compile_pattern({"a": [2]}))]
    )

    assert (matcher.match("t", {"a": 1}), matcher.match("t", {"a": 2}), len(matcher)) == ([], ["r"], 1)


def test_a_number_is_read_again_from_its_text_only_where_a_pattern_asks(engine):
    asked = []

    def exact():
        asked.append(1)
        return parse_exact(raw)

    raw = b'{"a": 100000000000000000000000000001, "b": 100000000000000000000000000001, "s": "x"}'
    document = orjson.loads(raw)
    indifferent = Matcher([("r", "t", compile_pattern({"s": ["x"], "b": [{"exists": True}]}))], engine=engine)
    asking = Matcher([
        ("same", "t", compile_pattern(parse_pattern_text('{"a": [100000000000000000000000000001]}'))),
        ("near", "t", compile_pattern(parse_pattern_text('{"a": [100000000000000000000000000000]}'))),
        ("range", "t", compile_pattern({"a": [{"numeric": [">", 1]}]})),
    ], engine=engine)  # fmt: skip

    assert indifferent.match("t", document, exact=exact) == ["r"]
    assert asked == []
    assert asking.match("t", document, exact=exact) == ["same"]
    assert asked == [1]


def _lines_run(work):
    """How many lines of the router run: a count of operations that no clock disturbs."""
    count = 0

    def trace(frame, kind, _argument):
        nonlocal count
        if "/router/" not in frame.f_code.co_filename:
            return None
        count += kind == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


HOSTILE = {
    "an array of objects that never agree": ({"e": {"f": ["A"], "l": ["B"], "m": ["C"]}}, lambda n: {"e": [{"f": "A", "l": "x", "m": "C"}, {"f": "y", "l": "B", "m": "C"}] * n}),
    "nested arrays of objects": ({"e": {"g": {"f": ["A"], "l": ["B"]}, "h": ["C"]}}, lambda n: {"e": [{"h": "C", "g": [{"f": "A"}, {"l": "B"}]}] * n}),
    "sibling arrays of objects": ({"e": {"f": ["A"]}, "g": {"f": ["A"], "k": ["C"]}}, lambda n: {"e": [{"f": "A"}] * n, "g": [{"f": "A"}, {"k": "C"}] * n}),
    "absence in every element": ({"e": {"a": [{"exists": False}], "f": ["A"], "g": ["B"]}}, lambda n: {"e": [{"f": "A", "a": 1}, {"g": "B"}] * n}),
    "a long array of values": ({"a": [{"prefix": "x"}], "b": ["y"]}, lambda n: {"a": ["z"] * n, "b": "y"}),
    "arrays in arrays": ({"a": ["x"], "b": ["y"]}, lambda n: {"a": [[["z"], "w"]] * n, "b": "y"}),
    "many other fields": ({"a": ["x"], "b": ["y"]}, lambda n: {**{f"k{at}": at for at in range(n)}, "a": "x", "b": "z"}),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_the_work_grows_no_faster_than_the_event(engine, name):
    pattern, event_of = HOSTILE[name]
    compiled = compile_pattern(pattern)
    matcher = Matcher([("r", "t", compiled)], engine=engine)
    small, large = event_of(50), event_of(400)
    assert matcher.match("t", small) == matcher.match("t", large) == []

    if engine == "native":  # it counts its own steps
        steps = [NativeIndex.of([("r", compiled)]).steps(event) for event in (small, large)]
    else:
        steps = [_lines_run(lambda event=event: matcher.match("t", event)) for event in (small, large)]

    assert steps[1] <= 9 * steps[0]


def test_an_event_nested_a_thousand_deep_is_matched(engine):
    deep = orjson.loads(b'{"a":' + b"[" * 900 + b'"x"' + b"]" * 900 + b"}")

    assert Matcher([("r", "t", compile_pattern({"a": ["x"]}))], engine=engine).match("t", deep) == ["r"]
