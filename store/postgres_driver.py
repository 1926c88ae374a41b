"""What the store knows of asyncpg: its errors, and how a script's steps are run."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import asyncpg

from schemas.errors import BadSetting, Conflict, DamagedRecord, StoreUnavailable
from store.engine import AddNew, Call, Change, Each, Notify, Put, Script, Step
from store.prepared import POSTGRES

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]

T = TypeVar("T")

CONNECT_S = 10.0
_RERUN = frozenset({"40001", "40P01"})  # serialization failure, deadlock: the server undid it, and it may be run again
_AWAY = ("08", "53", "57", "58", "25006", "55P03", "40", "XX000")  # connection, resources, shutdown, disk, failover, locks
_SETTINGS = ("28", "3D", "0P", "42501")  # who we are, and what we may
_BUGS = ("00", "01", "02", "03", "09", "0A", "0B", "0F", "0L", "0Z", "10", "20", "21", "22", "24", "25", "26", "27", "2B", "2D")
_MORE_BUGS = ("2F", "34", "38", "39", "3B", "3F", "42", "44", "54", "55", "72", "F0", "HV", "P0")


def translated(exc: BaseException) -> Exception:
    """Our word for what asyncpg raised; `exc` itself where it is a mistake in our own statements.

    Error classes are those of PostgreSQL's appendix A; the longest prefix wins.
    """
    if isinstance(exc, asyncpg.PostgresError):
        return _by_state(exc, getattr(exc, "sqlstate", None) or "XX000")
    if isinstance(exc, ValueError):  # asyncpg.DataError, and what its codecs raise: a value that does not fit its column
        return exc
    if isinstance(exc, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError | TimeoutError):
        return StoreUnavailable(f"the database cannot be reached: {exc or type(exc).__name__}")
    assert isinstance(exc, Exception)
    return exc


def _by_state(exc: asyncpg.PostgresError, state: str) -> Exception:
    if state.startswith("23"):
        return Conflict(f"the store has that already: {exc}")
    if state in {"XX001", "XX002"}:
        return DamagedRecord(f"the database is damaged: {exc}")
    if state.startswith(_SETTINGS):
        return BadSetting(f"the database refuses us: {exc}")
    if state.startswith(_AWAY):
        return StoreUnavailable(f"the database cannot do it now: {exc}")
    assert state.startswith((*_BUGS, *_MORE_BUGS)), state
    return exc


def may_run_again(exc: BaseException) -> bool:
    """Whether the server undid the whole transaction because of others."""
    return isinstance(exc, asyncpg.PostgresError) and getattr(exc, "sqlstate", None) in _RERUN


def is_lost(exc: BaseException) -> bool:
    """Whether the connection is gone, so that another one may fare better."""
    if isinstance(exc, asyncpg.PostgresError):
        state = getattr(exc, "sqlstate", None) or ""
        return state.startswith("08") or state in {"57P01", "57P02", "57P03"}
    # InternalClientError is what asyncpg says of a connection that the server ended while it lay idle in the pool.
    lost = asyncpg.InterfaceError | asyncpg.InternalClientError | OSError
    return isinstance(exc, lost) and not isinstance(exc, ValueError | TimeoutError)


FOREIGN = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""All that asyncpg raises for reasons of its own; `TimeoutError` is an `OSError`."""


CHANNEL = "nightbell"
_NUMBERED = re.compile(r"\$(\d+)")


async def run(connection: Connection, script: Callable[[], Script[T]], *, sender: str = "") -> tuple[T, list[Notify]]:
    """Run a script's steps on a connection; gives its result, and what it notified, each once.

    Each statement is a round trip, so inserts whose answer nobody waits for go along with the next insert, or with the notices
    at the end: as one statement, whose parts see nothing of each other.
    """
    steps = script()
    answer: Any = None
    inserts = _Inserts(connection)
    notes: dict[Notify, None] = {}
    try:
        while True:
            step = steps.send(answer)
            answer = None
            if isinstance(step, Notify):
                notes[step] = None
            elif isinstance(step, Put | AddNew):
                answer = await inserts.take(step)
            else:
                await inserts.end()
                answer = await _STEPS[step.__class__](connection, step)
    except StopIteration as done:
        await inserts.end(notices=[f"{sender}:{note.channel}:{note.payload}" for note in notes])
        return done.value, list(notes)


class _Inserts:
    """The inserts that wait for the next statement of their kind."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._aside: list[Put] = []

    async def take(self, step: Put | AddNew) -> Sequence[Any] | None:
        """Let a `Put` wait; run an `AddNew` with what waits, and give its rows."""
        is_asked = isinstance(step, AddNew)
        if not step.rows:
            return [] if is_asked else None
        if any(step.bulk.table is put.bulk.table for put in self._aside):  # one statement may not touch a row twice
            await self.end()
        if isinstance(step, Put):
            self._aside.append(step)
            return None
        return await self.end(step)

    async def end(self, last: AddNew | None = None, *, notices: Sequence[str] = ()) -> Sequence[Any]:
        """Run what waits, with `last` behind it, or with these notices to all who listen; the rows of `last`."""
        wanted: list[Put | AddNew] = [*self._aside, last] if last else [*self._aside]
        if not wanted and not notices:
            return []
        texts = [each.bulk.text(POSTGRES) for each in wanted]
        params: list[Any] = [column for each in wanted for column in _columns(each.rows)]
        if notices:
            calls = [f"pg_notify(${number}, ${number + 1})" for number in range(1, 2 * len(notices), 2)]
            texts.append(f"SELECT {', '.join(calls)}")
            params += [word for notice in notices for word in (CHANNEL, notice)]
        self._aside = []
        rows: Sequence[Any] = await _STEPS[_Joined](self._connection, _Joined(_joined(*texts), params))
        return rows


class _Joined(NamedTuple):
    """Inserts and notices of our own as one statement."""

    text: str
    params: list[Any]


async def _join(connection: Connection, step: _Joined) -> Sequence[Any]:
    rows: list[Any] = await connection.fetch(step.text, *step.params)
    return rows


async def _call(connection: Connection, step: Call) -> Sequence[Any]:
    text, arrange = step.prepared.form(POSTGRES)
    rows: list[Any] = await connection.fetch(text, *(arrange(step.params) if arrange else step.params))
    return rows


async def _change(connection: Connection, step: Change) -> int:
    text, arrange = step.prepared.form(POSTGRES)
    status = await connection.execute(text, *(arrange(step.params) if arrange else step.params))
    return int(status.rpartition(" ")[2])  # "UPDATE 3"


async def _each(connection: Connection, step: Each) -> None:
    if step.params:
        text, arrange = step.prepared.form(POSTGRES)
        await connection.executemany(text, [arrange(params) for params in step.params] if arrange else step.params)


@lru_cache(maxsize=256)
def _joined(*texts: str) -> str:
    """One statement that does what these do, the last one's rows its own; its parameters are theirs, one after the other."""
    if len(texts) == 1:
        return texts[0]
    at = 0
    moved: list[str] = []
    for text in texts:
        moved.append(_NUMBERED.sub(lambda found, at=at: f"${int(found[1]) + at}", text))  # type: ignore[misc]
        at += max(map(int, _NUMBERED.findall(text)))
    return f"WITH {', '.join(f'put{n} AS ({text})' for n, text in enumerate(moved[:-1]))} {moved[-1]}"


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


_STEPS: dict[type[Step | _Joined], Callable[[Connection, Any], Awaitable[Any]]] = {
    Call: _call,
    Change: _change,
    Each: _each,
    _Joined: _join,
}
