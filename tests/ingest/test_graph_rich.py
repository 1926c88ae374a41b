"""Microsoft Graph with resource data: what is sealed is opened, and nothing unsealed or foreign is taken."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ingest.catalogue import provider_named
from ingest.fileform import Vector
from ingest.receive import receive
from ingest.samples import request_of, source_of
from ingest.steps import Step, Unproven
from schemas.errors import SecretsUnavailable
from schemas.event import Event

PROVIDER = provider_named("graph_rich")
VECTOR = PROVIDER.file.vector[0]


def received(document: Any, *, secrets: tuple[str, ...] = VECTOR.secrets) -> list[Event]:
    vector: Vector = VECTOR.model_copy(update={"body": orjson.dumps(document).decode(), "secrets": secrets})
    got = receive(request_of(vector), source_of(PROVIDER, vector), round(VECTOR.now * 1000), traceparent="00-t")
    assert isinstance(got, list)
    return [event for event, _ in got]


@pytest.fixture
def document() -> Any:
    assert VECTOR.body is not None
    return orjson.loads(VECTOR.body)


def test_an_event_holds_what_was_sealed_and_no_longer_the_seal_or_the_secret(document: Any):
    event = received(document)[0]

    item = orjson.loads(event.body)["value"][0]
    assert item["content"]["body"]["content"] == "hi"
    assert not {"encryptedContent", "clientState"} & item.keys()
    assert event.pointer == "/value/0"


def test_each_item_must_have_this_sources_client_state(document: Any):
    document["value"].append({**document["value"][0], "clientState": "another"})

    with pytest.raises(Unproven) as caught:
        received(document)
    assert caught.value.step == Step.CREDENTIAL_MISMATCH


def test_an_item_that_is_not_sealed_is_not_taken(document: Any):
    document["value"].append({"clientState": "secretClientValue", "changeType": "deleted", "resource": "users/1"})

    with pytest.raises(Unproven) as caught:
        received(document)
    assert caught.value.step == Step.SIGNATURE_MISSING


@pytest.mark.parametrize("name", ["data", "dataSignature", "dataKey"])
@pytest.mark.parametrize("wrong", ["", "AAAA", "no base64", 7, None])
def test_a_seal_that_was_touched_is_not_opened(document: Any, name: str, wrong: object):
    document["value"][0]["encryptedContent"][name] = wrong

    with pytest.raises(Unproven) as caught:
        received(document)
    assert caught.value.step == Step.SIGNATURE_MISMATCH


@pytest.mark.parametrize("value", [[], None, "x", {}])
def test_without_items_nothing_is_proven(document: Any, value: object):
    document["value"] = value

    with pytest.raises(Unproven) as caught:
        received(document)
    assert caught.value.step == Step.ITEMS_MISSING


def test_one_bad_token_among_good_ones_is_enough_to_refuse(document: Any):
    document["validationTokens"].append(document["validationTokens"][0][:-4] + "AAAA")

    with pytest.raises(Unproven):
        received(document)


@pytest.mark.parametrize("secrets", [VECTOR.secrets[:1], VECTOR.secrets[1:], ("state", "-----BEGIN nothing")])
def test_both_the_client_state_and_a_private_key_must_be_there(document: Any, secrets: tuple[str, ...]):
    with pytest.raises(SecretsUnavailable):
        received(document, secrets=secrets)
