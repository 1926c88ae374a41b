"""The embedded log's file: its tables, what is demanded of it when it is opened, and how a record is stored in it.

    about    log_id, format
    place    number -> topic, partition, oldest position
    record   id -> at, crc, key, headers, value          id = place number << 43 | position

One b-tree holds all records; the id keeps each place's records together and in order, so reading, retention and finding the
end are ranges of it, and no second index is written on an append.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache
from itertools import chain
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

import orjson

from schemas.errors import BadSetting, DamagedRecord, LogUnavailable, NightbellError
from schemas.topics import Place, Record

POSITION_BITS = 43
FORMAT = "1"
PAGE_BYTES = 4096
SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS place (
    number INTEGER PRIMARY KEY, topic TEXT NOT NULL, "partition" INTEGER NOT NULL, oldest INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, "partition"));
CREATE TABLE IF NOT EXISTS record (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, crc INTEGER NOT NULL,
    "key" BLOB NOT NULL, headers BLOB NOT NULL, value BLOB NOT NULL);
"""
_INSERT = 'INSERT INTO record (id, at, crc, "key", headers, value) VALUES '
_MOST_ROWS = 64  # of one statement: for each the driver gives the interpreter away, and waits to have it back; it keeps 128
SELECT = 'SELECT id, at, crc, "key", headers, value FROM record WHERE id >= ? AND id < ? ORDER BY id LIMIT ?'
_REMOTE = ("nfs", "cifs", "smb", "afs", "lustre", "glusterfs", "fuse.sshfs", "fuse.glusterfs")

Row = tuple[int, int, int, bytes, bytes, bytes]  # as SELECT gives them

Opener = Callable[[str], sqlite3.Connection]
"""How the writer's connection is made: the seam where tests put a connection that fails."""


class Held(NamedTuple):
    """A place as the file has it."""

    number: int
    place: Place
    oldest: int
    end: int
    last_ms: int

    @property
    def base(self) -> int:
        """The id of its position 0."""
        return self.number << POSITION_BITS


def open_connection(path: str) -> sqlite3.Connection:
    """A connection with explicit transactions, used by one thread at a time."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)


def open_for_reading(path: Path) -> sqlite3.Connection:
    """A connection that can neither write nor checkpoint."""
    target = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(target, uri=True, isolation_level=None, check_same_thread=False, timeout=5.0)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("PRAGMA query_only = 1")
    connection.execute("PRAGMA cache_size = -8192")
    return connection


def translated(exc: sqlite3.Error) -> NightbellError:
    """Our error for one of SQLite's.  `is_fatal` in its fields: what was written before may not be what the disk has."""
    code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    name = getattr(exc, "sqlite_errorname", "SQLITE_ERROR")
    if code == sqlite3.SQLITE_FULL:
        return LogUnavailable("no room for the event log on its disk", reason="disk_full", is_fatal=False)
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return LogUnavailable("another program holds the event log's file", reason="locked", is_fatal=False)
    if code == sqlite3.SQLITE_NOTADB:
        return BadSetting("the file is not an event log", reason="not_a_log", is_fatal=True)
    return LogUnavailable(f"the event log's file failed: {name}", reason=name.lower(), is_fatal=True)


def lock_file(path: Path) -> int:
    """Take the log for this process; the descriptor holds it.  Raises `BadSetting` where another process has it."""
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise BadSetting(
            f"the event log {path} is open in another process ({holder}); one process writes it at a time"
        ) from exc
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"pid {os.getpid()}\n".encode(), 0)
    return descriptor


def prepare(connection: sqlite3.Connection, path: Path, *, check_bytes: int) -> str:
    """Make an opened file a log that can be trusted; its log id.  Raises `BadSetting`."""
    is_new = path.stat().st_size == 0
    if is_new:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    _demand(connection, "journal_mode", "wal", path)
    _demand(connection, "synchronous", 2, path)
    _demand(connection, "foreign_keys", 1, path)
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # the writer checkpoints by itself, after it has answered
    connection.execute("PRAGMA cache_size = -16384")
    if not is_new and path.stat().st_size <= check_bytes:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise BadSetting(f"the event log {path} is damaged ({verdict}): restore it, or recover it with sqlite3's .recover")
    log_id = _about(connection, path)
    sync_folder(path.parent)
    return log_id


def _demand(connection: sqlite3.Connection, pragma: str, wanted: str | int, path: Path) -> None:
    # Read back: distributions change defaults, and a file system without shared memory refuses WAL without an error.
    connection.execute(f"PRAGMA {pragma} = {wanted}")
    found = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
    if found != wanted:
        raise BadSetting(
            f"SQLite would not set {pragma} to {wanted} for {path} (it says {found}): nothing would be durable there"
        )


def _about(connection: sqlite3.Connection, path: Path) -> str:
    connection.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute("INSERT OR IGNORE INTO about VALUES ('log_id', ?), ('format', ?)", (f"sqlite-{token_hex(8)}", FORMAT))
    connection.execute("COMMIT")
    about = dict(connection.execute("SELECT name, value FROM about"))
    if about["format"] != FORMAT:
        raise BadSetting(f"the event log {path} has format {about['format']}; this release reads {FORMAT}")
    return str(about["log_id"])


