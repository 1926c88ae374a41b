"""One event's context: the same bytes everywhere, clean, within its budget."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256

import orjson
import pytest

from curator.budget import fitted
from curator.curate import DEFAULT_MAX_TOKENS, curate
from curator.tokens import Bpe, Scaled, ThirdOfBytes, counter_for, default_counter, estimated
from schemas.errors import Invalid

ISSUE = {
    "action": "opened",
    "issue": {"number": 42, "title": "Checkout charges twice", "body": "I press pay twice", "node_id": "x"},
}
VIEW = "{title: data.issue.title, author: actor, body: data.issue.body}"


def test_the_view_gives_the_context(event):
    found = curate(event(ISSUE), ISSUE, view=VIEW, max_tokens=800)

    assert orjson.loads(found.context) == {"title": "Checkout charges twice", "author": "nora", "body": "I press pay twice"}
    assert found.tokens == default_counter().count(found.context.decode())
    assert found.digest == sha256(found.context).hexdigest()
    assert found.left_out == ()


def test_a_view_keeps_its_nulls(event):
    assert curate(event(ISSUE), ISSUE, view="{a: data.nothing}", max_tokens=None).context == b'{"a":null}'


def test_without_a_view_the_default_one_of_the_type_is_taken(event):
    found = curate(event(ISSUE, type="github.issues.opened"), ISSUE, view=None, max_tokens=None)

    assert orjson.loads(found.context) == {
        "action": "opened",
        "number": 42,
        "title": "Checkout charges twice",
        "body": "I press pay twice",
    }


def test_a_type_without_a_default_view_gets_the_generic_one(event):
    found = curate(event(ISSUE), ISSUE, view=None, max_tokens=None)

    assert orjson.loads(found.context)["issue"] == {
        "number": 42,
        "title": "Checkout charges twice",
        "body": "I press pay twice",
    }
    assert found.left_out == ("machinery: 1",)


def test_a_default_view_that_finds_nothing_gives_way_to_the_generic_one(event):
    other = {"unheard": "of"}

    assert curate(event(other, type="github.issues.opened"), other, view=None, max_tokens=None).context == b'{"unheard":"of"}'


def test_a_view_that_fails_on_an_event_gives_the_generic_one_and_says_so(event):
    found = curate(event(ISSUE), ISSUE, view="{n: length(data.issue.number)}", max_tokens=None)

    assert orjson.loads(found.context)["action"] == "opened"
    assert found.left_out[0].startswith("the view failed")


def test_a_bad_view_is_refused(event):
    with pytest.raises(Invalid):
        curate(event(ISSUE), ISSUE, view="{a: b", max_tokens=None)


def test_a_view_that_blows_up_a_big_body_gives_the_generic_one(event):
    data = {"text": "x" * 1_000_000}

    found = curate(event(data), data, view="[@, @, @, @, @, @, @, @]", max_tokens=None)

    assert "too large" in found.left_out[0]


@pytest.mark.parametrize("data", [None, [], {}, "text", 0, [1, 2]])
def test_any_body_has_a_context(event, data):
    found = curate(event(data), data, view=None, max_tokens=50)

    orjson.loads(found.context)


def test_raw_tokens_are_estimated_from_the_length_and_counted_when_asked(event):
    data = {"text": "word " * 4000}
    one = event(data)

    assert curate(one, data, view=VIEW, max_tokens=None).raw_tokens == estimated(len(one.body))
    assert curate(one, data, view=VIEW, max_tokens=None, exact_raw=True).raw_tokens == default_counter().count(
        one.body.decode()
    )


def test_hidden_characters_are_taken_out_and_counted(event):
    data = {"issue": {"title": "a\u200bb\u202ec\U000e0041d\x1be", "body": "tab\tline\nstay"}}

    found = curate(event(data), data, view=VIEW, max_tokens=None)

    assert orjson.loads(found.context)["title"] == "abcde"
    assert orjson.loads(found.context)["body"] == "tab\tline\nstay"
    assert found.left_out == ("hidden characters: 4",)


def test_without_a_budget_of_its_own_a_context_has_the_default_one(event):
    data = {"issue": {"title": "T", "body": "different words here " * 20_000}}

    found = curate(event(data), data, view=VIEW, max_tokens=None)

    assert found.tokens <= DEFAULT_MAX_TOKENS
    assert found.left_out[0].startswith("/body (+")


def test_prose_is_shortened_before_a_fact_goes(event):
    data = {"issue": {"title": "T", "body": "many words in a row " * 500, "number": 7}}

    found = curate(
        event(data), data, view="{title: data.issue.title, body: data.issue.body, number: data.issue.number}", max_tokens=120
    )
    value = orjson.loads(found.context)

    assert found.tokens <= 120
    assert (value["title"], value["number"]) == ("T", 7)
    assert value["body"].endswith("characters]")


def test_the_envelope_is_part_of_the_budget(event):
    data = {"issue": {"title": "T", "body": "many words in a row " * 500}}

    assert curate(event(data), data, view=VIEW, max_tokens=300, reserve_tokens=200).tokens <= 100
    assert curate(event(data), data, view=VIEW, max_tokens=100, reserve_tokens=200).context == b"{}"


def test_facts_go_whole_and_the_last_first(event):
    data = {f"f{n:02}": f"a value of some words, the {n}th" for n in range(50)}

    found = curate(event(data), data, view="data", max_tokens=200)
    value = orjson.loads(found.context)

    assert found.tokens <= 200
    assert list(value) == [f"f{n:02}" for n in range(len(value))]
    assert all(value[name] == data[name] for name in value)
    assert len(value) + len(found.left_out) == 50


def test_the_bytes_are_the_same_in_another_process(event):
    data = {"b": {"z": 1, "a": ["é", "x" * 900]}, "a": "word " * 900, "c": [{"id": n} for n in range(30)]}
    script = (
        "import sys, json\nfrom curator.curate import curate\nfrom schemas.event import Event\n"
        "d = json.loads(sys.stdin.read())\n"
        "e = Event(**d['event'], body=d['body'].encode())\n"
        "sys.stdout.write(curate(e, json.loads(d['body']), view=None, max_tokens=150).digest)"
    )
    one = event(data)
    fields = {name: getattr(one, name) for name in ("id", "team", "source", "provider", "family", "type", "partitionkey", "time_ms",
              "received_ms", "traceparent", "datacontenttype", "actor")}  # fmt: skip
    digests = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script], input=json.dumps({"event": fields, "body": one.body.decode()}),
            capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip

    assert digests == {curate(one, data, view=None, max_tokens=150).digest}


def test_a_model_that_is_not_public_is_counted_with_a_margin():
    text = "some words to count, " * 20

    assert counter_for("gpt-5.1").count(text) == Bpe().count(text)
    assert counter_for("claude-opus-4").count(text) == -int(-Bpe().count(text) * 1.4 // 1)
    assert counter_for("something-new").count(text) == counter_for("claude-opus-4").count(text)
    assert counter_for("gpt-5.1", factor=1.1).count(text) > Bpe().count(text)


def test_a_factor_that_would_undercount_is_refused():
    with pytest.raises(ValueError, match="beyond its budget"):
        Scaled(Bpe(), 0.9)


def test_a_count_within_a_limit_agrees_with_the_full_count():
    for counter in (Bpe(), ThirdOfBytes(), Scaled(Bpe(), 1.4)):
        for limit in range(8, 40):
            text = "a few words, " * 5
            full, within = counter.count(text), counter.count_within(text, limit)
            assert within == full if full <= limit else within is None


def test_what_is_required_is_never_cut():
    value = {"keep": "required words " * 30, **{f"f{n}": "some other words" for n in range(100)}}

    found = fitted(value, orjson.dumps(value), 100, default_counter(), required=frozenset({("keep",)}))

    assert found.fits
    assert found.tokens <= 100
    assert found.value["keep"] == value["keep"]
    assert len(found.value) < 20


def test_a_requirement_beyond_the_budget_is_told():
    value = {"keep": "required words " * 300, "other": "x"}

    found = fitted(value, orjson.dumps(value), 20, default_counter(), required=frozenset({("keep",)}))

    assert not found.fits
    assert found.value == {"keep": value["keep"]}
