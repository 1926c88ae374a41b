"""Reading provider files, and what a source must have."""

from __future__ import annotations

import pytest

from ingest.catalogue import catalogue, check_source, provider_named, read_file
from schemas.config import SourceSpec
from schemas.errors import Invalid, NotFound
from tests.fakes.provider_forms import HEAD, MAC

REST = '[event]\ntype = "x"\n[identity]\nkind = "body"\n'


def spec(provider: str, **fields: object) -> SourceSpec:
    return SourceSpec.model_validate({"provider": provider, **fields})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = ", "made.toml"),
        (HEAD + REST, "verify"),
        (HEAD + MAC + REST + "[nonsense]\na = 1", "nonsense"),
        (HEAD + MAC.replace("sha256", "sha3") + REST, "sha3"),
        (HEAD + MAC.replace('"mac"', '"magic"') + REST, "magic"),
        (HEAD + MAC.replace("{body}", "{bodi}") + REST, "bodi"),
        (HEAD + MAC.replace("{body}", "{body|shout}") + REST, "shout"),
        (HEAD + MAC.replace("{body}", "{body") + REST, "not closed"),
        (HEAD + MAC + 'when = [{value = "{/a}"}]\n' + REST, "takes one of"),
        (HEAD + MAC + REST.replace('"x"', '"{jmes:a[}"'), "jmes"),
        (HEAD + MAC + REST + '[kinds]\na = "no.such.kind"', "no.such.kind"),
        (HEAD + MAC + REST.replace('"body"', '"delivery"'), "identity.delivery"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place_and_the_word(text: str, says: str):
    with pytest.raises(Invalid) as caught:
        read_file(text, "made.toml")

    assert "made.toml" in caught.value.detail
    assert says in caught.value.detail


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (spec("github"), "needs secrets"),
        (spec("github", secrets=["  "]), "blank"),
        (spec("github", secrets=["a", ""]), "blank"),
        (spec("github", public_keys=["00" * 32]), "not public_keys"),
        (spec("github", secrets=["a"], username="u", password="p"), "not password"),
        (spec("github", secrets=["a"], options={"tolerance_s": 5}), "no option"),
        (spec("stripe", secrets=["a"], options={"tolerance_s": 0}), "above 0"),
        (spec("stripe", secrets=["a"], options={"tolerance_s": "x"}), "number"),
        (spec("generic_hmac", secrets=["a"], options={"algorithm": "md4"}), "one of"),
        (spec("generic_token", options={"auth": "basic"}, secrets=["a"]), "not secrets"),
        (spec("generic_token", options={"auth": "basic"}, username="u"), "password"),
        (spec("standard_webhooks", public_keys=["nonsense"]), "public key"),
    ],
)
def test_a_source_that_its_provider_cannot_use_is_refused(source: SourceSpec, says: str):
    with pytest.raises(Invalid) as caught:
        check_source(source)

    assert says in caught.value.detail


@pytest.mark.parametrize(
    "source",
    [
        spec("github", secrets=["a"]),
        spec("stripe", secrets=["a"], options={"tolerance_s": 60}),
        spec("generic_token", options={"auth": "basic"}, username="u", password="p"),
        spec("standard_webhooks", public_keys=["whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="]),
        spec("standard_webhooks", secrets=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]),
        spec("wise"),
        spec("wise", public_keys=["A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="]),
        spec("plaid", secrets=["a"], options={"client_id": "c"}),
    ],
)
def test_a_source_that_has_what_is_asked_for_is_fine(source: SourceSpec):
    check_source(source)


def test_an_unknown_provider_names_its_neighbours():
    with pytest.raises(NotFound) as caught:
        provider_named("githib")

    assert "github" in caught.value.detail


def test_the_catalogue_is_made_once():
    assert catalogue() is catalogue()
