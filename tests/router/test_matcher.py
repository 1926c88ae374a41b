"""The index against a naive matcher, through random rule sets, events and changes."""

import copy
import sys
from pathlib import Path

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
import naive  # the oracle stands beside this file, which is no package
import strategies

from router.matcher import Matcher
from router.pattern import compile_pattern

quick = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
rule_sets = st.lists(strategies.patterns, max_size=12)


@given(pattern=strategies.patterns, event=strategies.events)
@settings(quick, max_examples=1500)
def test_a_pattern_matches_as_the_naive_matcher_says(pattern, event):
    expected = naive.matches(pattern, event)

    assert compile_pattern(pattern).matches(event) is expected


@given(patterns=rule_sets, events=st.lists(strategies.events, min_size=1, max_size=4))
@quick
def test_the_index_finds_what_trying_every_rule_finds(patterns, events):
    compiled = [compile_pattern(pattern) for pattern in patterns]
    matcher = Matcher((f"r{at}", "t", pattern) for at, pattern in enumerate(compiled))

    for event in events:
        expected = sorted(f"r{at}" for at, pattern in enumerate(patterns) if naive.matches(pattern, event))
        assert matcher.match("t", event) == expected


changes = st.lists(st.tuples(st.integers(0, 9), st.one_of(st.none(), strategies.patterns)), max_size=24)


@given(first=rule_sets, changed=changes, event=strategies.events)
@quick
def test_the_index_stays_right_through_adds_and_removes_and_old_snapshots_stay_what_they_were(first, changed, event):
    rules = {f"r{at}": pattern for at, pattern in enumerate(first)}
    matcher = Matcher((rule, "t", compile_pattern(pattern)) for rule, pattern in rules.items())
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
def test_matching_never_changes_the_event(patterns, event):
    before = copy.deepcopy(event)
    matcher = Matcher((f"r{at}", "t", compile_pattern(pattern)) for at, pattern in enumerate(patterns))

    matcher.match("t", event)

    assert event == before
    assert orjson.dumps(event) == orjson.dumps(before)
