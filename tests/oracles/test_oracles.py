"""The vendors' own SDKs judge what we sign and what we take; we judge what they sign.

Wherever an SDK and we differ on one request, the table says so with the reason, and the provider's file says it too.
"""

from __future__ import annotations

import logging
from importlib import metadata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.catalogue import provider_named
from tests.oracles.asking import (
    ASKED,
    NOW_S,
    demand_one_mind_over_bad_requests,
    drawn_ours,
    drawn_secret,
    drawn_theirs,
    is_taken_by,
    source_of,
    takes,
)
from tests.oracles.table import ORACLES, Oracle

pytestmark = [
    # The SDKs' own: enums that braintree deprecates while it is imported, parsers of dates, clients that are never closed.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]
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
    demand_one_mind_over_bad_requests(installed(name), data)


@pytest.mark.parametrize("name", [name for name, oracle in BY_NAME.items() if oracle.stricter])
def test_where_we_are_stricter_the_providers_file_says_so(name: str):
    notes = provider_named(BY_NAME[name].provider).file.notes

    for word in set(BY_NAME[name].stricter.values()):
        assert any(word in note for note in notes), word


@pytest.mark.parametrize("name", BY_NAME)
def test_the_providers_file_names_its_oracle(name: str):
    named = {one.package.lower().replace("_", "-") for one in provider_named(BY_NAME[name].provider).file.oracle}

    assert BY_NAME[name].package.lower() in named
