"""As test_oracles, with SDKs for node; `make test-all` asks them, since npm brings them with 500 packages of theirs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.catalogue import catalogue, provider_named
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
from tests.oracles.npm_table import ORACLES

BY_NAME = {oracle.name: oracle for oracle in ORACLES}
SIGNERS = [name for name, oracle in BY_NAME.items() if oracle.sign]
JUDGES_OF_OURS = [name for name, oracle in BY_NAME.items() if oracle.ours]
# The first question waits for npm.
asked_of_node = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("name", [pytest.param(name, marks=asked_of_node) for name in JUDGES_OF_OURS])
@ASKED
@given(data=st.data())
def test_what_we_sign_the_sdk_for_node_takes(name: str, data: st.DataObject):
    oracle = BY_NAME[name]
    source = source_of(oracle, drawn_secret(oracle, data))

    request = drawn_ours(oracle, source, data)

    assert is_taken_by(oracle, source, request, NOW_S * 1000)
    assert takes(source, request, NOW_S * 1000)


@pytest.mark.parametrize("name", [pytest.param(name, marks=asked_of_node) for name in SIGNERS])
@ASKED
@given(data=st.data())
def test_what_the_sdk_for_node_signs_we_take(name: str, data: st.DataObject):
    oracle = BY_NAME[name]
    secret = drawn_secret(oracle, data)
    source = source_of(oracle, secret)

    request = drawn_theirs(oracle, secret, data)

    assert takes(source, request, NOW_S * 1000)
    assert is_taken_by(oracle, source, request, NOW_S * 1000)


@pytest.mark.parametrize("name", [pytest.param(name, marks=asked_of_node) for name in BY_NAME])
@settings(ASKED, max_examples=3)
@given(data=st.data())
def test_what_the_sdk_for_node_refuses_we_refuse_and_we_are_stricter_only_where_the_table_says(name: str, data: st.DataObject):
    demand_one_mind_over_bad_requests(BY_NAME[name], data)


@pytest.mark.parametrize("name", [name for name, oracle in BY_NAME.items() if oracle.stricter])
def test_where_we_are_stricter_the_providers_file_says_so(name: str):
    notes = provider_named(BY_NAME[name].provider).file.notes

    for word in set(BY_NAME[name].stricter.values()):
        assert any(word in note for note in notes), word


@pytest.mark.parametrize("name", BY_NAME)
def test_the_providers_file_names_its_oracle(name: str):
    named = {one.package for one in provider_named(BY_NAME[name].provider).file.oracle if one.registry == "npm"}

    assert BY_NAME[name].package in named


def test_eighty_seven_providers_have_an_sdk_or_another_implementation_as_judge():
    from tests.oracles.table import ORACLES as OF_PYPI

    judged = {oracle.provider for oracle in (*OF_PYPI, *ORACLES)}

    assert judged <= set(catalogue())
    assert len(judged) >= 87, len(judged)
