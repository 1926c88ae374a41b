"""The book of sources: swapped whole, kept on disk, current within a second."""

from __future__ import annotations

import asyncio
import stat

import pytest

from ingest.book import Book
from schemas.errors import NotFound, NotReady, StoreUnavailable
from tests.fakes.ingest_world import FakeShelf, XorSeal, config

GH = config("gh", "github", secrets=["canary-secret"])


async def test_before_its_first_page_the_book_is_not_ready_and_knows_nothing():
    book = Book(FakeShelf([GH]))

    assert not book.is_ready
    with pytest.raises(NotReady):
        book.source("default", "gh")


async def test_a_change_of_version_is_read_and_no_change_is_not():
    shelf = FakeShelf([GH])
    book = Book(shelf)
    await book.open()

    shelf.configs.append(config("gl", "gitlab_token", secrets=["x"]))
    assert await book.refresh() is False
    with pytest.raises(NotFound):
        book.source("default", "gl")
    shelf.number += 1
    assert await book.refresh() is True

    assert book.source("default", "gl").provider.name == "gitlab_token"
    assert book.families() == {"github", "gitlab"}


async def test_a_deleted_source_is_gone():
    shelf = FakeShelf([GH])
    book = Book(shelf)
    await book.open()
    shelf.configs.clear()
    shelf.number += 1

    await book.refresh()

    assert book.is_ready
    with pytest.raises(NotFound):
        book.source("default", "gh")


async def test_a_notice_is_acted_on_at_once():
    shelf = FakeShelf([GH])
    book = Book(shelf, every_s=60)
    await book.open()
    running = asyncio.create_task(book.run())
    await asyncio.sleep(0)
    shelf.configs.append(config("gl", "gitlab_token", secrets=["x"]))
    shelf.number += 1

    book.notice()
    async with asyncio.timeout(2):
        while len(book.sources()) < 2:
            await asyncio.sleep(0)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_book_on_disk_opens_without_the_store_and_is_sealed(tmp_path):
    path = tmp_path / "book"
    shelf = FakeShelf([GH, config("basic", "generic_token", username="u", password="pa", options={"auth": "basic"})])
    await Book(shelf, seal=XorSeal(), path=path).open()
    shelf.is_down = True

    later = Book(shelf, seal=XorSeal(), path=path)
    await later.open()

    assert later.source("default", "gh").credentials.secrets == ("canary-secret",)
    assert later.source("default", "basic").credentials.password == "pa"
    assert b"canary" not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_damaged_file_is_as_good_as_none(tmp_path):
    path = tmp_path / "book"
    path.write_bytes(b"\x00\x01garbage")
    shelf = FakeShelf([GH])
    shelf.is_down = True
    book = Book(shelf, seal=XorSeal(), path=path)

    await book.open()

    assert not book.is_ready


async def test_a_store_that_goes_away_leaves_the_book_as_it_is():
    shelf = FakeShelf([GH])
    book = Book(shelf)
    await book.open()
    shelf.is_down = True

    with pytest.raises(StoreUnavailable):
        await book.refresh()

    assert book.source("default", "gh").name == "gh"


async def test_a_source_of_a_provider_that_this_build_lacks_does_not_hurt_the_others():
    book = Book(FakeShelf([config("new", "from_the_future"), GH]))

    await book.open()

    assert book.unknown_providers == ("default/new",)
    assert book.source("default", "gh").name == "gh"
