"""Secrets at rest."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadSetting, SecretsUnavailable
from store.vault import Vault, new_master_key, read_master_keys

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))


@given(st.binary(max_size=300), st.text(max_size=50))
def test_what_was_sealed_opens_again_in_its_own_place_alone(plain: bytes, context: str) -> None:
    vault = Vault([KEY])

    sealed = vault.seal(plain, context=context)

    assert vault.unseal(sealed, context=context) == plain
    with pytest.raises(SecretsUnavailable):
        vault.unseal(sealed, context=context + "x")


def test_every_changed_bit_is_noticed() -> None:
    vault = Vault([KEY])
    sealed = vault.seal(b"secret", context="a")

    opened = []
    for position in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[position // 8] ^= 1 << position % 8
        try:
            opened.append(vault.unseal(bytes(changed), context="a"))
        except SecretsUnavailable:
            continue

    assert opened == []


@pytest.mark.parametrize("length", range(37))
def test_a_cut_value_is_refused(length: int) -> None:
    vault = Vault([KEY])

    with pytest.raises(SecretsUnavailable):
        vault.unseal(vault.seal(b"", context="a")[:length], context="a")


def test_no_two_seals_share_a_nonce_or_their_bytes() -> None:
    vault = Vault([KEY])

    sealed = {vault.seal(b"same", context="a") for _ in range(2000)}

    assert len({value[9:21] for value in sealed}) == len(sealed) == 2000


def test_the_plain_text_is_nowhere_in_the_sealed_bytes() -> None:
    assert b"plain" not in Vault([KEY]).seal(b"plain" * 10, context="plain")


def test_an_older_key_still_opens_and_wants_to_be_replaced() -> None:
    old = Vault([OTHER])
    both = Vault([KEY, OTHER])
    sealed = old.seal(b"x", context="a")

    assert both.unseal(sealed, context="a") == b"x"
    assert not both.is_current(sealed)
    assert both.is_current(both.seal(b"x", context="a"))


def test_a_key_that_is_not_here_is_named_by_its_id_alone() -> None:
    sealed = Vault([OTHER]).seal(b"x", context="a")

    with pytest.raises(SecretsUnavailable) as caught:
        Vault([KEY]).unseal(sealed, context="a")

    assert caught.value.fields["key_id"] == Vault([OTHER]).key_id


def test_derived_keys_differ_by_purpose_and_by_master_key() -> None:
    found = {*Vault([KEY, OTHER]).derived("a"), *Vault([KEY, OTHER]).derived("b"), KEY, OTHER}

    assert len(found) == 6


def test_a_made_key_is_read_back() -> None:
    text = new_master_key()

    assert read_master_keys(f" {text}\n") == (base64.b64decode(text),)
    assert len(read_master_keys(f"{text},{new_master_key()}")) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "not base64!",
        base64.b64encode(b"short").decode(),
        base64.b64encode(bytes(32)).decode(),
        new_master_key() + "==",
    ],
)
def test_what_is_no_key_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(BadSetting) as caught:
        read_master_keys(text)

    assert not text.strip() or text.strip() not in caught.value.detail


def test_the_same_key_twice_is_refused() -> None:
    text = new_master_key()

    with pytest.raises(BadSetting):
        read_master_keys(f"{text},{text}")
