"""Every provider file says what it does: its vectors and its examples come out as they are written down."""

from __future__ import annotations

import pytest

from ingest.catalogue import Provider, catalogue, check_source
from ingest.fileform import Sample, Vector
from ingest.samples import differences, events_of, outcome_of, spec_of
from ingest.steps import Unproven

CATALOGUE = catalogue()
VECTORS = [
    pytest.param(provider, vector, id=f"{provider.name}-{vector.name or number}")
    for provider in CATALOGUE.values()
    for number, vector in enumerate(provider.file.vector)
]
EXAMPLES = [
    pytest.param(provider, example, id=f"{provider.name}-{example.name or number}")
    for provider in CATALOGUE.values()
    for number, example in enumerate(provider.file.example)
]


@pytest.mark.parametrize(("provider", "vector"), VECTORS)
def test_a_vector_gives_what_its_file_says(provider: Provider, vector: Vector):
    if vector.expect.refused is not None:
        with pytest.raises(Unproven) as caught:
            outcome_of(provider, vector)
        assert caught.value.step == vector.expect.refused
        return

    got = outcome_of(provider, vector)

    assert differences(provider, vector, got) == []


@pytest.mark.parametrize(("provider", "vector"), VECTORS)
def test_the_source_of_a_vector_could_be_applied(provider: Provider, vector: Vector):
    check_source(spec_of(provider, vector))


@pytest.mark.parametrize(("provider", "example"), EXAMPLES)
def test_an_example_gives_what_its_file_says(provider: Provider, example: Sample):
    assert differences(provider, example, events_of(provider, example)) == []


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_file_has_what_people_need(name: str):
    file = CATALOGUE[name].file

    assert any(vector.expect.events and vector.expect.refused is None for vector in file.vector), "a signed event"
    assert file.confirmed or file.reason, "an unconfirmed provider says why"
    assert {"signature", *(["handshake"] if file.handshake else [])} <= set(file.docs)
    assert "retries" in file.docs or not file.retries.deadline_s or file.reason, "where the deadline is from"
    assert any("{url}" in step for step in file.setup.steps)


@pytest.mark.parametrize("name", CATALOGUE)
def test_what_is_shown_of_a_provider_is_complete(name: str):
    shown = CATALOGUE[name].as_json()

    assert shown["name"] == name
    assert shown["scheme"]
    assert shown["needs"] or any(check.keys or check.keys_from for check in CATALOGUE[name].file.verify)
