"""Standard Webhooks signatures, against the reference library."""

from __future__ import annotations

import time
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook as Reference
from standardwebhooks.webhooks import WebhookVerificationError

from dispatcher.signing import Signer, key_of
from schemas.errors import BadSetting

NEW, OLD = "whsec_" + b64encode(b"n" * 24).decode(), "whsec_" + b64encode(b"o" * 33).decode()


def headers(signature: str, at: int, message_id: str = "inv_x") -> dict[str, str]:
    return {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": signature}


@given(body=st.text().map(str.encode), message_id=st.text("abcdefghij234567_", min_size=1))
def test_the_reference_library_verifies_with_every_live_secret(body: bytes, message_id: str) -> None:
    at = int(time.time())

    signature = Signer([NEW, OLD]).sign(message_id, at, body)

    for secret in (NEW, OLD):
        Reference(secret).verify(body, headers(signature, at, message_id), json_parse=False)
    assert len(signature.split(" ")) == 2


def test_another_secret_does_not_verify() -> None:
    at = int(time.time())
    signature = Signer([NEW]).sign("inv_x", at, b"{}")

    with pytest.raises(WebhookVerificationError):
        Reference(OLD).verify(b"{}", headers(signature, at))


def test_the_example_of_the_specification_is_reproduced() -> None:
    signer = Signer(["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"])

    signature = signer.sign(
        "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1649367553, b'{"email":"test@example.com","username":"test_user"}'
    )

    assert signature == "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="


def test_a_secret_is_read_with_or_without_prefix_and_padding() -> None:
    assert key_of("whsec_YWI=") == key_of("YWI=") == key_of("YWI") == key_of(" whsec_YWI= ") == b"ab"


@pytest.mark.parametrize("secret", ["", "whsec_", "   ", "whsec_====", "not base64!", "whsec_a", "pass-word_x", "whsec_é"])
def test_a_secret_that_is_no_base64_is_the_operators_to_mend(secret: str) -> None:
    with pytest.raises(BadSetting) as caught:
        Signer([secret])

    assert secret.strip() == "" or secret not in str(caught.value)


def test_an_agent_without_secrets_cannot_be_signed_for() -> None:
    with pytest.raises(BadSetting):
        Signer([])
