"""The whole contract: parts in their order of sacrifice, what is required kept, one budget over all."""

from __future__ import annotations

import json
import os

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.budget import GAP, at
from curator.compose import Materials, compose
from curator.contract import LEAST_TOKENS, contract_of
from curator.ports import Found, KnownFact, PastEvent
from curator.tokens import default_counter
from schemas.config import ContextSpec
from schemas.errors import Invalid
from tests.curator.conftest import make_event

NOW = 1_795_149_373_000
HOUR = 3_600_000
DATA = {
    "issue": {"title": "Checkout charges twice", "number": 42, "body": "I press pay twice. " * 40, "author_association": "NONE"}
}
VIEW = "{title: data.issue.title, number: data.issue.number, body: data.issue.body}"
PAST = [
    PastEvent(f"evt_{n}", "github.issues.labeled", NOW - n * HOUR, "nora", f"Issue 42 labeled for the {n}th time", "done")
    for n in range(1, 9)
]
KNOWN = [
    KnownFact("tier", "gold", "triage", NOW - 72 * HOUR, pinned=True),
    KnownFact("refunded", True, "billing", NOW - 2 * HOUR),
    KnownFact("note", "called back", "nora", NOW - 30 * HOUR),
    KnownFact("old", 1, "nora", NOW - 40 * HOUR, expires_ms=NOW - 1),
]
CRM = {"crm": {"url": "https://crm.example/{data.issue.number}"}}


NOTHING = Materials()


def made(spec: dict, data=DATA, materials=NOTHING, **wanted):
    contract = contract_of(ContextSpec(**spec))
    return compose(contract, make_event(data), data, materials, invocation_id="inv_1", fence_secret=b"k" * 32, **wanted)


def part(found, name):
    return next((orjson.loads(text) for each, text in found.siblings if each == name), None)


def sent(found) -> str:
    """The members as a protocol writes them."""
    return '{"context":' + found.context.decode() + "".join(f',"{name}":{text.decode()}' for name, text in found.siblings) + "}"


def test_all_parts_stand_beside_the_context():
    found = made(
        {"view": VIEW, "history": {"events": 2}, "facts": ["*"], "enrich": CRM},
        materials=Materials(PAST, KNOWN, {"crm": Found({"plan": "pro"}, NOW - 60_000)}),
    )

    assert orjson.loads(found.context)["number"] == 42
    assert part(found, "history") == [
        "1h ago github.issues.labeled by nora: Issue 42 labeled for the 1th time (done)",
        "2h ago github.issues.labeled by nora: Issue 42 labeled for the 2th time (done)",
    ]
    assert part(found, "facts") == {
        "tier": {"value": "gold", "by": "triage", "age": "3d"},
        "refunded": {"value": True, "by": "billing", "age": "2h"},
        "note": {"value": "called back", "by": "nora", "age": "1d"},
    }
    assert part(found, "enrich") == {"crm": {"value": {"plan": "pro"}, "age": "1m"}}
    assert part(found, "provenance")["standing"] == "NONE"
    assert part(found, "manifest")["counter"] == "o200k_base"
    assert found.verdict == "deliver"


def test_a_failed_lookup_is_told_and_the_rest_goes_on():
    found = made({"view": VIEW, "enrich": CRM}, materials=Materials(lookups={"crm": Found(failure="timeout")}))

    assert found.missing == ("crm: timeout",)
    assert part(found, "missing") == ["crm: timeout"]
    assert found.verdict == "deliver"


def test_the_oldest_history_goes_first_then_facts_then_lookups():
    spec = {"view": VIEW, "history": {"events": 8}, "facts": ["*"], "enrich": CRM}
    materials = Materials(PAST, KNOWN, {"crm": Found({"plan": "pro"}, NOW)})
    whole = made(spec, materials=materials)
    kinds = []
    for limit in range(whole.tokens, 150, -15):
        found = made({**spec, "max_tokens": limit}, materials=materials)
        assert found.tokens <= limit
        left = len(part(found, "history") or []), len(part(found, "facts") or {}), len(part(found, "enrich") or {})
        kinds.append(left)
        if orjson.loads(found.context).get("body") != DATA["issue"]["body"]:
            assert left == (0, 1, 0)  # the pinned fact stays
        if left[2] == 0:
            assert left[:2] == (0, 1)
        if left[1] < 3:
            assert left[0] == 0

    assert kinds == sorted(kinds, reverse=True)
    assert kinds[-1] == (0, 1, 0)


