from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventlog import sql_file
from eventlog.config import LogConfig
from eventlog.sql import SqlLog
from schemas.errors import BadSetting, DamagedRecord, LogUnavailable
from schemas.topics import Draft, Place

SMALL = LogConfig(partitions=1, reserve_bytes=0)
PLACE = Place("t", 0)


def draft(value: bytes = b"v") -> Draft:
    return Draft("t", "k", value, {"h": "x"})


class FaultyConnection(sqlite3.Connection):
    """Fails the statements that `fault` picks, as SQLite would."""

    fault: Callable[[str], sqlite3.Error | None] = staticmethod(lambda _: None)

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        error = self.fault(sql)
        if error is not None:
            raise error
        return super().execute(sql, *parameters)


def io_error(name: str = "SQLITE_IOERR_FSYNC") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = getattr(sqlite3, name)
    error.sqlite_errorname = name
    return error


def opener(made: list[FaultyConnection]) -> sql_file.Opener:
    def make(path: str) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=FaultyConnection)
        made.append(connection)
        return connection

    return make


async def all_values(log: SqlLog) -> list[bytes]:
    return [record.value for record in await log.read(PLACE, (await log.bounds(PLACE)).oldest)]


async def test_a_failed_commit_ends_this_processs_log_and_a_new_one_goes_on(tmp_path: Path) -> None:
    made: list[FaultyConnection] = []
    log = SqlLog(tmp_path / "log.db", SMALL, open_connection=opener(made))
    await log.start()
    await log.append([draft(b"before")])

    made[0].fault = lambda sql: io_error() if sql == "COMMIT" else None
    failed = await asyncio.gather(*[log.append([draft(b"during")]) for _ in range(5)], return_exceptions=True)
    made[0].fault = lambda _: None

    assert [type(error) for error in failed] == [LogUnavailable] * 5
    assert len({id(error) for error in failed}) == 5
    with pytest.raises(LogUnavailable, match="restart"):
        await log.append([draft(b"after")])
    assert not await log.healthy()
    await log.aclose(grace_s=1)
    again = SqlLog(tmp_path / "log.db", SMALL)
    await again.start()
    assert await all_values(again) == [b"before"]
    await again.append([draft(b"new")])
    assert await all_values(again) == [b"before", b"new"]
    await again.aclose()


async def test_after_a_failed_sync_nothing_is_checkpointed_on_closing(tmp_path: Path) -> None:
    made: list[FaultyConnection] = []
    log = SqlLog(tmp_path / "log.db", SMALL, open_connection=opener(made))
    await log.start()
    await log.append([draft(b"before")])
    made[0].fault = lambda sql: io_error() if sql == "COMMIT" else None
    with pytest.raises(LogUnavailable):
        await log.append([draft(b"during")])
    before = (tmp_path / "log.db").read_bytes()

    await log.aclose(grace_s=1)

    assert (tmp_path / "log.db").read_bytes() == before
    assert (tmp_path / "log.db-wal").stat().st_size > 0


async def test_a_checkpoint_that_fails_to_sync_ends_this_processs_log(tmp_path: Path) -> None:
    made: list[FaultyConnection] = []
    log = SqlLog(tmp_path / "log.db", SMALL, open_connection=opener(made))
    await log.start()
    made[0].fault = lambda sql: io_error() if "wal_checkpoint" in sql else None

    async def fill() -> None:
        for _ in range(200):
            await log.append([draft(b"x" * 100_000)])

    with pytest.raises(LogUnavailable):
        await fill()

    await log.aclose(grace_s=1)


async def test_a_full_disk_refuses_the_batch_and_takes_again_when_there_is_room(tmp_path: Path) -> None:
    made: list[FaultyConnection] = []
    log = SqlLog(tmp_path / "log.db", SMALL, open_connection=opener(made))
    await log.start()
    await log.append([draft(b"kept")])
    pages = made[0].execute("PRAGMA page_count").fetchone()[0]
    made[0].execute(f"PRAGMA max_page_count = {pages + 3}")

    with pytest.raises(LogUnavailable) as caught:
        await log.append([draft(b"x" * 100_000)])
    small = await log.append([draft(b"fits")])
    made[0].execute("PRAGMA max_page_count = 1000000")
    large = await log.append([draft(b"x" * 100_000)])

    assert caught.value.fields["reason"] == "disk_full"
    assert [position for _, position in (*small, *large)] == [1, 2]
    assert await all_values(log) == [b"kept", b"fits", b"x" * 100_000]
    await log.aclose()


async def test_appends_stop_before_the_disk_is_full(tmp_path: Path) -> None:
    log = SqlLog(tmp_path / "log.db", LogConfig(partitions=1, reserve_bytes=1 << 60))
    await log.start()
    await log.ensure({"t": 1})

    with pytest.raises(LogUnavailable) as caught:
        await log.append([draft()])

    assert caught.value.fields["reason"] == "reserve"
    assert not await log.healthy()
    await log.aclose()


