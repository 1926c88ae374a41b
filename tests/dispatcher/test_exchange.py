from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.exchange import HIDDEN, exchange_of, is_secret_header
from dispatcher.protocols.base import Call

CALL = Call(
    "POST",
    "https://agent.test/wake",
    {"x-tenant": "canary-own", "content-type": "application/json", "webhook-id": "inv_a", "webhook-signature": "v1,canary"},
    b"{}",
)


def test_the_frame_of_a_call_is_kept_without_its_secrets() -> None:
    kept = exchange_of(
        CALL, own={"x-tenant"}, answer={"Content-Type": "text/plain", "Set-Cookie": "canary", "X-Api-Key": "canary"}
    )

    found = orjson.loads(kept)
    assert b"canary" not in kept
    assert (found["method"], found["url"]) == ("POST", "https://agent.test/wake")
    assert found["headers"] == [
        ["x-tenant", HIDDEN],
        ["content-type", "application/json"],
        ["webhook-id", "inv_a"],
        ["webhook-signature", HIDDEN],
    ]
    assert found["answer_headers"] == [["Content-Type", "text/plain"], ["Set-Cookie", HIDDEN], ["X-Api-Key", HIDDEN]]


def test_an_answer_that_never_came_has_no_headers() -> None:
    assert "answer_headers" not in orjson.loads(exchange_of(CALL, own=(), answer=None))


@pytest.mark.parametrize("name", ["Authorization", "X-Auth-Token", "cookie", "Api-Key", "X-Hub-Signature-256", "session-id"])
def test_what_is_named_like_a_credential_is_hidden(name: str) -> None:
    assert is_secret_header(name)


@pytest.mark.parametrize("name", ["content-type", "idempotency-key", "traceparent", "retry-after", "webhook-timestamp"])
def test_what_tells_how_a_call_went_is_shown(name: str) -> None:
    assert not is_secret_header(name)


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=60))
def test_whatever_an_agent_answers_can_be_kept(headers: dict[str, str]) -> None:
    found = orjson.loads(exchange_of(CALL, own=(), answer=headers))

    assert len(found["answer_headers"]) <= 40
    assert all(len(value) <= 500 for _, value in found["answer_headers"])