def test_a_required_fact_is_kept_where_others_go():
    spec = {"view": VIEW, "facts": ["*"], "required": ["title", "facts.note"], "max_tokens": 160}

    found = made(spec, materials=Materials(facts=KNOWN))

    assert set(part(found, "facts")) == {"tier", "note"}
    assert orjson.loads(found.context)["title"] == DATA["issue"]["title"]


@pytest.mark.parametrize(("on_missing", "verdict"), [("flag", "deliver"), ("park", "park"), ("refuse", "refuse")])
def test_an_absent_required_fact_is_decided_by_on_missing(on_missing, verdict):
    found = made({"view": VIEW, "required": ["customer"], "on_missing": on_missing})

    assert found.verdict == verdict
    assert "customer" in found.missing
    assert (verdict == "deliver") == (not found.reason)


@pytest.mark.parametrize(("on_missing", "verdict"), [("flag", "park"), ("park", "park"), ("refuse", "refuse")])
def test_a_required_fact_that_cannot_fit_is_never_cut(on_missing, verdict):
    found = made({"view": VIEW, "required": ["body"], "max_tokens": 60, "on_missing": on_missing})

    assert orjson.loads(found.context)["body"] == DATA["issue"]["body"]
    assert found.verdict == verdict


@pytest.mark.parametrize(("on_overflow", "verdict"), [("cut", "deliver"), ("park", "park"), ("refuse", "refuse")])
def test_an_overflow_is_decided_by_on_overflow(on_overflow, verdict):
    found = made({"view": VIEW, "max_tokens": 120, "on_overflow": on_overflow})

    assert found.verdict == verdict
    assert found.left_out


def test_the_envelope_is_part_of_the_budget():
    found = made({"view": VIEW, "max_tokens": 300}, reserve_tokens=180)

    assert found.tokens <= 120


def test_ages_are_told_from_the_events_own_time():
    first = made({"view": VIEW, "history": {"events": 8}}, materials=Materials(PAST))

    assert made({"view": VIEW, "history": {"events": 8}}, materials=Materials(list(reversed(PAST)))).digest == first.digest


def test_pinned_facts_survive_any_number_of_runs():
    facts = list(KNOWN)
    for run in range(50):
        facts.append(KnownFact(f"step{run}", "done", "agent", NOW - run))
        found = made({"view": VIEW, "facts": ["*"], "max_tokens": 260}, materials=Materials(facts=facts))
        assert part(found, "facts")["tier"]["value"] == "gold"
        assert found.tokens <= 260


def test_hundreds_of_facts_are_cut_to_the_budget():
    facts = [KnownFact(f"fact{n}", "some words about it", "agent", NOW - n) for n in range(400)]

    found = made({"view": VIEW, "facts": ["*"], "max_tokens": 600}, materials=Materials(facts=facts))
    kept = list(part(found, "facts"))

    assert 500 < found.tokens <= 600
    assert kept == [f"fact{n}" for n in range(len(kept))]


def test_a_newer_version_of_a_fact_replaces_the_older():
    facts = [KnownFact("tier", "gold", "a", NOW - 9, version=2), KnownFact("tier", "free", "b", NOW - 5, version=1)]

    assert part(made({"facts": ["tier"]}, materials=Materials(facts=facts)), "facts")["tier"]["value"] == "gold"


def test_a_cloudevent_carries_the_view_as_its_data():
    found = orjson.loads(made({"view": VIEW, "format": "cloudevent"}).context)

    assert found["specversion"] == "1.0"
    assert found["type"] == "acme.unknown.thing"
    assert found["data"]["number"] == 42


