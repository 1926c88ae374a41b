"""How any oracle is asked, and its verdict set beside ours."""

from __future__ import annotations

from base64 import b64encode
from fnmatch import fnmatchcase

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from ingest.catalogue import provider_named
from ingest.fileform import Vector
from ingest.inbound import Request
from ingest.prepared import PreparedSource, prepared
from ingest.sign import signed
from ingest.verify import verify
from schemas.config import SourceSpec
from schemas.errors import NightbellError
from tests.contracts.provider import Mutant, mutants
from tests.oracles.drawn import key_pair
from tests.oracles.table import Oracle

time_machine = pytest.importorskip("time_machine", reason="the dependency group oracles is not installed")
NOW_S = 1_750_000_000
ASKED = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def source_of(oracle: Oracle, secret: str) -> PreparedSource:
    keys = (key_pair(oracle.key_pair)[1],) if oracle.key_pair else ()
    spec = SourceSpec(
        provider=oracle.provider,
        secrets=() if oracle.user else (SecretStr(secret),),
        public_keys=keys,
        options=dict(oracle.options),
        username=oracle.user or None,
        password=SecretStr(secret) if oracle.user else None,
    )
    return prepared(spec)


def takes(source: PreparedSource, request: Request, now_ms: int) -> bool:
    try:
        verify(request, source, now_ms)
    except NightbellError:
        return False
    return True


def is_taken_by(oracle: Oracle, source: PreparedSource, request: Request, now_ms: int) -> bool:
    """Whether the SDK takes it, with any of the source's credentials, at that time by its clock."""
    given_ = source.credentials.public_keys if oracle.key_pair else source.credentials.secrets
    if oracle.user:
        given_ = (source.credentials.password or "",) if source.credentials.username == oracle.user else ()
    with time_machine.travel(now_ms / 1000, tick=False):
        return any(_accepted(oracle, credential, request) for credential in given_)


def _accepted(oracle: Oracle, credential: str, request: Request) -> bool:
    try:
        return oracle.verify(credential, request) is not False
    except Exception:
        return False


def drawn_secret(oracle: Oracle, data: st.DataObject) -> str:
    return key_pair(oracle.key_pair)[0] if oracle.key_pair else data.draw(oracle.secrets)


def drawn_request(oracle: Oracle, data: st.DataObject) -> Request:
    fields = [("Content-Type", oracle.content_type), *oracle.headers.items()]
    return Request("POST", data.draw(oracle.urls), fields, data.draw(oracle.bodies))


def drawn_ours(oracle: Oracle, source: PreparedSource, data: st.DataObject) -> Request:
    plain = drawn_request(oracle, data)
    return signed(source, method=plain.method, url=plain.url, headers=plain.fields, body=plain.body, now_ms=NOW_S * 1000)


def drawn_theirs(oracle: Oracle, secret: str, data: st.DataObject) -> Request:
    plain = drawn_request(oracle, data)
    assert oracle.sign is not None
    with time_machine.travel(NOW_S, tick=False):
        added = oracle.sign(secret, plain, NOW_S)
    return Request(plain.method, plain.url, [*plain.fields, *added.items()], plain.body)


def demand_one_mind_over_bad_requests(oracle: Oracle, data: st.DataObject) -> None:
    """Where one good request is bent in every way, we refuse what the SDK refuses, and more only where the table says so."""
    secret = drawn_secret(oracle, data)
    source = source_of(oracle, secret)
    request = drawn_ours(oracle, source, data) if oracle.ours else drawn_theirs(oracle, secret, data)
    for mutant in mutants(provider_named(oracle.provider), as_vector(oracle, source, request)):
        if not comparable(oracle, mutant):
            continue
        theirs, ours = verdicts(oracle, mutant)
        assert theirs or not ours, f"we take, and the SDK refuses: {mutant.name}"
        assert ours or not theirs or excused(oracle, mutant), f"the SDK takes, and we refuse: {mutant.name}"


def comparable(oracle: Oracle, mutant: Mutant) -> bool:
    """Whether the SDK can be asked at all."""
    twice = mutant.request.repeated or "another one before it" in mutant.name  # which of two it gets is its caller's choice
    by_our_option = "tolerance_s" in mutant.source.spec.options and "tolerance_s" not in oracle.options
    return not twice and not by_our_option


def verdicts(oracle: Oracle, mutant: Mutant) -> tuple[bool, bool]:
    theirs = is_taken_by(oracle, mutant.source, mutant.request, mutant.now_ms)
    return theirs, takes(mutant.source, mutant.request, mutant.now_ms)


def excused(oracle: Oracle, mutant: Mutant) -> bool:
    return any(fnmatchcase(mutant.name, glob) for glob in oracle.stricter)


def as_vector(oracle: Oracle, source: PreparedSource, request: Request) -> Vector:
    return Vector(
        origin="generated",
        secrets=source.credentials.secrets,
        username=source.credentials.username,
        password=source.credentials.password,
        public_keys=source.credentials.public_keys,
        options=dict(oracle.options),
        now=NOW_S,
        method=request.method,
        url=request.url,
        headers=dict(request.fields),
        body_base64=b64encode(request.body).decode(),
    )
