"""What the store knows of asyncpg: its errors, and how a script's steps are run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

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


async def run(connection: Connection, script: Callable[[], Script[T]], notes: list[Notify]) -> T:
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
                answer = await _STEPS[step.__class__](connection, step)
    except StopIteration as done:
        result: T = done.value
        return result


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


async def _put(connection: Connection, step: Put) -> None:
    if step.rows:
        await connection.fetch(step.bulk.text(POSTGRES), *_columns(step.rows))


async def _add_new(connection: Connection, step: AddNew) -> Sequence[Any]:
    if not step.rows:
        return []
    rows: list[Any] = await connection.fetch(step.bulk.text(POSTGRES), *_columns(step.rows))
    return rows


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


_STEPS: dict[type[Step], Callable[[Connection, Any], Awaitable[Any]]] = {
    Call: _call,
    Change: _change,
    Each: _each,
    Put: _put,
    AddNew: _add_new,
}
