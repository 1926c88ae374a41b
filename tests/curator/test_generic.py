"""The generic view keeps what identifies and what changed, and is small."""

from __future__ import annotations

import orjson
import pytest

from curator.generic import MAX_FIELDS, MAX_ITEMS, MAX_TEXT_CHARS, pruned, shortened
from curator.tokens import default_counter
from payload.pointer import reach, steps_of
from payload.read import view as view_of


def left(data):
    return pruned(data)[0]


def test_links_ids_nulls_and_empties_are_left_out():
    data = {
        "title": "Broken",
        "node_id": "MDU6",
        "events_url": "https://api.github.com/x{/y}",
        "a": None,
        "b": "",
        "c": [],
        "d": {},
    }

    assert pruned(data) == ({"title": "Broken"}, {"empty": 4, "links": 1, "machinery": 1})


def test_the_link_that_people_open_is_kept_once():
    data = {
        "issue": {"html_url": "https://github.com/a/b/issues/1", "url": "https://api.github.com/repos/a/b/issues/1", "n": 1}
    }

    assert left(data) == {"issue": {"html_url": "https://github.com/a/b/issues/1", "n": 1}}


def test_a_holder_of_links_gives_the_one_for_people():
    data = {
        "pr": {
            "id": 1,
            "links": {"self": {"href": "https://api.x/1"}, "html": {"href": "https://x/1"}, "diff": {"href": "https://x/d"}},
        }
    }

    assert left(data)["pr"]["links"] == {"html": {"href": "https://x/1"}}


def test_a_mentioned_thing_keeps_only_what_names_it():
    data = {
        "repository": {
            "id": 1,
            "full_name": "a/b",
            "name": "b",
            "forks": 3,
            "has_wiki": True,
            "owner": {"login": "a", "id": 2, "x": 1},
        }
    }

    assert left(data) == {"repository": {"full_name": "a/b", "name": "b", "owner": {"login": "a"}}}


def test_what_changed_is_kept():
    data = {"action": "edited", "changes": {"title": {"from": "Old", "to": "New"}}, "object": {"id": "1"}}

    assert left(data)["changes"] == {"title": {"from": "Old", "to": "New"}}


def test_a_long_text_is_cut_with_a_visible_mark():
    text = "word " * 500

    assert left({"body": text})["body"] == f"{text[:MAX_TEXT_CHARS]}… [+{len(text) - MAX_TEXT_CHARS} characters]"
    assert shortened("short", 10) == "short"


def test_a_long_list_is_cut_with_a_visible_mark():
    found = left({"rows": [{"n": n} for n in range(1, 40)]})["rows"]

    assert len(found) == MAX_ITEMS + 1
    assert found[-1] == f"… {39 - MAX_ITEMS} more"


def test_a_record_of_five_thousand_fields_is_cut_with_a_visible_mark():
    found = left({f"custom_{n}": n + 1 for n in range(5000)})

    assert len(found) == MAX_FIELDS + 1
    assert found["…"] == f"{5000 - MAX_FIELDS} more fields"


def test_a_repeated_thing_is_told_once():
    thing = {"id": "x1", "title": "T", "state": "open", "a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    found = left({"first": thing, "second": dict(thing)})

    assert found["first"]["e"] == 5
    assert found["second"] == {"id": "x1", "title": "T", "state": "open"}


def test_secrets_that_vendors_put_in_bodies_are_left_out():
    assert left({"token": "xoxb-1", "text": "hi", "response_url": "https://hooks.slack.com/x", "trigger_id": "1.2"}) == {
        "text": "hi"
    }


def test_pointers_into_the_body_are_pointers_into_the_view():
    data = {"a": None, "list": [{"x": 1}, {"x": 2}], "deep": {"er": {"title": "T"}}}
    found = left(data)

    assert reach(found, steps_of("/list/1/x")) == 2
    assert reach(found, steps_of("/deep/er/title")) == "T"


@pytest.mark.parametrize("data", [None, "", [], {}, 0, "text", [1, "a"], True, {"a": {"b": {"c": {}}}}])
def test_anything_may_be_pruned(data):
    orjson.dumps(left(data))


def test_deep_nesting_ends():
    data = leaf = {}
    for _ in range(500):
        leaf["inner"] = {"n": 1}
        leaf = leaf["inner"]

    assert pruned(data)[1]["too deep"] == 1


def test_the_corpus_loses_seven_tenths_and_keeps_its_facts(payloads, facts):
    raw = small = checked = kept = 0
    for each in payloads:
        data, _ = view_of(each["body"].encode(), each["content_type"])
        found = left(data)
        raw += default_counter().count(orjson.dumps(data).decode())
        small += default_counter().count(orjson.dumps(found).decode())
        for fact in facts.get((each["provider"], each["name"]), ()):
            checked += 1
            kept += reach(found, steps_of(fact["pointer"])) == fact["value"]

    assert small <= 0.30 * raw
    assert kept >= 0.98 * checked
