"""Views learn from use, deterministically."""

from __future__ import annotations

import pytest

from curator.suggest import suggested
from curator.view import compile_view

VIEW = "{title: data.issue.title, body: data.issue.body}"


def test_what_agents_keep_fetching_joins_the_view():
    fetched = ["/issue/user/login"] * 30 + ["/issue/labels/0/name"] * 25 + ["/repository/id"] * 3

    found = suggested(VIEW, fetched, contexts=100)

    assert (
        found
        == "{title: data.issue.title, body: data.issue.body, login: data.issue.user.login, name: data.issue.labels[0].name}"
    )
    assert compile_view(found).of({"data": {"issue": {"user": {"login": "nora"}}}})["login"] == "nora"


def test_a_name_that_is_taken_gets_more_words():
    assert suggested(VIEW, ["/comment/body"], contexts=1) == VIEW[:-1] + ", comment_body: data.comment.body}"


def test_an_odd_key_is_quoted():
    assert suggested("{}", ["/event-data/x y"], contexts=1) == '{x_y: data."event-data"."x y"}'


@pytest.mark.parametrize(
    ("view", "fetched", "contexts"),
    [
        (VIEW, [], 10), (VIEW, ["/issue/title"] * 10, 10), (VIEW, ["/rare"], 100), (VIEW, [""] * 10, 10), (VIEW, ["/a"], 0),
        ("data.issue", ["/a"] * 10, 10),
    ],
)  # fmt: skip
def test_nothing_is_suggested_where_nothing_would_change(view, fetched, contexts):
    assert suggested(view, fetched, contexts=contexts) is None
