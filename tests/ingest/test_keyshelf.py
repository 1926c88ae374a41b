"""Vendors' keys: fetched once, kept for an hour, a failure for ten seconds."""

from __future__ import annotations

import asyncio

import pytest

from ingest.keyshelf import KeyShelf
from schemas.errors import AgentUnreachable, SecretsUnavailable

URL = "https://keys.example.com/1"


class Vendor:
    def __init__(self) -> None:
        self.calls = 0
        self.posted: list[bytes] = []
        self.is_down = False

    async def __call__(self, url: str, posted: bytes = b"") -> bytes:
        self.calls += 1
        self.posted.append(posted)
        await asyncio.sleep(0)
        if self.is_down:
            raise AgentUnreachable
        return b"key"


async def test_many_requests_at_once_are_one_fetch():
    vendor = Vendor()
    shelf = KeyShelf(vendor)

    await asyncio.gather(*(shelf.bring(URL, 0) for _ in range(20)))

    assert vendor.calls == 1
    assert shelf.at_hand(URL) == b"key"


async def test_a_key_becomes_old_and_a_failure_is_not_asked_again_at_once():
    vendor = Vendor()
    shelf = KeyShelf(vendor)
    await shelf.bring(URL, 0)
    shelf.forget_old(3_600_000)
    assert shelf.at_hand(URL) is None

    vendor.is_down = True
    for now_ms in (3_600_000, 3_600_001, 3_609_000):
        with pytest.raises(SecretsUnavailable):
            await shelf.bring(URL, now_ms)
    assert vendor.calls == 2
    vendor.is_down = False
    await shelf.bring(URL, 3_610_001)

    assert shelf.at_hand(URL) == b"key"


async def test_without_a_client_no_key_is_ever_brought():
    with pytest.raises(SecretsUnavailable):
        await KeyShelf(None).bring(URL, 0)


async def test_addresses_without_end_do_not_fill_the_memory():
    shelf = KeyShelf(Vendor())

    for number in range(500):
        await shelf.bring(f"{URL}{number}", 0)

    assert len(shelf._kept) <= 200
    assert not shelf._locks


async def test_keys_that_are_asked_for_with_a_post_are_kept_by_their_names():
    vendor = Vendor()
    shelf = KeyShelf(vendor)

    await shelf.bring(URL, 0, name=f"{URL}#a", posted=b'{"key_id":"a"}')
    await shelf.bring(URL, 0, name=f"{URL}#a", posted=b'{"key_id":"a"}')
    await shelf.bring(URL, 0, name=f"{URL}#b", posted=b'{"key_id":"b"}')

    assert vendor.posted == [b'{"key_id":"a"}', b'{"key_id":"b"}']
    assert shelf.at_hand(f"{URL}#a") == b"key"
    assert shelf.at_hand(URL) is None
