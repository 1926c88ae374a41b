from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import from_headers, to_headers
from schemas.outcomes import Chain, next_chain, outcome_data, outcome_event, outcome_word

TOLD: dict[str, Any] = {
    "invocation": "inv_a",
    "event": "evt_a",
    "team": "default",
    "subscription": "bugs",
    "agent": "triage",
    "state": "done",
    "outcome": "delivered",
    "reason": "delivered",
    "attempts": 2,
    "time": "2026-11-21T10:00:00.000Z",
    "causationid": "inv_a",
}
CAUSE = {
    "id": "evt_a",
    "source": "github-acme",
    "type": "github.issues.opened",
    "subject": "acme/shop/issues/42",
    "summary": "Issue 42 opened",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}
KEY = "default/github-acme/I_42"


@pytest.mark.parametrize(
    ("state", "outcome", "is_reported", "word"),
    [
        ("done", "delivered", False, "done"),
        ("done", "accepted", False, "accepted"),
        ("buried", "rejected", False, "buried"),
        ("buried", "failed", False, "buried"),
        ("buried", "failed", True, "failed"),
        ("done", "needs_human", True, "needs_human"),
        ("expired", "", False, "expired"),
    ],
)
def test_the_type_says_what_the_agent_reported_else_how_it_ended(
    state: str, outcome: str, *, is_reported: bool, word: str
) -> None:
    assert outcome_word(state, outcome, is_reported=is_reported) == word


def test_an_outcome_keeps_the_trace_and_names_the_invocation_that_caused_it() -> None:
    chain = Chain("evt_a", 1)

    event = outcome_event(TOLD, CAUSE, key=KEY, body=orjson.dumps(outcome_data(TOLD, CAUSE, chain)))

    assert (event.type, event.source, event.provider, event.causationid) == (
        "nightbell.invocation.done",
        "nightbell",
        "nightbell",
        "inv_a",
    )
    assert (event.traceparent, event.subject, event.actor) == (CAUSE["traceparent"], CAUSE["subject"], "triage")
    assert event.partitionkey == "default/nightbell/github-acme/I_42"
    assert orjson.loads(event.body)["invocation"]["id"] == "inv_a"
    assert from_headers(to_headers(event), event.body) == event


def test_the_same_outcome_published_twice_is_one_event_and_another_attempts_is_another() -> None:
    def ident(**changes: Any) -> str:
        return outcome_event({**TOLD, **changes}, CAUSE, key=KEY, body=b"{}").id

    assert ident() == ident()
    assert ident(attempts=3) != ident()
    assert ident(team="other") != ident()


def test_outcomes_of_outcomes_stay_in_one_lane() -> None:
    first = outcome_event(TOLD, CAUSE, key=KEY, body=b"{}")
    second = outcome_event(TOLD, first.envelope(), key=first.partitionkey, body=b"{}")

    assert second.partitionkey == first.partitionkey


@given(st.integers(min_value=0, max_value=30))
def test_a_chain_counts_every_outcome_and_never_forgets_its_root(length: int) -> None:
    chain = next_chain("evt_root", None)
    for number in range(length):
        assert chain is not None
        chain = next_chain(f"evt_{number}", outcome_data(TOLD, CAUSE, chain))

    assert chain == Chain("evt_root", length + 1)


@given(st.dictionaries(st.sampled_from(["chain", "x"]), st.one_of(st.none(), st.integers(), st.just({"hops": "9"}))))
def test_a_chain_that_cannot_be_read_is_no_chain(data: dict[str, Any]) -> None:
    assert next_chain("evt_a", data) is None
