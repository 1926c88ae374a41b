from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import bindparam, insert, select

from schemas.errors import BadSetting, Conflict, DamagedRecord, NightbellError, Saturated, StoreUnavailable
from store.connect import connect
from store.engine import Call, Script, change, fetch
from store.prepared import Prepared
from store.schema import migrate
from store.sqlite import SqliteEngine
from store.sqlite_driver import open_sqlite, set_durable, translated
from store.tables import meta

_GET = Prepared(select(meta.c.value).where(meta.c.key == bindparam("key_")), "key_")
_ADD = Prepared(insert(meta).values(key=bindparam("key_"), value=bindparam("value_")), "key_", "value_")


class Disk:
    """What the next commits answer."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.commits = 0


class Breaking:
    """A connection whose commits fail as `disk` says: sqlite3's own class has no seam for it."""

    def __init__(self, connection: sqlite3.Connection, disk: Disk) -> None:
        self._connection, self._disk = connection, disk

    def execute(self, text: str, *params: object) -> sqlite3.Cursor:
        if text == "COMMIT":
            self._disk.commits += 1
            if self._disk.answers and (code := self._disk.answers.pop(0)):
                failure = sqlite3.OperationalError("injected")
                failure.sqlite_errorcode = code
                raise failure
        return self._connection.execute(text, *params)

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
async def engine(tmp_path: Path, disk: Disk) -> AsyncIterator[SqliteEngine]:
    path = str(tmp_path / "store.db")
    await migrate(f"sqlite:///{path}")
    found = SqliteEngine(path, max_waiting=50, connect=lambda where: Breaking(open_sqlite(where), disk))
    await found.start()
    yield found
    await found.aclose()


async def test_writes_that_wait_share_a_commit(engine: SqliteEngine, disk: Disk) -> None:
    await asyncio.gather(*(change(engine, _ADD, f"k{number}", "1") for number in range(40)))

    assert disk.commits <= 3


async def test_a_full_disk_refuses_and_recovers_by_itself(engine: SqliteEngine, disk: Disk) -> None:
    disk.answers = [sqlite3.SQLITE_FULL]

    with pytest.raises(StoreUnavailable):
        await change(engine, _ADD, "a", "1")

    assert await fetch(engine, _GET, "a") == []
    await change(engine, _ADD, "a", "2")
    assert [row[0] for row in await fetch(engine, _GET, "a")] == ["2"]


async def test_after_a_failed_fsync_nothing_is_written_any_more(engine: SqliteEngine, disk: Disk) -> None:
    disk.answers = [sqlite3.SQLITE_IOERR_FSYNC]

    found = await asyncio.gather(*(change(engine, _ADD, f"k{number}", "1") for number in range(5)), return_exceptions=True)
    with pytest.raises(StoreUnavailable, match="restarted"):
        await change(engine, _ADD, "later", "1")

    assert all(isinstance(each, StoreUnavailable) for each in found)
    assert not await engine.healthy()
    assert await fetch(engine, _GET, "k0") == []


async def test_a_full_queue_is_refused_at_once(engine: SqliteEngine) -> None:
    found = await asyncio.gather(*(change(engine, _ADD, f"k{number}", "1") for number in range(60)), return_exceptions=True)

    refused = [each for each in found if isinstance(each, Exception)]
    assert len(refused) == 10
    assert all(isinstance(each, Saturated) for each in refused)
    assert engine.waiting == 0


async def test_a_cancelled_caller_harms_nobody(engine: SqliteEngine) -> None:
    first = asyncio.ensure_future(change(engine, _ADD, "a", "1"))
    second = asyncio.ensure_future(change(engine, _ADD, "b", "1"))
    await asyncio.sleep(0)
    first.cancel()

    assert await second == 1
    assert engine.waiting == 0


async def test_what_is_queued_is_written_before_the_end(engine: SqliteEngine, tmp_path: Path) -> None:
    calls = [asyncio.ensure_future(change(engine, _ADD, f"k{number}", "1")) for number in range(10)]
    await asyncio.sleep(0)

    await engine.aclose()

    assert await asyncio.gather(*calls) == [1] * 10
    assert not (tmp_path / "store.db-wal").exists()


async def test_a_second_writer_is_refused_and_a_reader_is_not(engine: SqliteEngine, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    await change(engine, _ADD, "a", "1")
    second, reader = connect(url), connect(url, read_only=True)

    with pytest.raises(StoreUnavailable, match="another process"):
        await second.start()
    await reader.start()

    assert [row[0] for row in await fetch(reader.engine, _GET, "a")] == ["1"]
    with pytest.raises(StoreUnavailable):
        await change(reader.engine, _ADD, "b", "1")
    await reader.aclose()


async def test_a_script_that_changed_nothing_costs_no_other_a_second_run(engine: SqliteEngine) -> None:
    runs: list[str] = []

    def good() -> Script[None]:
        runs.append("good")
        yield Call(_ADD, ("a", "1"))

    def refusing() -> Script[None]:
        runs.append("refusing")
        yield Call(_GET, ("a",))
        raise Conflict("not today")

    found = await asyncio.gather(engine.write(good), engine.write(refusing), return_exceptions=True)

    assert isinstance(found[1], Conflict)
    assert sorted(runs) == ["good", "refusing"]


def test_commits_that_would_not_be_durable_are_refused() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)

    with pytest.raises(BadSetting, match="durable"):
        set_durable(connection)
    connection.close()


async def test_a_file_that_is_no_database_is_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"not a database, not at all" * 200)

    with pytest.raises(DamagedRecord):
        await SqliteEngine(str(tmp_path / "store.db")).start()


def _classes(root: type[BaseException]) -> set[type[BaseException]]:
    return {root}.union(*(_classes(child) for child in root.__subclasses__() if child.__module__ == "sqlite3"))


def test_every_exception_of_the_driver_is_mapped() -> None:
    bugs = {"ProgrammingError", "InterfaceError", "DataError", "InternalError", "NotSupportedError"}

    for kind in _classes(sqlite3.Error) | _classes(sqlite3.Warning):
        found = translated(kind("x"))
        assert isinstance(found, NightbellError) != (kind.__name__ in bugs), kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, StoreUnavailable),
        (sqlite3.SQLITE_FULL, StoreUnavailable),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreUnavailable),
        (sqlite3.SQLITE_READONLY, StoreUnavailable),
        (sqlite3.SQLITE_CANTOPEN, StoreUnavailable),
        (sqlite3.SQLITE_INTERRUPT, StoreUnavailable),
        (sqlite3.SQLITE_CORRUPT, DamagedRecord),
        (sqlite3.SQLITE_NOTADB, DamagedRecord),
        (sqlite3.SQLITE_ERROR, sqlite3.OperationalError),
    ],
)
def test_a_failure_is_named_by_who_must_act(code: int, kind: type[Exception]) -> None:
    failure = sqlite3.OperationalError("x")
    failure.sqlite_errorcode = code

    assert isinstance(translated(failure), kind)
