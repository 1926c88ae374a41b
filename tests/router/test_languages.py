"""Filters, CESQL, guards, dedup keys and extensions: the rules that are not plain patterns."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from router.cesql import compile_cesql, evaluate
from router.cesql_grammar import parse
from router.filters import compile_filters
from router.guard import compile_when
from router.matcher import Matcher
from router.pattern import compile_pattern
from router.rule import compile_key, compile_rule
from schemas.config import SubscriptionSpec
from schemas.errors import Invalid

EVENT = {"id": "evt_1", "type": "github.push", "source": "acme", "actor": "nora", "count": 5, "flag": True, "data": {"n": 3}}


# ── CESQL ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "value", "error"),
    [
        ("type = 'github.push'", True, None),
        ("TYPE like 'GITHUB.%'", False, None),
        ("count + 1 = 6 AND flag", True, None),
        ("2147483647 + 1", 0, "math"),
        ("-7 / 2", -3, None),
        ("-7 % 2", -1, None),
        ("1 = 1 OR missing", True, None),
        ("missing OR TRUE", False, "missingAttribute"),
        ("TRUE XOR TRUE AND FALSE", False, None),
        ("TRUE OR TRUE AND FALSE", False, None),
        ("data", False, "missingAttribute"),
        ("EXISTS data", False, None),
        ("NOT EXISTS missing", True, None),
        ("'x' + 1", 1, "cast"),
        ("LEFT('abc')", False, "missingFunction"),
        ("LENGTH(missing)", 0, "missingAttribute"),
        ("CONCAT_WS('-', 'a', 1, TRUE)", "a-1-true", None),
        ("'a%b' LIKE 'a\\%b'", True, None),
        ("'aXXb' LIKE 'a__b'", True, None),
        ("'ab' NOT LIKE 'a%'", False, None),
        ("3 NOT IN (1, 2)", True, None),
    ],
)
def test_cesql_gives_a_value_and_an_error(text, value, error):
    assert evaluate(parse(text), EVENT) == (value, error)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "character 1: wants an attribute"),
        ("type =", "wants an attribute (letters and digits), a literal, a function or (, not 'the end'"),
        ("type = 'x", "is no part of CESQL"),
        ("(type = 'x'", "wants ')'"),
        ("type 'x'", "character 6: wants an operator or the end"),
        ("x LIKE 123", "wants a string in quotes"),
        ("99999999999 = 1", "an integer of 32 bits"),
        ("my_attr = 1", "wants an attribute (letters and digits)"),
        ("(" * 60 + "1" + ")" * 60, "at most 50 levels of nesting"),
        ("NOT " * 60 + "TRUE", "at most 50 levels of nesting"),
        ("'" + "x" * 9000 + "'", "longer than 8192"),
        ("type = 'x' ; drop", "is no part of CESQL"),
    ],
)
def test_a_bad_expression_is_refused_with_its_place(text, part):
    with pytest.raises(Invalid) as refused:
        compile_cesql(text)

    assert part in refused.value.detail
    assert "in the expression" in refused.value.detail


names = st.sampled_from(["type", "source", "count", "flag", "missing"])
values = st.sampled_from(["'x'", "'github.push'", "'5'", "5", "TRUE", "'true'", "'01'"])
tests = st.one_of(
    st.tuples(names, st.sampled_from(["=", "!=", "<", ">="]), values).map(" ".join),
    st.tuples(names, st.sampled_from(["LIKE", "NOT LIKE"]), st.sampled_from(["'git%'", "'%h'", "'x_'", "'5%'", "'t%'"])).map(
        " ".join
    ),
    st.tuples(names, st.sampled_from(["IN", "NOT IN"]), st.lists(values, min_size=1, max_size=3)).map(
        lambda t: f"{t[0]} {t[1]} ({', '.join(t[2])})"
    ),
    names.map("EXISTS {}".format),
)
expressions = st.recursive(
    tests,
    lambda below: st.one_of(
        st.tuples(below, st.sampled_from(["AND", "OR", "XOR"]), below).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})"),
        below.map("NOT ({})".format),
    ),
    max_leaves=6,
)
attributes = st.dictionaries(
    st.sampled_from(["type", "source", "count", "flag"]),
    st.sampled_from(["x", "github.push", "5", 5, True, False, "true", 1]),
    max_size=4,
)


@given(text=expressions, event=attributes)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_index_never_hides_an_event_from_its_expression(engine, text, event):
    value, error = evaluate(parse(text), event)
    matcher = Matcher([("r", "t", compile_cesql(text))], engine=engine)

    assert matcher.match("t", event) == (["r"] if value is True and error is None else [])


# ── filters ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([{"exact": {"type": "github.push"}}], True),
        ([{"exact": {"type": "github.push", "source": "acme"}}], True),
        ([{"exact": {"type": "github.push", "source": "other"}}], False),
        ([{"exact": {"count": "5", "flag": "true"}}], True),
        ([{"exact": {"missing": "x"}}], False),
        ([{"prefix": {"type": "github."}}, {"suffix": {"type": ".push"}}], True),
        ([{"prefix": {"count": "5"}}], True),
        ([{"suffix": {"flag": "ue"}}], True),
        ([{"suffix": {"type": ".pull"}}], False),
        ([{"all": [{"prefix": {"type": "github."}}, {"exact": {"source": "acme"}}]}], True),
        ([{"any": [{"exact": {"type": "x"}}, {"exact": {"source": "acme"}}]}], True),
        ([{"any": [{"exact": {"type": "x"}}, {"exact": {"source": "y"}}]}], False),
        ([{"not": {"exact": {"type": "x"}}}], True),
        ([{"not": {"exact": {"missing": "x"}}}], True),
        ([{"not": {"any": [{"prefix": {"type": "git"}}]}}], False),
        ([{"sql": "type LIKE 'github.%'"}], True),
        ([{"sql": "missing = 'x'"}], False),
        ([{"not": {"sql": "missing = 'x'"}}], True),
    ],
)
def test_filters_pass_as_the_subscriptions_specification_says(engine, filters, expected):
    pattern = compile_filters(filters)

    assert pattern.matches(EVENT) is expected
    assert Matcher([("r", "t", pattern)], engine=engine).match("t", EVENT) == (["r"] if expected else [])


@pytest.mark.parametrize(
    ("filters", "part"),
    [
        ([], "filters: wants an array of one filter or more"),
        ([{}], "filters[0]: a filter is an object with one dialect"),
        ([{"like": {"type": "x"}}], "unknown dialect 'like'; known are exact, prefix"),
        ([{"exact": {}}], "filters[0].exact: wants an object of attributes"),
        ([{"exact": {"data": "x"}}], "'data' is no attribute; filters see attributes only (use `pattern` for data)"),
        ([{"exact": {"Type": "x"}}], "'Type' is no attribute"),
        ([{"prefix": {"type": ""}}], "filters[0].prefix.type: wants a string that is not empty"),
        ([{"suffix": {"type": 1}}], "filters[0].suffix.type: wants a string"),
        ([{"all": []}], "filters[0].all: wants an array"),
        ([{"any": [{"exact": {"type": "x"}}, "y"]}], "filters[0].any[1]: a filter is an object"),
        ([{"not": []}], "filters[0].not: a filter is an object"),
        ([{"sql": "type ="}], "filters[0].sql: character 7"),
        ([{"sql": 1}], "filters[0].sql: wants a CESQL expression"),
    ],
)
def test_bad_filters_are_refused_with_their_place(filters, part):
    with pytest.raises(Invalid) as refused:
        compile_filters(filters)

    assert part in refused.value.detail
    assert "in the filters" in refused.value.detail


def test_filters_nested_too_deep_are_refused():
    nested = {"exact": {"type": "x"}}
    for _ in range(40):
        nested = {"not": nested}

    with pytest.raises(Invalid, match="nested deeper"):
        compile_filters([nested])


# ── when ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("event.type == 'github.push' && data.n > 2", True),
        ("data.n > 5", False),
        ("data.missing == 1", False),
        ("has(data.missing) || data.n == 3", True),
        ("data", False),
    ],
)
def test_a_guard_says_yes_or_no_and_an_error_is_no(text, expected):
    assert compile_when(text).holds(EVENT, 0) is expected


def test_a_guard_that_runs_too_long_is_no():
    guard = compile_when("data.l.all(a, data.l.all(b, data.l.all(c, a + b + c >= 0)))")

    assert guard.holds({"data": {"l": list(range(10))}}, 0) is True
    assert guard.holds({"data": {"l": list(range(100))}}, 0) is False


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("data.n >", "Syntax error"),
        ("nope == 1", "undeclared reference to 'nope'"),
        ("1 + 1", "gives INT, and must give true or false"),
        ("x" * 3000, "3000 characters, the most is 2048"),
        ("data.a.all(a, data.a.all(b, data.a.all(c, data.a.all(d, data.a.all(e, true)))))", "5 loops"),
    ],
)
def test_a_bad_guard_is_refused(text, part):
    with pytest.raises(Invalid) as refused:
        compile_when(text)

    assert part in refused.value.detail


# ── subscriptions ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "written",
    [
        {"pattern": {"type": ["github.push"]}},
        {"filters": [{"exact": {"type": "github.push"}}]},
        {"cesql": "type = 'github.push'"},
        {"pattern": {"type": [{"regex": "github[.].*"}]}, "extensions": ["regex"]},
        {"pattern": {"type": ["github.push"]}, "when": "data.n == 3"},
    ],
)
def test_a_subscription_says_which_events_in_one_of_three_languages(written):
    rule = compile_rule(SubscriptionSpec(agent="a", **written))

    assert rule.matches(EVENT)
    assert not rule.matches({**EVENT, "type": "other", "data": {}})


@pytest.mark.parametrize("written", [{}, {"pattern": {"type": ["x"]}, "cesql": "TRUE"}, {"filters": [{}], "cesql": "TRUE"}])
def test_a_subscription_in_no_language_or_in_two_is_refused(written):
    with pytest.raises(ValidationError, match="pattern, filters and cesql"):
        SubscriptionSpec(agent="a", **written)


def test_an_unknown_extension_is_refused():
    with pytest.raises(Invalid, match="unknown extension 'regexp'; known are"):
        compile_rule(SubscriptionSpec(agent="a", pattern={"type": ["x"]}, extensions=["regexp"]))


@pytest.mark.parametrize(
    ("expression", "key"),
    [
        ("type", '"github.push"'),
        ("[type, data.n]", '["github.push",3]'),
        ("{b: data.n, a: type}", '{"a":"github.push","b":3}'),
        ("data.missing", None),
        ("length(data.n)", None),
    ],
)
def test_a_dedup_key_is_canonical_json_or_none(expression, key):
    assert compile_key(expression)(EVENT) == key


def test_a_bad_dedup_key_is_refused():
    with pytest.raises(Invalid, match=r"dedup\.key"):
        compile_key("data.[")


# ── extensions ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _extended(pattern):
    return compile_pattern(pattern, extensions=True)


def test_all_of_asks_for_every_value_and_may_stand_among_alternatives():
    pattern = _extended({"l": [{"all-of": ["a", {"prefix": "p"}]}, "z"]})

    assert [pattern.matches({"l": values}) for values in (["a", "p1"], ["a"], ["p1", "b"], ["z"], [])] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_age_is_judged_by_the_time_given():
    pattern = _extended({"time": [{"age": {"lt": "10m", "ge": "1m"}}]})
    at = 1_795_255_200_000  # 2026-11-21T10:00:00Z

    def matches(minutes, time="2026-11-21T10:00:00Z"):
        return pattern.matches({"time": time}, now_ms=at + int(minutes * 60_000))

    assert [matches(0.5), matches(1), matches(9.9), matches(10)] == [False, True, True, False]
    assert not matches(5, "yesterday")
    assert not matches(5, 17)


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        ({"a": [{"age": {"lt": "10m"}}, "x"]}, "age stands alone"),
        ({"a": [{"age": {"before": "10m"}}]}, "wants lt, le, gt, ge"),
        ({"a": [{"age": {"lt": "soon"}}]}, "is no span of time"),
        ({"a": [{"all-of": []}]}, "a[0].all-of: wants an array"),
        ({"a": [{"all-of": [["x"]]}]}, "a[0].all-of[0]"),
        ({"a": [{"regex": "("}]}, "is no RE2 expression"),
        ({"a": [{"regex": "(?=x)"}]}, "is no RE2 expression"),
        ({"$not": ["x"]}, "$not: wants an object"),
        ({"a": [{"wildcard": "*".join("x" * 40)}]}, "the most is 32"),
        ({"a": [{"anything-but": {"exists": True}}]}, "cannot stand inside anything-but"),
    ],
)
def test_a_bad_use_of_an_extension_is_refused(pattern, part):
    with pytest.raises(Invalid) as refused:
        _extended(pattern)

    assert part in refused.value.detail


def test_a_wildcard_in_any_case_stays_linear_on_hostile_text():
    pattern = _extended({"a": [{"wildcard": {"equals-ignore-case": "*a*a*a*a*a*a*a*a*a*a*b"}}]})

    assert not pattern.matches({"a": "a" * 20_000})
    assert pattern.matches({"a": "A" * 20_000 + "B"})
