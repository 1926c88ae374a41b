"""The plain signed webhook."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from dispatcher.ports import Curated
from dispatcher.protocols.base import Outcome, unanswered
from dispatcher.protocols.webhook import Webhook, traceparent
from schemas.errors import AddressRefused, AgentTimedOut, AgentUnreachable, NightbellError
from tests.contracts.agent_protocol import ATTEMPT, CURATED, HEAD, LINKS, NOW, TARGET, AgentProtocolContract, Said


class TestWebhook(AgentProtocolContract):
    protocol = Webhook()


def test_the_request_is_the_one_that_the_face_promises() -> None:
    call = Webhook().build(HEAD, CURATED, TARGET, LINKS, ATTEMPT)

    assert (call.method, call.url) == ("POST", "https://agent.test/wake")
    assert orjson.loads(call.body) == {
        "invocation": {
            "id": HEAD.invocation.id, "attempt": 2, "agent": "triage", "subscription": "bugs-to-triage",
            "ordering_key": "default/github-acme/I_1", "deadline": "2026-11-21T10:00:30Z",
        },
        "event": {
            "id": HEAD.event.id, "source": "github-acme", "type": "github.issues.opened", "kind": "ticket.created",
            "subject": "acme/shop/issues/42", "actor": "nora", "time": "2026-11-21T09:59:58Z",
            "url": "https://github.com/acme/shop/issues/42", "summary": "Issue 42 opened: “Checkout” charges twice",  # without the line separator that only a model sees
        },
        "context": {"title": "Checkout charges twice", "n": 1.5},
        "links": {"event": LINKS.event, "complete": LINKS.complete, "token": "a-token"},
    }  # fmt: skip
    assert set(call.headers) == {
        "webhook-id", "idempotency-key", "webhook-timestamp", "webhook-signature", "traceparent", "content-type", "user-agent",
        "x-own",
    }  # fmt: skip
    assert call.headers["content-type"] == "application/json"
    assert call.headers["user-agent"] == "Nightbell/1.2.3"
    assert call.headers["webhook-timestamp"] == str(NOW // 1000)


def test_the_siblings_of_the_context_stand_beside_it() -> None:
    curated = Curated(b"{}", 1, 1, "d", siblings=(("missing", b'["/x"]'), ("manifest", b'{"a":1}')))

    document = orjson.loads(Webhook().build(HEAD, curated, TARGET, LINKS, ATTEMPT).body)

    assert document["missing"] == ["/x"]
    assert document["manifest"] == {"a": 1}


def test_a_brief_envelope_has_nothing_whose_length_a_sender_chooses() -> None:
    document = orjson.loads(Webhook().build(HEAD, replace(CURATED, brief=True), TARGET, LINKS, ATTEMPT).body)

    assert document["event"] == {
        "id": HEAD.event.id, "source": "github-acme", "type": "github.issues.opened", "kind": "ticket.created",
        "time": "2026-11-21T09:59:58Z",
    }  # fmt: skip
    whole = Webhook().envelope(HEAD, LINKS)
    assert b"acme/shop/issues/42" in whole.outside
    assert b"acme/shop/issues/42" not in whole.text


@pytest.mark.parametrize(
    ("statuses", "word"),
    [
        ([200, 201, 204, 206, 299], "delivered"),
        ([202], "accepted"),
        ([410], "gone"),
        ([429, 503], "throttled"),
        ([401, 403, 404, 405], "misconfigured"),
        ([301, 302, 303, 307, 308, 304], "misconfigured"),
        ([400, 402, 406, 408, 409, 413, 422, 451, 499], "rejected"),
        ([500, 501, 502, 504, 599, 100, 600, 0], "failed"),
    ],
)
def test_the_table_of_answers(statuses: list[int], word: str) -> None:
    assert {Webhook().interpret(Said(status)).word for status in statuses} == {word}


def test_retry_after_is_kept_where_it_means_something_and_cut() -> None:
    assert Webhook().interpret(Said(429, {"retry-after": "7"})).retry_after == "7"
    assert Webhook().interpret(Said(500, {"retry-after": "7"})).retry_after == ""
    assert len(Webhook().interpret(Said(503, {"retry-after": "9" * 5000})).retry_after) == 64


@pytest.mark.parametrize(
    ("error", "word", "sent"),
    [
        (AgentTimedOut("x", kind="timeout", sent=True), "unknown", True),
        (AgentTimedOut("x", kind="connect_timeout", sent=False), "timeout", False),
        (AgentUnreachable("x", kind="reset", sent=True), "unknown", True),
        (AgentUnreachable("x", kind="refused", sent=False), "unreachable", False),
        (AgentUnreachable("x", kind="dns", sent=False), "misconfigured", False),
        (AgentUnreachable("x", kind="tls", sent=False), "misconfigured", False),
        (AddressRefused("x", kind="address", sent=False), "misconfigured", False),
        (AddressRefused("x"), "misconfigured", False),
        (AgentUnreachable("x"), "unreachable", False),
    ],
)
def test_what_brought_no_answer_has_its_word(error: NightbellError, word: str, sent: bool) -> None:
    outcome = unanswered(error)

    assert (outcome.word, outcome.sent) == (word, sent)
    assert isinstance(outcome, Outcome)


def test_an_event_without_a_trace_gets_one_that_its_attempts_share() -> None:
    first, second = traceparent("", "inv_a", 1), traceparent("", "inv_a", 2)

    assert first.split("-")[1] == second.split("-")[1]
    assert len(first) == 55
