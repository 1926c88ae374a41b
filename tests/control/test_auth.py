"""Who calls: keys, tokens, and nothing in between."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.auth import Caller, Gate, InvocationTokens, KeyRing, Role, bearer_of, key_digest, new_key
from schemas.errors import StoreUnavailable, Unauthenticated
from store.keys import KeyRow

NOW = 1_800_000_000_000


class Shelf:
    """Keys in memory, which counts how often it was read."""

    def __init__(self) -> None:
        self.rows: list[KeyRow] = []
        self.number = 1
        self.reads = self.looks = 0
        self.is_down = False

    async def version(self) -> int:
        self.looks += 1
        if self.is_down:
            raise StoreUnavailable
        return self.number

    async def live(self) -> list[KeyRow]:
        self.reads += 1
        return list(self.rows)

    def add(self, *, role: str = "viewer", expires_ms: int = 0, agent: str = "") -> str:
        key = new_key()
        self.rows.append(KeyRow("key_1", "default", "ci", role, key_digest(key), key[:12], agent, NOW, expires_ms, 0, 0))
        self.number += 1
        return key


class Time:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def a_ring(shelf: Shelf, time: Time) -> KeyRing:
    return KeyRing(shelf, now_ms=lambda: NOW, monotonic=time)


def a_minter(now_ms: int = NOW, keys: tuple[bytes, ...] = (b"k" * 32,)) -> InvocationTokens:
    return InvocationTokens(keys, now_ms=lambda: now_ms)


def a_token(minter: InvocationTokens, **fields: object) -> str:
    whole = {"team": "default", "invocation_id": "inv_1", "event_id": "evt_1", "expires_ms": NOW + 1} | fields
    return minter.mint(**whole)


async def test_a_key_is_read_once_and_then_known(shelf_time: tuple[Shelf, Time]) -> None:
    shelf, time = shelf_time
    key, ring = shelf.add(role="operator"), a_ring(shelf, time)

    found = [await ring.caller(key) for _ in range(10)]

    assert set(found) == {Caller("default", "ci", Role.OPERATOR)}
    assert (shelf.reads, shelf.looks) == (1, 1)


@pytest.fixture
def shelf_time() -> tuple[Shelf, Time]:
    return Shelf(), Time()


async def test_a_revocation_is_seen_within_a_second(shelf_time: tuple[Shelf, Time]) -> None:
    shelf, time = shelf_time
    key, ring = shelf.add(), a_ring(shelf, time)
    await ring.caller(key)
    shelf.rows.clear()
    shelf.number += 1

    time.s = 0.999

    with pytest.raises(Unauthenticated):
        await ring.caller(key)


async def test_with_the_store_down_a_key_is_neither_trusted_nor_refused(shelf_time: tuple[Shelf, Time]) -> None:
    shelf, time = shelf_time
    key, ring = shelf.add(), a_ring(shelf, time)
    await ring.caller(key)
    shelf.is_down, time.s = True, 5.0

    with pytest.raises(StoreUnavailable):
        await ring.caller(key)


@pytest.mark.parametrize("change", ["longer", "shorter", "other case", "prefix"])
async def test_a_key_that_is_nearly_right_is_wrong(shelf_time: tuple[Shelf, Time], change: str) -> None:
    shelf, time = shelf_time
    key = shelf.add()
    near = {"longer": key + "A", "shorter": key[:-1], "other case": key.swapcase(), "prefix": key[:12]}[change]

    with pytest.raises(Unauthenticated):
        await a_ring(shelf, time).caller(near)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic nbk_x", "nbk_x", "Bearer é", "Bearer " + "x" * 2000])
def test_a_header_without_a_bearer_is_refused(header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        bearer_of(header)


def test_the_schemes_name_ignores_case() -> None:
    assert bearer_of("bearer  nbk_x ") == "nbk_x"


def test_a_token_names_its_team_invocation_and_event() -> None:
    minter = a_minter()

    found = minter.caller(a_token(minter))

    assert found == Caller("default", "inv_1", Role.AGENT, invocation_id="inv_1", event_id="evt_1")
    assert found.is_token
    assert not found.may(Role.VIEWER)


def test_a_token_ends() -> None:
    token = a_token(a_minter())

    with pytest.raises(Unauthenticated):
        a_minter(NOW + 1).caller(token)


def test_a_token_outlives_a_change_of_the_master_key_and_not_its_loss() -> None:
    token = a_token(a_minter(keys=(b"old" * 10,)))

    assert a_minter(keys=(b"new" * 10, b"old" * 10)).caller(token).event_id == "evt_1"
    with pytest.raises(Unauthenticated):
        a_minter(keys=(b"new" * 10,)).caller(token)


@given(st.integers(min_value=0, max_value=10_000), st.characters(codec="ascii"))
def test_a_token_with_another_character_anywhere_is_refused(position: int, char: str) -> None:
    minter = a_minter()
    token = a_token(minter)
    at = 4 + position % (len(token) - 4)
    if token[at] == char:
        return

    with pytest.raises(Unauthenticated):
        minter.caller(token[:at] + char + token[at + 1 :])


def test_claims_under_no_or_anothers_signature_are_refused() -> None:
    claims = json.dumps(["others", "inv_2", "evt_2", NOW * 2]).encode()
    for raw in (b"", claims, claims + b"\0" * 32, b"\0" * 32):
        forged = "nbt_" + base64.urlsafe_b64encode(raw).decode().rstrip("=")

        with pytest.raises(Unauthenticated):
            a_minter().caller(forged)


async def test_the_gate_asks_the_ring_or_the_tokens_by_the_prefix(shelf_time: tuple[Shelf, Time]) -> None:
    shelf, time = shelf_time
    key, minter = shelf.add(role="agent", agent="triage"), a_minter()
    gate = Gate(a_ring(shelf, time), minter)

    assert (await gate.caller(f"Bearer {key}")).agent == "triage"
    assert (await gate.caller(f"Bearer {a_token(minter)}")).is_token
    with pytest.raises(Unauthenticated):
        await gate.caller("Bearer ghp_something")