@pytest.mark.parametrize("column", ["value", "headers", '"key"'])
async def test_a_damaged_record_is_told_and_can_be_stepped_over(tmp_path: Path, column: str) -> None:
    log = SqlLog(tmp_path / "log.db", SMALL)
    await log.start()
    await log.append([draft(b"%d" % n) for n in range(5)])
    await log.aclose()
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db")) as vandal:
        held = (1 << sql_file.POSITION_BITS) + 2
        vandal.execute(f"UPDATE record SET {column} = CAST(X'7B7D' AS BLOB) WHERE id = ?", (held,))
        vandal.commit()

    log = SqlLog(tmp_path / "log.db", SMALL)
    await log.start()

    assert [record.value for record in await log.read(PLACE, 0)] == [b"0", b"1"]
    with pytest.raises(DamagedRecord) as caught:
        await log.read(PLACE, 2)
    assert caught.value.fields == {"topic": "t", "partition": 0, "position": 2}
    assert [record.value for record in await log.read(PLACE, 3)] == [b"3", b"4"]
    await log.aclose()


async def test_a_reader_rests_at_a_damaged_record_until_it_is_sought_past(tmp_path: Path) -> None:
    log = SqlLog(tmp_path / "log.db", SMALL)
    await log.start()
    await log.append([draft(b"%d" % n) for n in range(3)])
    await log.aclose()
    with contextlib.closing(sqlite3.connect(tmp_path / "log.db")) as vandal:
        vandal.execute("DELETE FROM record WHERE id = ?", ((1 << sql_file.POSITION_BITS) + 1,))
        vandal.commit()
    log = SqlLog(tmp_path / "log.db", SMALL)
    await log.start()

    async def start(_: object) -> dict[Place, int]:
        return {}

    reader = log.reader(group="g", topics=["t"], start=start)
    first = await reader.next()
    with pytest.raises(DamagedRecord) as caught:
        await reader.next()
    await log.append([draft(b"3")])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reader.next()
    reader.seek(PLACE, 2)
    rest = await reader.next()

    assert [record.value for record in first.records] == [b"0"]
    assert caught.value.fields["position"] == 1
    assert [record.value for record in rest.records] == [b"2", b"3"]
    await log.aclose()


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    log = SqlLog(tmp_path / "log.db", SMALL)
    await log.start()
    other = SqlLog(tmp_path / "log.db", SMALL)

    with pytest.raises(BadSetting, match=f"pid {os.getpid()}"):
        await other.start()

    await log.aclose()
    await other.start()
    await other.append([draft()])
    await other.aclose()


async def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"this is not a database, it is a letter to a friend" * 100)

    with pytest.raises(BadSetting):
        await SqlLog(tmp_path / "log.db", SMALL).start()


async def test_a_file_with_a_broken_tree_is_refused(tmp_path: Path) -> None:
    log = SqlLog(tmp_path / "log.db", SMALL)
    await log.start()
    await log.append([draft(b"x" * 3000) for _ in range(50)])
    await log.aclose()
    with (tmp_path / "log.db").open("r+b") as file:
        file.seek(8 * sql_file.PAGE_BYTES)
        file.write(b"\xff" * 3 * sql_file.PAGE_BYTES)

    with pytest.raises((BadSetting, LogUnavailable)):
        await SqlLog(tmp_path / "log.db", SMALL).start()


@pytest.mark.parametrize(("pragma", "value"), [("synchronous", 1), ("journal_mode", "delete")])
async def test_a_setting_that_would_lose_records_is_refused(tmp_path: Path, pragma: str, value: object) -> None:
    class Stubborn(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if sql == f"PRAGMA {pragma}":
                return super().execute("SELECT ?", (value,))
            return super().execute(sql, *parameters)

    def make(path: str) -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Stubborn)

    with pytest.raises(BadSetting, match=pragma):
        await SqlLog(tmp_path / "log.db", SMALL, open_connection=make).start()


def test_network_file_systems_are_refused() -> None:
    mounts = "/dev/sda1 / ext4 rw 0 0\nserver:/x /data nfs4 rw 0 0\n/dev/sdb1 /data/local ext4 rw 0 0\n"

    sql_file.refuse_remote(Path("/var/lib"), mounts)
    sql_file.refuse_remote(Path("/data/local/nightbell"), mounts)
    with pytest.raises(BadSetting, match="nfs4"):
        sql_file.refuse_remote(Path("/data/nightbell"), mounts)


async def test_retention_by_bytes_removes_the_oldest_and_appends_go_on(tmp_path: Path) -> None:
    log = SqlLog(tmp_path / "log.db", SMALL)
    await log.start()
    await log.append([draft(b"x" * 10_000) for _ in range(300)])

    trimming = asyncio.create_task(log.trim(older_than_ms=0, max_bytes=1_500_000))
    for n in range(20):
        await log.append([draft(b"%d" % n)])
    removed = await trimming

    bounds = await log.bounds(PLACE)
    assert removed == bounds.oldest
    assert removed == 200
    assert bounds.end == 320
    await log.aclose()