@pytest.mark.parametrize("form", ["json", "cloudevent", "text"])
def test_the_deepest_body_that_can_be_read_has_a_context(form):
    data = orjson.loads("[" * 253 + "]" * 253)

    found = made({"view": "data", "format": form, "max_tokens": 2000}, data=data)

    orjson.loads(found.context)
    assert found.verdict == "deliver"


def test_text_stands_inside_its_fence():
    found = made({"view": VIEW, "format": "text"})
    text = orjson.loads(found.context)
    mark = text.split("<<untrusted ")[1].split(">>")[0]

    assert text.endswith(f"<<end {mark}>>\n")
    assert text.index("type: acme.unknown.thing") < text.index("<<untrusted") < text.index("Checkout charges twice")
    assert made({"view": VIEW, "format": "text"}).digest == found.digest


def test_a_template_replaces_what_stands_inside():
    text = orjson.loads(
        made({"view": VIEW, "format": "text", "template": "Ticket {{ context.number }}: {{ context.title }}"}).context
    )

    assert "\nTicket 42: Checkout charges twice\n<<end" in text


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"view": "{a: b"}, "view"),
        ({"max_tokens": LEAST_TOKENS - 1}, "max_tokens"),
        ({"required": ["enrich.crm"]}, "enrich.crm"),
        ({"required": ["facts.tier"], "facts": ["other"]}, "facts.tier"),
        ({"required": ["a..b"]}, "a..b"),
        ({"template": "x"}, "format: text"),
        ({"format": "text", "template": "{% for %}"}, "line 1"),
        ({"enrich": {"crm": {"url": "https://{actor}/x"}}}, "host is fixed"),
        ({"enrich": {"crm": {"url": "https://crm.example/{a b}"}}}, "view is wrong"),
        ({"enrich": {"crm": {"url": "/relative"}}}, "whole URL"),
        ({"enrich": {"crm": {"url": "http://crm.example/"}}}, "use https"),
        ({"enrich": {"crm": {"url": "https://169.254.169.254/{actor}"}}}, "169.254.0.0/16"),
        ({"enrich": {"crm": {"url": "https://c.example", "headers": {"host": "other"}}}}, "'host'"),
        ({"enrich": {"crm": {"url": "https://c.example", "headers": {"x": "{actor}"}}}}, "header"),
        ({"enrich": {"crm": {"url": "https://c.example", "view": "{"}}}, "view is wrong"),
    ],
)
def test_a_contract_that_cannot_be_kept_is_refused(spec, says):
    with pytest.raises(Invalid) as refused:
        contract_of(ContextSpec(**spec))

    assert says in refused.value.detail


def test_a_path_may_name_an_item_of_a_list():
    assert at({"a": [{"b": 1}]}, ("a", 0, "b")) == 1
    assert at({"a": {"0": 1}}, ("a", 0)) == 1
    assert at({"a": []}, ("a", 0)) is None


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=80),
)
bodies = st.recursive(
    st.one_of(scalars, st.text(min_size=200, max_size=2000)),
    lambda inner: st.one_of(st.lists(inner, max_size=8), st.dictionaries(st.text(max_size=12), inner, max_size=8)),
    max_leaves=60,
)
clean = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30)


@settings(max_examples=int(os.environ.get("NBTEST_FUZZ_EXAMPLES", "250")), deadline=None)
@given(
    body=bodies, key=clean, limit=st.integers(LEAST_TOKENS, 600), form=st.sampled_from(["json", "text", "cloudevent"]),
    history=st.integers(0, 8), view=st.sampled_from([None, "{key: data.key, body: data.body}", "data"]),
)  # fmt: skip
def test_no_event_breaks_its_budget_or_loses_what_is_required(body, key, limit, form, history, view):
    data = {"key": key, "body": body}
    spec = {"view": view, "required": ["key"], "max_tokens": limit, "format": form, "history": {"events": 8}, "facts": ["*"]}
    materials = Materials(PAST[:history], KNOWN)

    found = made(spec, data=data, materials=materials)

    if found.verdict == "deliver":
        assert found.tokens <= limit
        assert default_counter().count(sent(found)) <= found.tokens
    if form == "json":
        assert orjson.loads(found.context)["key"] == key
    assert made(spec, data=json.loads(json.dumps(data)), materials=materials).digest == found.digest


