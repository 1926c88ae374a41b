"""The contract of providers, for every file in the catalogue."""

from __future__ import annotations

import pytest

from ingest.catalogue import Provider, catalogue
from ingest.fileform import Vector
from ingest.inbound import Reply
from ingest.receive import receive
from ingest.samples import outcome_of, request_of, source_of
from ingest.schemes.keys import TOKEN_VERIFIERS
from ingest.sign import signed
from schemas.errors import BadSignature, MalformedRequest, SecretsUnavailable
from tests.contracts.provider import Mutant, good, mutants

TRACE = "00-00000000000000000000000000000001-0000000000000001-01"


def is_signed(provider: Provider, vector: Vector) -> bool:
    """Whether the vector is accepted because of its signature: not a refused one, not a handshake that nobody signs."""
    if vector.expect.refused is not None:
        return False
    got = outcome_of(provider, vector)
    return not isinstance(got, Reply) or got.name not in {one.form.name for one in provider.unsigned_handshakes}


CASES = [
    pytest.param(provider, vector, id=f"{provider.name}-{vector.name or number}")
    for provider in catalogue().values()
    for number, vector in enumerate(provider.file.vector)
    if is_signed(provider, vector)
]


def is_refused(mutant: Mutant) -> bool:
    try:
        receive(mutant.request, mutant.source, mutant.now_ms, traceparent=TRACE)
    except (BadSignature, SecretsUnavailable, MalformedRequest):
        return True
    return False


@pytest.mark.parametrize(("provider", "vector"), CASES)
def test_no_bad_request_is_taken(provider: Provider, vector: Vector):
    made = list(mutants(provider, vector))

    taken = [mutant.name for mutant in made if not is_refused(mutant)]

    assert taken == []
    names = [mutant.name for mutant in made]
    assert len(set(names)) >= 30, names


def test_every_provider_is_tried_so():
    assert {case.values[0].name for case in CASES} == set(catalogue())


@pytest.mark.parametrize(("provider", "vector"), CASES)
def test_a_blank_credential_is_ours_to_mend_and_not_the_senders_fault(provider: Provider, vector: Vector):
    blank = [
        mutant
        for mutant in mutants(provider, vector)
        if "blank" in mutant.name and mutant.name.split(",")[0] in {"secret", "public key"}
    ]

    for mutant in blank:
        with pytest.raises(SecretsUnavailable):
            receive(mutant.request, mutant.source, mutant.now_ms, traceparent=TRACE)


@pytest.mark.parametrize(("provider", "vector"), CASES)
def test_receiving_is_deterministic(provider: Provider, vector: Vector):
    assert outcome_of(provider, vector) == outcome_of(provider, vector)


def can_be_signed(provider: Provider, vector: Vector) -> bool:
    """Whether the vector's credentials make signatures too: a token of the vendor's private key is made by the vendor alone."""
    has_key = bool(vector.secrets or vector.password)
    return has_key and good(provider, vector).check.check.algorithm not in TOKEN_VERIFIERS


@pytest.mark.parametrize(("provider", "vector"), [case for case in CASES if can_be_signed(*case.values)])
def test_what_our_own_signer_signs_is_taken(provider: Provider, vector: Vector):
    source = source_of(provider, vector)
    given = request_of(vector)
    kept = [(name, value) for name, value in given.fields if name.lower() in {"content-type"} | provider.shown_headers]

    made = signed(source, url="https://hooks.example.com/in/source", headers=kept, body=given.body, now_ms=1_760_000_000_000)

    receive(made, source, 1_760_000_000_000, traceparent=TRACE)
