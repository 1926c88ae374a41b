"""Every challenge, ping and confirmation of every provider is answered exactly, as a vector in its file says."""

from __future__ import annotations

import pytest

from ingest.catalogue import CompiledHandshake, Provider, catalogue
from ingest.fileform import Vector
from ingest.inbound import Reply
from ingest.samples import outcome_of, request_of, source_of
from ingest.sign import signed
from schemas.errors import BadSignature, SecretsUnavailable

HANDSHAKES = [
    pytest.param(provider, one, id=f"{name}-{one.form.name}")
    for name, provider in catalogue().items()
    for one in provider.handshakes
]
KEEPERS = [case for case in HANDSHAKES if case.values[1].keep_secret is not None]


def answered(provider: Provider, one: CompiledHandshake) -> list[tuple[Vector, Reply]]:
    """The vectors that this handshake answers."""
    expected = [vector for vector in provider.file.vector if vector.expect.refused is None]
    found = [(vector, outcome_of(provider, vector)) for vector in expected if vector.expect.events == 0]
    return [(vector, got) for vector, got in found if isinstance(got, Reply) and got.name == one.form.name]


@pytest.mark.parametrize(("provider", "one"), HANDSHAKES)
def test_every_handshake_has_a_vector_that_says_its_whole_answer(provider: Provider, one: CompiledHandshake):
    found = answered(provider, one)

    assert found
    for vector, got in found:
        assert vector.expect.status == got.status
        assert (vector.expect.reply or "") == got.body.decode()
        assert (vector.expect.headers or {}) == got.headers
        assert (vector.expect.keeps or "") == got.kept_secret
        assert (vector.expect.calls or "") == got.fetch_url
        wanted = "application/json" if one.form.fields is not None and got.status == one.form.status else got.content_type
        assert got.content_type == wanted
        assert "html" not in got.content_type


@pytest.mark.parametrize(("provider", "one"), [case for case in HANDSHAKES if case.values[1].form.signed])
def test_a_signed_handshake_is_not_answered_to_somebody_else(provider: Provider, one: CompiledHandshake):
    for vector, _ in answered(provider, one):
        stranger = vector.model_copy(
            update={
                "secrets": tuple("b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldA==" for _ in vector.secrets),
                "public_keys": tuple("00" * 31 + "01" for _ in vector.public_keys),
                "password": "other" if vector.password else None,
                "fetched": {},
            }
        )
        with pytest.raises((BadSignature, SecretsUnavailable)):
            outcome_of(provider, stranger)


@pytest.mark.parametrize(("provider", "one"), KEEPERS)
def test_a_key_that_comes_in_a_handshake_is_kept_only_while_the_source_has_none(provider: Provider, one: CompiledHandshake):
    for vector, got in answered(provider, one):
        assert got.kept_secret
        assert not vector.secrets

        with pytest.raises((BadSignature, SecretsUnavailable)):
            outcome_of(provider, vector.model_copy(update={"secrets": ("set-up is over",)}))


def test_the_keepers_are_those_that_vendors_bring_keys_to():
    assert {case.values[0].name for case in KEEPERS} == {"asana", "notion", "atlassian_connect"}


def test_what_send_makes_of_a_challenge_is_answered_too():
    provider = catalogue()["slack_events"]
    vector = next(vector for vector in provider.file.vector if vector.expect.status)
    source = source_of(provider, vector)
    made = signed(source, url=vector.url, body=request_of(vector).body, now_ms=round(vector.now * 1000))

    from ingest.receive import receive

    got = receive(made, source, round(vector.now * 1000), traceparent="00-t")

    assert isinstance(got, Reply)
    assert got.body.decode() == vector.expect.reply
