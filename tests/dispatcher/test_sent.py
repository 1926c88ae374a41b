"""What is kept of a call."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dispatcher.protocols.base import Call, Outcome
from dispatcher.protocols.webhook import Webhook
from dispatcher.sent import sent_to_keep
from schemas.context import Curated, Sent
from tests.contracts.agent_protocol import ATTEMPT, HEAD, LINKS, TARGET

TOLD = Curated(b'{"title":"x"}', 5, 50, "d", siblings=(("facts", b'{"tier":1}'), ("missing", b'["crm"]')))
DELIVERED = Outcome("delivered", status=200)


def test_the_token_is_masked_and_nothing_else_changes() -> None:
    call = Webhook().build(HEAD, TOLD, TARGET, LINKS, ATTEMPT)

    kept = sent_to_keep("all", call, TOLD, LINKS, DELIVERED)

    assert kept is not None
    assert kept.body.replace(b"(token)", LINKS.token.encode()) == call.body
    assert LINKS.token.encode() not in kept.body
    assert kept.context == b'{"title":"x"},"facts":{"tier":1},"missing":["crm"]'


@pytest.mark.parametrize(
    ("keep", "outcome", "is_kept"),
    [
        ("all", DELIVERED, True),
        ("failed", DELIVERED, False),
        ("failed", Outcome("failed", status=500), True),
        ("failed", Outcome("unknown", sent=True), True),
        ("all", Outcome("unreachable", sent=False), False),
        ("none", Outcome("failed", status=500), False),
    ],
)
def test_what_was_not_sent_or_is_not_asked_for_is_not_kept(keep: str, outcome: Outcome, *, is_kept: bool) -> None:
    call = Webhook().build(HEAD, TOLD, TARGET, LINKS, ATTEMPT)

    assert (sent_to_keep(keep, call, TOLD, LINKS, outcome) is not None) is is_kept  # type: ignore[arg-type]


def test_a_body_in_which_the_context_does_not_stand_is_kept_whole() -> None:
    kept = sent_to_keep("all", Call("POST", "", {}, b"text=hello"), TOLD, replace(LINKS, token=""), DELIVERED)

    assert kept == Sent(b"text=hello")