@pytest.mark.parametrize(
    "data",
    [
        {"key": "k", **{f"custom_{n}": f"value {n}" for n in range(5000)}},
        {"key": "k", "text": "\u4f60\u597d " * 250_000},
        {"key": "k", "text": "x" * 1_000_000},
        {"key": "k", "text": "👩‍👩‍👧‍👦" * 20_000},
        {"key": "k", "rows": [{"a": n, "b": "text " * 20} for n in range(5000)]},
    ],
    ids=["5000-fields", "1MB-words", "1MB-string", "emoji", "rows"],
)
@pytest.mark.parametrize("view", [None, "data"])
def test_a_giant_keeps_its_budget_and_its_required_fact(data, view):
    found = made({"view": view, "required": ["key"], "max_tokens": 300}, data=data)

    assert found.verdict == "deliver"
    assert found.tokens <= 300
    assert orjson.loads(found.context)["key"] == "k"


def test_a_required_item_of_a_list_stays_where_its_pointer_says():
    rows = [{"note": f"row {n} says this and that " * 4, "id": n} for n in range(60)]

    found = made({"view": "data", "required": ["rows.40.id"], "max_tokens": 250}, data={"rows": rows})
    kept = orjson.loads(found.context)["rows"]

    assert found.verdict == "deliver"
    assert kept[40]["id"] == 40
    assert GAP in kept[:40]


def test_a_required_member_may_be_called_like_a_number():
    data = {"0": {"1": "kept"}, "filler": ["words and more words " * 5] * 60}

    assert orjson.loads(made({"view": "data", "required": ["0.1"], "max_tokens": 150}, data=data).context)["0"] == {"1": "kept"}


@pytest.mark.parametrize(
    ("required", "value"),
    [
        ("issue.node_id", "MDU6SXNzdWUx"),
        ("issue.body", "prose " * 400),
        ("issue.avatar_url", "https://avatars.example/1.png"),
        ("items.20.name", "the 20th"),
    ],
)
def test_the_generic_view_leaves_what_is_required_as_it_is(required, value):
    data = {
        "issue": {
            "node_id": "MDU6SXNzdWUx",
            "body": "prose " * 400,
            "avatar_url": "https://avatars.example/1.png",
            "gone": None,
        },
        "items": [{"name": f"the {n}th"} for n in range(30)],
    }
    without, found = (made({"required": names}, data=data) for names in ([], [required]))

    path = tuple(int(step) if step.isdigit() else step for step in required.split("."))
    assert at(orjson.loads(without.context), path) != value
    assert at(orjson.loads(found.context), path) == value
    assert found.missing == ()


def test_a_lookup_that_was_shortened_is_told_in_the_manifest():
    answer = {"history": ["a line of some words about the customer " * 3] * 60, "tier": "gold"}

    found = made({"view": VIEW, "enrich": CRM}, materials=Materials(lookups={"crm": Found(answer, NOW)}))

    assert "enrich.crm: to 500 tokens" in part(found, "manifest")["pruned"]
    assert default_counter().count(json.dumps(part(found, "enrich")["crm"]["value"])) < 700


def test_what_is_required_is_named_as_it_stands_in_the_context():
    found = made({"view": "data", "required": ["na\u200bme"]}, data={"na\u200bme": "x"})

    assert found.missing == ()
    assert orjson.loads(found.context) == {"name": "x"}


def test_the_generic_view_keeps_what_is_required_under_a_name_with_hidden_characters():
    data = {"or\u200bder": {"node_id": "n1", "total": 5}}

    found = made({"required": ["or\u200bder.node_id"]}, data=data)

    assert orjson.loads(found.context)["order"]["node_id"] == "n1"
    assert found.missing == ()
