"""What the store knows of Python's SQLite driver: opening, durability, errors, and how a script's steps are run."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any, TypeVar

from schemas.errors import BadSetting, Conflict, DamagedRecord, StoreUnavailable
from store.engine import AddNew, Call, Change, Each, Notify, Put, Script, Step
from store.prepared import SQLITE

T = TypeVar("T")

BUSY_MS = 5000
MOST_ROWS = 64
_FATAL = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BUGS = (sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError, sqlite3.InternalError, sqlite3.NotSupportedError)


def translated(exc: sqlite3.Error | sqlite3.Warning) -> Exception:
    """Our word for what SQLite said; `exc` itself where it is a mistake in our own statements."""
    if isinstance(exc, sqlite3.IntegrityError):
        return Conflict(f"the store has that already: {exc}")
    code = (getattr(exc, "sqlite_errorcode", None) or 0) & 0xFF
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return DamagedRecord(f"the store's file is damaged: {exc}")
    if isinstance(exc, _BUGS) or code == sqlite3.SQLITE_ERROR:
        return exc
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}:
        return StoreUnavailable(f"the store's file cannot be written or opened: {exc}")
    return StoreUnavailable(f"the store's file cannot be used now: {exc}")


def is_fatal(exc: BaseException) -> bool:
    """Whether nothing may be written after this: a failed fsync may have dropped pages, and a second one would not say so."""
    return isinstance(exc, sqlite3.Error) and ((getattr(exc, "sqlite_errorcode", None) or 0) & 0xFF) in _FATAL


def open_sqlite(path: str) -> sqlite3.Connection:
    """A connection without transactions of its own making, for one thread at a time."""
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512, uri=True)


def ours(exc: Exception) -> Exception:
    """`exc` as our callers see it."""
    if not isinstance(exc, sqlite3.Error | sqlite3.Warning):
        return exc
    found = translated(exc)
    if found is not exc:
        found.__cause__ = exc
    return found


def roll_back(connection: sqlite3.Connection) -> None:
    """End the open transaction, where there is one."""
    if connection.in_transaction:  # SQLite ends it by itself after some errors
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def set_durable(connection: sqlite3.Connection) -> None:
    """Make commits durable, and read that back.  Raises `BadSetting` where the file system or the build does not do it."""
    connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    connection.execute("PRAGMA synchronous=FULL")
    (level,) = connection.execute("PRAGMA synchronous").fetchone()
    if mode != "wal" or level != 2:  # noqa: PLR2004 - FULL
        raise BadSetting(f"SQLite here keeps journal_mode={mode}, synchronous={level}: commits would not be durable")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("PRAGMA cache_size=-65536")
    connection.execute("PRAGMA temp_store=MEMORY")
    connection.execute("PRAGMA journal_size_limit=67108864")


def take_lock(path: str) -> IO[bytes]:
    """The lock that makes this process the file's only writer; it ends with the returned file.  Raises `StoreUnavailable`."""
    lock = Path(f"{path}.lock").open("ab")  # noqa: SIM115 - held for as long as the engine is open
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        lock.close()
        raise StoreUnavailable(f"another process writes to {os.path.basename(path)}", pid=os.getpid()) from exc  # noqa: PTH119
    return lock


def run(connection: sqlite3.Connection, script: Callable[[], Script[T]], notes: list[Notify]) -> T:
    """Run a script's steps on a connection that has a transaction open; what it notifies is added to `notes`."""
    steps = script()
    answer: Any = None
    try:
        while True:
            step = steps.send(answer)
            if step.__class__ is Notify:
                notes.append(step)
                answer = None
            else:
                answer = _STEPS[step.__class__](connection, step)
    except StopIteration as done:
        result: T = done.value
        return result


def _call(connection: sqlite3.Connection, step: Call) -> list[Any]:
    text, arrange = step.prepared.form(SQLITE)
    return connection.execute(text, arrange(step.params) if arrange else step.params).fetchall()


def _change(connection: sqlite3.Connection, step: Change) -> int:
    text, arrange = step.prepared.form(SQLITE)
    return connection.execute(text, arrange(step.params) if arrange else step.params).rowcount


def _each(connection: sqlite3.Connection, step: Each) -> None:
    text, arrange = step.prepared.form(SQLITE)
    connection.executemany(text, map(arrange, step.params) if arrange else step.params)


def _put(connection: sqlite3.Connection, step: Put) -> None:
    for text, params in _some_rows_each(step):
        connection.execute(text, params)


def _add_new(connection: sqlite3.Connection, step: AddNew) -> list[Any]:
    return [row for text, params in _some_rows_each(step) for row in connection.execute(text, params)]


def _some_rows_each(step: Put | AddNew) -> Iterator[tuple[str, list[Any]]]:
    """The insert in statements of at most `MOST_ROWS` rows: for each statement the driver gives the interpreter away and waits
    to have it back.  The counts are powers of two, so that there are few texts.
    """
    bulk, rows = step.bulk, step.rows
    at = 0
    while left := len(rows) - at:
        count = min(MOST_ROWS, 1 << (left.bit_length() - 1))
        yield bulk.text(SQLITE, count), list(chain.from_iterable(rows[at : at + count]))
        at += count


_STEPS: dict[type[Step], Callable[[sqlite3.Connection, Any], Any]] = {
    Call: _call,
    Change: _change,
    Each: _each,
    Put: _put,
    AddNew: _add_new,
}
