"""Ids are for ever: golden values, and no two lists of parts that meet."""

from __future__ import annotations

import hashlib
from base64 import b32encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import digest_id, event_id, invocation_id, random_id, shard_of


def test_the_ids_of_yesterday_are_those_of_today():
    assert event_id("default", "github-acme", "delivery:1") == "evt_nxnv3lsuwr57rv67d73itf5zzw"
    assert invocation_id("evt_a", "sub_b") == "inv_4yyswvuwczwcf4k7d6e7tp3met"
    assert shard_of("default", "triage") == 1


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_an_id_is_the_base32_of_the_digest(parts):
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(len(part.encode()).to_bytes(4, "big") + part.encode())

    assert digest_id("x_", *parts) == "x_" + b32encode(hasher.digest()[:17])[:26].decode().lower()


def test_parts_do_not_run_into_one_another():
    assert event_id("a", "bc", "d") != event_id("ab", "c", "d") != event_id("a", "b", "cd")


def test_a_replay_has_an_id_of_its_own():
    assert invocation_id("evt_a", "sub_b", "rpl_1") not in {
        invocation_id("evt_a", "sub_b"),
        invocation_id("evt_a", "sub_b", "rpl_2"),
    }


def test_a_random_id_takes_enough_entropy():
    assert random_id("rpl_", bytes(range(17))) == "rpl_" + b32encode(bytes(range(17)))[:26].decode().lower()
    with pytest.raises(ValueError, match="17 random bytes"):
        random_id("rpl_", b"short")
