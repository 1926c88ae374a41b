"""The vendors' own SDKs judge what we sign and what we take; we judge what they sign.

Wherever an SDK and we differ on one request, the table says so with the reason, and the provider's file says it too.
"""

from __future__ import annotations

import logging
from base64 import b64encode
from fnmatch import fnmatchcase
from importlib import metadata

import pytest
from hypothesis import HealthCheck, given, settings
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
from tests.oracles.table import ORACLES, Oracle

time_machine = pytest.importorskip("time_machine", reason="the dependency group oracles is not installed")
pytestmark = [
    # The SDKs' own: enums that braintree deprecates while it is imported, parsers of dates, clients that are never closed.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]
NOW_S = 1_750_000_000
ASKED = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
BY_NAME = {oracle.name: oracle for oracle in ORACLES}
SIGNERS = [name for name, oracle in BY_NAME.items() if oracle.sign]
JUDGES_OF_OURS = [name for name, oracle in BY_NAME.items() if oracle.ours]


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)  # SDKs log each refusal
    yield
    logging.disable(logging.NOTSET)


def installed(name: str) -> Oracle:
    """The oracle, where its package is installed."""
    oracle = BY_NAME[name]
    try:
        metadata.version(oracle.package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{oracle.package} is not installed (dependency group oracles)")
    return oracle


def source_of(oracle: Oracle, secret: str) -> PreparedSource:
    keys = (key_pair(oracle.key_pair)[1],) if oracle.key_pair else ()
    spec = SourceSpec(provider=oracle.provider, secrets=(SecretStr(secret),), public_keys=keys, options=dict(oracle.options))
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


@pytest.mark.parametrize("name", JUDGES_OF_OURS)
@ASKED
@given(data=st.data())
def test_what_we_sign_the_sdk_takes(name: str, data: st.DataObject):
    oracle = installed(name)
    source = source_of(oracle, drawn_secret(oracle, data))

    request = drawn_ours(oracle, source, data)

    assert is_taken_by(oracle, source, request, NOW_S * 1000)
    assert takes(source, request, NOW_S * 1000)


@pytest.mark.parametrize("name", SIGNERS)
@ASKED
@given(data=st.data())
def test_what_the_sdk_signs_we_take(name: str, data: st.DataObject):
    oracle = installed(name)
    secret = drawn_secret(oracle, data)
    source = source_of(oracle, secret)

    request = drawn_theirs(oracle, secret, data)

    assert takes(source, request, NOW_S * 1000)
    assert is_taken_by(oracle, source, request, NOW_S * 1000)


@pytest.mark.parametrize("name", BY_NAME)
@settings(ASKED, max_examples=3)
@given(data=st.data())
def test_what_the_sdk_refuses_we_refuse_and_we_are_stricter_only_where_the_table_says(name: str, data: st.DataObject):
    oracle = installed(name)
    secret = drawn_secret(oracle, data)
    source = source_of(oracle, secret)
    request = drawn_ours(oracle, source, data) if oracle.ours else drawn_theirs(oracle, secret, data)

    for mutant in mutants(provider_named(oracle.provider), as_vector(oracle, source, request)):
        if not comparable(oracle, mutant):
            continue
        theirs, ours = verdicts(oracle, mutant)
        assert theirs or not ours, f"we take, and the SDK refuses: {mutant.name}"
        assert ours or not theirs or excused(oracle, mutant), f"the SDK takes, and we refuse: {mutant.name}"


@pytest.mark.parametrize("name", [name for name, oracle in BY_NAME.items() if oracle.stricter])
def test_where_we_are_stricter_the_providers_file_says_so(name: str):
    notes = provider_named(BY_NAME[name].provider).file.notes

    for word in set(BY_NAME[name].stricter.values()):
        assert any(word in note for note in notes), word


@pytest.mark.parametrize("name", BY_NAME)
def test_the_providers_file_names_its_oracle(name: str):
    named = {one.package.lower().replace("_", "-") for one in provider_named(BY_NAME[name].provider).file.oracle}

    assert BY_NAME[name].package.lower() in named


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
        public_keys=source.credentials.public_keys,
        options=dict(oracle.options),
        now=NOW_S,
        method=request.method,
        url=request.url,
        headers=dict(request.fields),
        body_base64=b64encode(request.body).decode(),
    )
