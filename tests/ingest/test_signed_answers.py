"""Answers that prove who we are are signed with the key that signs deliveries: nobody may have a delivery signed by asking."""

from __future__ import annotations

from base64 import b64encode
from hmac import digest
from urllib.parse import quote

import pytest

from ingest.catalogue import catalogue, provider_named
from ingest.inbound import Reply, Request
from ingest.receive import receive
from ingest.samples import source_of
from schemas.errors import Refused

X = provider_named("x")
NOW_MS = 1_750_000_000_000


def asked(token: str) -> Reply:
    source = source_of(X, X.file.vector[0])
    got = receive(Request("GET", f"https://h/in/x?crc_token={quote(token)}", [], b""), source, NOW_MS, traceparent="00-t")
    assert isinstance(got, Reply)
    return got


@pytest.mark.parametrize("token", ["NjI3ZjE2-YzQ", "ab+/cd==", "challenge_string"])
def test_a_crc_is_answered(token: str):
    wanted = b64encode(digest(b"consumer_secret", token.encode(), "sha256")).decode()

    assert f"sha256={wanted}".encode() in asked(token).body


@pytest.mark.parametrize("token", ['{"tweet_create_events":[]}', "[]", '"x"', "a b", "a=b", "a&b=c", "", "a\n", "x" * 257])
def test_a_crc_that_could_be_a_delivery_is_not_answered(token: str):
    with pytest.raises(Refused):
        asked(token)


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "text/plain", ""])
@pytest.mark.parametrize("token", ["1", "true", "null", "abc=", "1e5", "abc"])
def test_what_a_crc_had_signed_is_no_event(token: str, content_type: str):
    signature = "sha256=" + b64encode(digest(b"consumer_secret", token.encode(), "sha256")).decode()
    fields = [("Content-Type", content_type), ("x-twitter-webhooks-signature", signature)]
    request = Request("POST", "https://h/in/x", fields, token.encode())

    try:
        got = receive(request, source_of(X, X.file.vector[0]), NOW_MS, traceparent="00-t")
    except Refused:
        return
    assert got == []


def test_every_unsigned_answer_that_is_signed_is_bound_to_the_form_of_a_token():
    loose = [
        (provider.name, one.form.name)
        for provider in catalogue().values()
        for one in provider.unsigned_handshakes
        if "|mac:" in repr(one.form.model_dump()) and not any(condition.matches for condition in one.form.when)
    ]

    assert loose == []