def sync_folder(folder: Path) -> None:
    """Make the names of new files durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_remote(folder: Path, mounts: str) -> None:
    """Raise `BadSetting` where `folder` lies on a network file system, by the text of /proc/self/mounts."""
    best, kind = "", ""
    for line in mounts.splitlines():
        point, found = [*line.split(" "), "", ""][1:3]
        point = point.replace("\\040", " ")
        if folder == Path(point) or Path(point) in folder.parents:
            best, kind = max((best, kind), (point, found), key=lambda pair: len(pair[0]))
    if kind.startswith(_REMOTE):
        raise BadSetting(f"{folder} is on a network file system ({kind}): SQLite's locks and syncs cannot be relied on there")


def held_places(connection: sqlite3.Connection) -> list[Held]:
    """Every place of the file, with its bounds."""
    rows = connection.execute('SELECT number, topic, "partition", oldest FROM place ORDER BY topic, "partition"').fetchall()
    return [_held(connection, row) for row in rows]


def _held(connection: sqlite3.Connection, row: tuple[int, str, int, int]) -> Held:
    number, topic, partition, oldest = row
    base = number << POSITION_BITS
    last = connection.execute(
        "SELECT id, at FROM record WHERE id >= ? AND id < ? ORDER BY id DESC LIMIT 1", (base, base + (1 << POSITION_BITS))
    ).fetchone()
    end, last_ms = (last[0] - base + 1, last[1]) if last else (oldest, 0)
    return Held(number, Place(topic, partition), oldest, max(end, oldest), last_ms)


def add_topic(connection: sqlite3.Connection, topic: str, count: int) -> list[Held]:
    """Write a topic's places, within the caller's transaction."""
    connection.executemany('INSERT INTO place (topic, "partition") VALUES (?, ?)', [(topic, number) for number in range(count)])
    rows = connection.execute(
        'SELECT number, topic, "partition", oldest FROM place WHERE topic = ? ORDER BY "partition"', (topic,)
    )
    return [_held(connection, row) for row in rows.fetchall()]


def add(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Insert records, within the caller's transaction."""
    for at in range(0, len(rows), _MOST_ROWS):
        some = rows[at : at + _MOST_ROWS]
        connection.execute(_insert_of(len(some)), list(chain.from_iterable(some)))


@cache
def _insert_of(count: int) -> str:
    return _INSERT + ", ".join(["(?, ?, ?, ?, ?, ?)"] * count)


def checksum(key: bytes, headers: bytes, value: bytes) -> int:
    """What tells a stored record from a damaged one: SQLite's pages carry no checksum of their own."""
    return zlib.crc32(value, zlib.crc32(headers, zlib.crc32(key)))


def records_from(
    connection: sqlite3.Connection, held: Held, position: int, end: int, *, max_records: int, max_bytes: int
) -> list[Record]:
    """Records from `position` up to `end`.  Stops before one that is damaged or missing; raises where that is the first."""
    found: list[Record] = []
    total = 0
    for expected, row in enumerate(_rows(connection, (held.base + position, held.base + end, max_records)), position):
        record = _record(held, row) if row[0] == held.base + expected else None
        if record is None:
            break
        total += len(record.value)
        if total > max_bytes and found:
            break
        found.append(record)
    if not found and position < end:
        raise _damaged(held.place, position)
    return found


def _rows(connection: sqlite3.Connection, bounds: tuple[int, int, int]) -> Iterator[Row]:
    cursor = connection.execute(SELECT, bounds)
    try:
        yield from cursor
    finally:
        cursor.close()  # an open cursor keeps its snapshot, so the WAL could never start anew


def _record(held: Held, row: Row) -> Record | None:
    number, at, crc, key, headers, value = row
    if checksum(key, headers, value) != crc:
        return None
    place = held.place
    return Record(place.topic, place.partition, number - held.base, key.decode(), value, orjson.loads(headers), at)


def _damaged(place: Place, position: int) -> DamagedRecord:
    return DamagedRecord(
        f"record {position} of {place.topic}/{place.partition} fails its checksum or is missing",
        topic=place.topic,
        partition=place.partition,
        position=position,
    )


def position_at(connection: sqlite3.Connection, held: Held, low: int, high: int, at_ms: int) -> int:
    """The first position in [low, high) appended at `at_ms` or later, else `high`; instants never fall within a place."""
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(
            "SELECT id, at FROM record WHERE id >= ? AND id < ? ORDER BY id LIMIT 1", (held.base + middle, held.base + high)
        ).fetchone()
        if row is None or row[1] >= at_ms:
            high = middle
        else:
            low = row[0] - held.base + 1
    return low


def appended_at(connection: sqlite3.Connection, held: Held, position: int) -> int | None:
    """When the record at `position`, or the next one there is, was appended."""
    row = connection.execute(
        "SELECT at FROM record WHERE id >= ? AND id < ? ORDER BY id LIMIT 1",
        (held.base + position, held.base + (1 << POSITION_BITS)),
    ).fetchone()
    return int(row[0]) if row else None


def waiting_at(path: Path, place: Place) -> tuple[int, int]:
    """How many records a place of the log at `path` has, and when its oldest was appended (0: none): a look from outside."""
    try:
        with closing(open_for_reading(path)) as connection:
            held = next((each for each in held_places(connection) if each.place == place), None)
            if held is None or held.oldest == held.end:
                return 0, 0
            return held.end - held.oldest, appended_at(connection, held, held.oldest) or 0
    except sqlite3.Error as exc:
        raise translated(exc) from exc


def remove(connection: sqlite3.Connection, held: Held, oldest: int, upto: int) -> int:
    """Remove [oldest, upto) of a place, within the caller's transaction; how many records that were."""
    gone = connection.execute("DELETE FROM record WHERE id >= ? AND id < ?", (held.base + oldest, held.base + upto)).rowcount
    connection.execute("UPDATE place SET oldest = ? WHERE number = ?", (upto, held.number))
    return gone


def used_bytes(connection: sqlite3.Connection) -> tuple[int, int]:
    """Bytes in use and bytes free inside the file."""
    pages = int(connection.execute("PRAGMA page_count").fetchone()[0])
    free = int(connection.execute("PRAGMA freelist_count").fetchone()[0])
    return (pages - free) * PAGE_BYTES, free * PAGE_BYTES