async def test_the_tail_in_memory_is_bounded_and_a_lagging_reader_misses_nothing(tmp_path: Path) -> None:
    log = SqlLog(tmp_path / "log.db", LogConfig(partitions=1, reserve_bytes=0, tail_bytes=2_000_000))
    await log.start()
    await log.ensure({"t": 1})

    async def start(_: object) -> dict[Place, int]:
        return {}

    reader = log.reader(group="g", topics=["t"], start=start)
    await log.append([draft(b"first")])
    await reader.next()
    for _ in range(60):
        await log.append([draft(b"x" * 10_000) for _ in range(10)])
    [partition] = log.partitions_of(["t"])
    kept = partition.kept_bytes
    positions: list[int] = []
    while len(positions) < 600:
        positions += [record.position for record in (await reader.next()).records]

    assert kept <= 2_000_000
    assert positions == list(range(1, 601))
    assert partition.kept_bytes == 0
    await log.aclose()


async def test_a_note_is_handed_over_in_memory_and_not_stored(tmp_path: Path) -> None:
    log = SqlLog(tmp_path / "log.db", SMALL)
    await log.start()
    await log.ensure({"t": 1})

    async def start(_: object) -> dict[Place, int]:
        return {}

    reader = log.reader(group="g", topics=["t"], start=start)
    reading = asyncio.create_task(reader.next())
    await asyncio.sleep(0)
    note = object()
    await log.append([Draft("t", "k", b"v", {}, note)])
    batch = await reading

    assert batch.records[0].note is note
    assert (await log.read(PLACE, 0))[0].note is None
    await log.aclose()


WRITER = """
import asyncio, os, sys
from eventlog.config import LogConfig
from eventlog.sql import SqlLog
from schemas.topics import Draft

async def main():
    log = SqlLog(sys.argv[1], LogConfig(partitions=2, reserve_bytes=0))
    await log.start()
    async def write(key, n=0):
        while True:
            [(place, position)] = await log.append([Draft("t", key, b"%s-%d" % (key.encode(), n) + b"x" * 2000, {})])
            os.write(1, b"%s %d %d %d\\n" % (key.encode(), n, place.partition, position))
            n += 1
    await asyncio.gather(*[write(f"{sys.argv[2]}k{n}") for n in range(8)])
asyncio.run(main())
"""


async def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[tuple[str, int, int, int]] = []
    for round_ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "log.db"), f"r{round_}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(100 + 150 * round_)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
        process.wait()
        process.stdout.close()
        for line in lines:
            parts = line.decode().split()
            if len(parts) == 4:
                acknowledged.append((parts[0], int(parts[1]), int(parts[2]), int(parts[3])))

    log = SqlLog(tmp_path / "log.db", SMALL)
    await log.start()
    found: dict[tuple[int, int], bytes] = {}
    for place in await log.places("t"):
        position, end = await log.bounds(place)
        while position < end:
            for record in await log.read(place, position):
                found[place.partition, record.position] = record.value
                position = record.position + 1
    await log.aclose()

    assert len(acknowledged) > 1000
    for key, n, partition, position in acknowledged:
        assert found[partition, position].startswith(f"{key}-{n}x".encode())


FULL = """
import asyncio, resource, signal, sys
from eventlog.config import LogConfig
from eventlog.sql import SqlLog
from schemas.errors import LogUnavailable
from schemas.topics import Draft

async def main():
    log = SqlLog(sys.argv[1], LogConfig(partitions=1, reserve_bytes=0))
    await log.start()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    n = 0
    try:
        while True:
            await log.append([Draft("t", "k", b"%d" % n, {"pad": "x" * 5000})])
            n += 1
    except LogUnavailable:
        pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        await log.append([Draft("t", "k", b"late", {})])
        print("alive", n)
    except LogUnavailable as exc:
        print(exc.fields["reason"], n)
    await log.aclose(grace_s=2)
asyncio.run(main())
"""


async def test_a_write_that_the_system_refuses_is_never_acknowledged(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "log.db")], capture_output=True, text=True, timeout=60)
    state, count = (
        done.stdout.split()[-2:] if "log_closed" not in done.stdout.splitlines()[-1] else done.stdout.splitlines()[-2].split()
    )

    log = SqlLog(tmp_path / "log.db", SMALL)
    await log.start()
    values = []
    position, end = await log.bounds(PLACE)
    while position < end:
        records = await log.read(PLACE, position)
        values += [record.value for record in records]
        position = records[-1].position + 1
    await log.aclose()

    assert state in {"dead", "alive"}, done.stderr
    assert int(count) > 10
    assert values[: int(count)] == [b"%d" % n for n in range(int(count))]
