"""What every agent protocol keeps: inherit `AgentProtocolContract`, give a protocol and answers of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from dispatcher.ports import Curated
from dispatcher.protocols.base import (
    MAX_KEPT_ANSWER_BYTES,
    OUTCOMES,
    AgentProtocol,
    Attempt,
    Call,
    Links,
    Target,
)
from dispatcher.signing import Signer
from schemas.event import Event
from schemas.invocation import Invocation, Order
from schemas.ledger import Head

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
NOW = 1_795_255_200_000
HEAD = Head(
    Invocation(
        "inv_aaaaaaaaaaaaaaaaaaaaaaaaaa", "default", "evt_bbbbbbbbbbbbbbbbbbbbbbbbbb", "sub-uid", "bugs-to-triage", 3, "triage",
        7, "default/github-acme/I_1", "sub-uid|k", Order.STRICT, NOW, NOW,
    ),
    Event(
        id="evt_bbbbbbbbbbbbbbbbbbbbbbbbbb", team="default", source="github-acme", provider="github", family="github",
        type="github.issues.opened", partitionkey="default/github-acme/I_1", time_ms=NOW - 2_000, received_ms=NOW - 1_000,
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", datacontenttype="application/json", body=b"{}",
        kind="ticket.created", subject="acme/shop/issues/42", actor="nora", url="https://github.com/acme/shop/issues/42",
        summary="Issue 42 opened: “Checkout” charges twice\u2028",
    ),
    attempts=1,
    tries=1,
)  # fmt: skip
CURATED = Curated(b'{"title":"Checkout charges twice","n":1.50}', 12, 300, "digest")
LINKS = Links("https://nb.test/v1/events/evt_b", "https://nb.test/v1/invocations/inv_a/complete", "a-token")
TARGET = Target("triage", "https://agent.test/wake", Signer([SECRET]), {"x-own": "yes"}, "Nightbell/1.2.3")
ATTEMPT = Attempt(2, NOW, NOW + 30_000)


@dataclass(frozen=True)
class Said:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class AgentProtocolContract:
    """The rules; a protocol's test class sets `protocol`."""

    protocol: AgentProtocol

    def call(self, attempt: Attempt = ATTEMPT) -> Call:
        return self.protocol.build(HEAD, CURATED, TARGET, LINKS, attempt)

    def test_the_same_arguments_give_the_same_bytes(self) -> None:
        assert self.call() == self.call()

    def test_every_attempt_carries_the_same_key_of_idempotency(self) -> None:
        first, second = self.call(Attempt(1, NOW, NOW + 1)), self.call(Attempt(2, NOW + 5, NOW + 6))

        assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == HEAD.invocation.id

    def test_the_trace_goes_on_with_a_span_of_each_attempt(self) -> None:
        spans = [self.call(Attempt(n, NOW, NOW)).headers["traceparent"].split("-") for n in (1, 2)]

        assert {span[1] for span in spans} == {HEAD.event.traceparent.split("-")[1]}
        assert len({span[2] for span in spans}) == 2
        assert all(len(span[2]) == 16 and span[2] != "0" * 16 and span[0] == "00" and span[3] == "01" for span in spans)

    def test_the_context_travels_as_it_was_made(self) -> None:
        assert CURATED.context in self.call().body

    def test_the_operators_own_headers_are_sent_and_override_none_of_ours(self) -> None:
        target = Target("triage", "https://agent.test/wake", TARGET.signer, {"x-own": "1", "idempotency-key": "mine"}, "N/1")

        headers = self.protocol.build(HEAD, CURATED, target, LINKS, ATTEMPT).headers

        assert headers["x-own"] == "1"
        assert headers["idempotency-key"] == HEAD.invocation.id

    @pytest.mark.parametrize("status", [*range(100, 600), 0, 600, 999])
    def test_every_status_means_something(self, status: int) -> None:
        outcome = self.protocol.interpret(Said(status, body=b"x" * 9000))

        assert outcome.word in OUTCOMES
        assert outcome.status == status
        assert len(outcome.answer) <= MAX_KEPT_ANSWER_BYTES
        assert outcome.sent
