"""The envelope and the bytes on the wire: golden, and back again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import Event, from_envelope, from_headers, to_headers
from schemas.topics import events_topic, outcomes_topic, rejected_topic

FULL = Event(
    id="evt_a", team="default", source="github-acme", provider="github", family="github", type="github.issues.opened",
    partitionkey="default/github-acme/I_1", time_ms=1795255200000, received_ms=1795255201120,
    traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01", datacontenttype="application/json", body=b'{"n": 1e0}',
    kind="ticket.created", subject="acme/shop/issues/1", actor="nóra", url="https://x", summary="s", deliveryid="d", version="7",
    pointer="/0", flags=("ambiguous_json", "spooled"), identity_window_ms=600000, causationid="inv_x", replayid="rpl_x",
)  # fmt: skip
GOLDEN = {
    "ce_specversion": "1.0", "ce_nbwire": "1", "ce_id": "evt_a", "ce_team": "default", "ce_source": "github-acme",
    "ce_provider": "github", "ce_nbfamily": "github", "ce_type": "github.issues.opened",
    "ce_partitionkey": "default/github-acme/I_1", "ce_time": "2026-11-21T10:00:00Z",
    "ce_receivedtime": "2026-11-21T10:00:01.120Z", "ce_traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
    "content-type": "application/json", "ce_kind": "ticket.created", "ce_subject": "acme/shop/issues/1", "ce_actor": "nóra",
    "ce_url": "https://x", "ce_summary": "s", "ce_deliveryid": "d", "ce_version": "7", "ce_nbpointer": "/0",
    "ce_nbflags": "ambiguous_json,spooled", "ce_nbwindow": "600000", "ce_causationid": "inv_x", "ce_replayid": "rpl_x",
}  # fmt: skip


def test_the_headers_of_version_one_stay_as_they_are():
    assert to_headers(FULL) == GOLDEN


def test_what_was_written_is_read_back():
    assert from_headers(GOLDEN, FULL.body) == FULL


def test_a_newer_header_is_passed_over_and_a_newer_version_is_not():
    assert from_headers({**GOLDEN, "ce_nbnews": "x"}, FULL.body) == FULL
    with pytest.raises(ValueError, match="wire version '2'"):
        from_headers({**GOLDEN, "ce_nbwire": "2"}, b"")


def test_a_record_without_an_id_is_none_of_ours():
    headers = {name: value for name, value in GOLDEN.items() if name != "ce_id"}

    with pytest.raises(ValueError, match="id"):
        from_headers(headers, b"")


def test_the_envelope_is_as_the_interface_shows_it():
    found = FULL.envelope()

    assert found["time"] == "2026-11-21T10:00:00Z"
    assert found["receivedtime"] == "2026-11-21T10:00:01.120Z"
    assert "body" not in found
    assert "pointer" not in found


@given(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(0, 4102444800000),
    st.binary(max_size=50),
    st.text("abc/_-", min_size=1),
)
def test_any_event_survives_wire_and_store(text, at_ms, body, key):
    from dataclasses import replace

    event = replace(
        FULL, subject=text, summary=text, time_ms=at_ms, received_ms=at_ms, body=body, partitionkey=key, identity_window_ms=0
    )

    assert from_headers(to_headers(event), body) == event
    assert from_envelope(event.envelope(), body, family=event.family, pointer=event.pointer) == event


def test_topics_have_these_names():
    assert events_topic("github") == "nightbell.events.github"
    assert events_topic("github", "acme") == "acme.events.github"
    assert (outcomes_topic(), rejected_topic()) == ("nightbell.outcomes", "nightbell.rejected")
