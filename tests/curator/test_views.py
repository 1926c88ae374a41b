"""Every default view keeps the facts that it declares, and is small."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from curator.curate import curate, without_empty
from curator.tokens import default_counter
from curator.view import MAX_COPIES, compile_view
from curator.views import catalogue, default_view
from payload.pointer import MISSING, reach, steps_of
from payload.read import view as view_of

VIEWS = catalogue()
IDS = [f"{each.families[0]}-{each.name}" for each in VIEWS]
# Where a vendor is known by another name in the payload corpus than its events are.
FAMILIES = {"gitlab_token": "gitlab", "slack_events": "slack", "slack_interactivity": "slack", "slack_slash_command": "slack",
            "stripe_connect": "stripe", "grafana_alerting": "grafana"}  # fmt: skip


def output(view, data):
    return compile_view(view).of({"type": "x", "actor": "", "data": data})


@pytest.mark.parametrize("each", VIEWS, ids=IDS)
def test_each_declared_fact_stands_in_the_views_output(each):
    found = output(each.view, each.example)

    assert len(each.facts) >= 2
    for there, here in each.facts:
        value = reach(each.example, steps_of(there))
        assert value is not MISSING, there
        assert value == reach(found, steps_of(here)), (there, here)


@pytest.mark.parametrize("each", VIEWS, ids=IDS)
def test_each_view_names_its_example_and_its_types(each):
    assert each.source
    assert each.types
    assert compile_view(each.view).copies <= MAX_COPIES
    for kind in each.types:
        named = f"{each.families[0]}.{kind}".replace("*", "anything")
        assert default_view(named) is not None


def test_there_are_views_for_many_types_of_many_vendors():
    types = {f"{each.families[0]}.{kind}" for each in VIEWS for kind in each.types if "*" not in kind}

    assert len(types) >= 120
    assert len({each.families[0] for each in VIEWS}) >= 25


def test_no_two_views_are_for_the_same_type():
    taken = Counter(f"{family}.{kind}".lower() for each in VIEWS for family in each.families for kind in each.types)

    assert [kind for kind, count in taken.items() if count > 1] == []


def test_a_type_is_found_however_its_words_are_parted():
    expected = default_view("bitbucket.pullrequest:created")

    assert expected is not None
    assert default_view("bitbucket.pullrequest_created") is expected
    assert default_view("Bitbucket.PullRequest:Created") is expected


def test_a_longer_prefix_wins_over_a_shorter_one():
    assert default_view("github.issues.whatever") is default_view("github.issues.opened")
    assert default_view("trello.anything") is default_view("trello.updateCard")
    assert default_view("nobody.knows.this") is None


def test_a_jobs_view_names_the_steps_that_failed():
    [view] = [each for each in VIEWS if each.families[0] == "github" and each.name == "workflow_job"]

    assert output(view.view, view.example)["failed"] == ["Run tests"]


def test_the_views_keep_every_fact_of_the_corpus(payloads, facts):
    checked = lost = 0
    for each in payloads:
        kind = each["expect"].get("type_contains")
        data, _ = view_of(each["body"].encode(), each["content_type"])
        if isinstance(data, dict) and each["provider"] == "github" and isinstance(data.get("action"), str):
            kind = f"{kind}.{data['action']}"
        view = default_view(f"{FAMILIES.get(each['provider'], each['provider'])}.{kind}")
        found = without_empty(view.of({"data": data, "actor": "", "type": kind})) if view else None
        values = set(map(json.dumps, leaves(found))) if found else set()
        for fact in facts.get((each["provider"], each["name"]), ()) if found else ():
            checked += 1
            lost += json.dumps(fact["value"]) not in values

    assert checked > 400
    assert lost == 0


def test_the_views_of_repository_hosts_leave_a_twentieth(payloads, event):
    raw = left = 0
    for each in payloads:
        if each["provider"] == "github" and isinstance(data := json.loads(each["body"]), dict):
            kind = ".".join(filter(None, ["github", each["expect"].get("type_contains") or "", data.get("action", "")]))
            if default_view(kind):
                raw += default_counter().count(each["body"])
                left += curate(event(type=kind, body=each["body"].encode()), data, view=None, max_tokens=None).tokens

    assert raw > 0
    assert left <= 0.05 * raw


def leaves(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value
