"""Views are checked when saved, compiled once, and mean what JMESPath means."""

from __future__ import annotations

import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.view import MAX_VIEW_CHARS, ViewFailed, check_view, compile_view
from schemas.errors import Invalid

DOCUMENT = {
    "actor": "nora",
    "data": {
        "issue": {"title": "T", "number": 4, "labels": [{"name": "bug"}, {"name": None}, {"name": "x"}], "body": ""},
        "zero": 0, "empty": "", "no": False, "list": [1, 2, 3], "map": {"a": {"v": 1}, "b": {"v": 2}},
    },
}  # fmt: skip
GOOD = [
    "{title: data.issue.title, author: actor, body: data.issue.body}", "data.issue.labels[].name", "data.issue.labels[*].name",
    "data.zero || data.issue.number", "data.empty || `1`", "data.issue | {a: title, b: body}", "data.nothing.at.all",
    "data.issue.labels[?name=='bug'].name | [0]", "data.issue.labels[0].name", "length(data.issue.labels)", "data.list[-2:]",
    "join(', ', data.issue.labels[?name].name)", "data.issue.labels[].{n: name}", "[actor, data.zero]", "data.map.*.v",
    "data.nothing.{a: b}", "to_string(data.zero)", "keys(data.map)", "!data.no", "data.issue.title && actor", "@", "data.no || data.empty",
    "sort_by(data.issue.labels[?name], &name)[*].name", 'data.issue."title"', "data.list[*]", "{a: @.actor}", "max(data.list)",
    "data.actor.x.y", "actor.x", "data.list.x", "{a: data.list[0], b: data.list[9]}", "data.[issue.title, zero]", "*.issue.title",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_a_view_gives_what_jmespath_gives(text):
    assert compile_view(text).of(DOCUMENT) == jmespath.search(text, DOCUMENT)


names = st.sampled_from(["data", "issue", "title", "labels", "name", "zero", "empty", "map", "a", "list", "actor"])
paths = st.lists(names, min_size=1, max_size=4).map(".".join)
expressions = st.recursive(
    paths,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: f"{pair[0]} || {pair[1]}"),
        st.tuples(paths, inner).map(lambda pair: f"{pair[0]}[*].{{k: {pair[1]}}}"),
        st.tuples(inner, paths).map(lambda pair: f"({pair[0]}) | {pair[1]}"),
        st.tuples(inner, inner).map(lambda pair: f"{{p: {pair[0]}, q: {pair[1]}}}"),
        inner.map(lambda one: f"[{one}]"),
    ),
    max_leaves=5,
)


@settings(max_examples=300, deadline=None)
@given(expressions)
def test_any_view_of_the_compiled_kinds_gives_what_jmespath_gives(text):
    try:
        found = compile_view(text).of(DOCUMENT)
    except Invalid:
        return
    assert found == jmespath.search(text, DOCUMENT)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"), ("   ", "empty"), ("{a: b", "character 6"), ("a..b", "⟨here⟩.b"), ("foo(bar)", "foo()"), ("'x", "Unclosed"),
        ("length(a, b)", "takes 1"), ("join(a)", "takes 2"), ("a b", "'b' is not expected"), ("-", "Unknown token"), ("@@", "'@'"),
        ("[@,@]" + "|[@,@]" * 20, "repeat one value"), ("[" + ",".join(["@"] * 600) + "]", "repeat one value"),
        ("a" * (MAX_VIEW_CHARS + 1), str(MAX_VIEW_CHARS)), ("!" * 100 + "a", "nested deeper"), ("(" * 3000 + "a", "nested"),
        ("{a: upper(b)}", "upper()"),
    ],
)  # fmt: skip
def test_a_bad_view_is_refused_quoting_the_place(text, says):
    with pytest.raises(Invalid) as refused:
        check_view(text)

    assert says in refused.value.detail


@pytest.mark.parametrize(
    "text", ["length(data.zero)", "sum(data.issue.labels)", "sort(data.map)", "join(', ', data.issue.labels)"]
)
def test_a_view_that_meets_a_wrong_value_says_so(text):
    with pytest.raises(ViewFailed):
        compile_view(text).of(DOCUMENT)


def test_a_view_is_compiled_once():
    assert compile_view(GOOD[0]) is compile_view(GOOD[0])
