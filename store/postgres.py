"""The store's engine on PostgreSQL: a bounded pool, transactions that are run again after a deadlock, LISTEN/NOTIFY."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import asyncpg
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from schemas.errors import BadSetting, Saturated, StoreUnavailable
from store.engine import OneStep, Script
from store.listeners import Listeners
from store.postgres_driver import CHANNEL, CONNECT_S, FOREIGN, is_lost, may_run_again, run, translated
from store.prepared import POSTGRES

if TYPE_CHECKING:
    from store.postgres_driver import Connection

T = TypeVar("T")

MAX_WAITING = 1024
TRIES = 8
ACQUIRE_S = 10.0
STATEMENT_S = 30.0
LOOK_S = 2.0
_FIRST_PAUSE_S = 0.01
KEEPALIVE_S = 5.0  # how long a listener's connection may be dead before that is noticed
_SETTINGS = {
    "application_name": "nightbell",
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
    "jit": "off",
    # A plan made while a table was small is kept long after it has grown, and tables that work passes through (lanes, the
    # outbox) are small whenever statistics are taken: everything here is read along an index.
    "enable_seqscan": "off",
    "synchronous_commit": "on",
}


_WRITING: dict[str, Any] = {}
_SNAPSHOT: dict[str, Any] = {"isolation": "repeatable_read", "readonly": True}


class _MaybeCommitted(StoreUnavailable):
    """The connection was lost while the transaction was being committed: it may be there or not."""


class PostgresEngine:
    """An `Engine` over one database."""

    def __init__(self, dsn: str, *, pool_size: int = 10, max_waiting: int = MAX_WAITING) -> None:
        self._dsn = dsn
        self._pool_size = pool_size
        self._max_waiting = max_waiting
        self._busy = 0
        self._id = uuid4().hex
        self._listeners = Listeners()
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._is_open = False

    @property
    def dialect(self) -> str:
        """`postgresql`."""
        return POSTGRES

    @property
    def waiting(self) -> int:
        """How many scripts wait for a connection or are being run."""
        return self._busy

    async def start(self) -> None:
        """Connect; check that commits are durable.  Raises `BadSetting`, `StoreUnavailable`."""
        try:
            async with asyncio.timeout(CONNECT_S):
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=1,
                    max_size=self._pool_size,
                    timeout=CONNECT_S,
                    command_timeout=STATEMENT_S + 5,
                    max_inactive_connection_lifetime=300,
                    statement_cache_size=512,
                    max_cached_statement_lifetime=0,
                    server_settings=_SETTINGS,
                    reset=_reset,
                )
                fsync = await self._pool.fetchval("SHOW fsync")
        except (*FOREIGN, ValueError) as exc:
            raise translated(exc) from exc
        if fsync != "on":
            raise BadSetting("this PostgreSQL runs with fsync=off: commits would not be durable")
        self._is_open = True
        # Kept and awaited by `aclose`: a TaskGroup would bind the engine's life to one caller's frame.
        self._listening = asyncio.create_task(self._listen_on())

    async def write(self, script: Callable[[], Script[T]], *, is_patient: bool = False) -> T:
        """Run a script in a transaction of its own, again after a deadlock; durable when this returns."""
        del is_patient  # nobody waits for another here
        return await self._tried(script, _WRITING)

    async def read(self, script: Callable[[], Script[T]], *, needs_snapshot: bool = True) -> T:
        """Run a script on one snapshot; without, and where it has a single step, no transaction is opened for it."""
        return await self._tried(script, _SNAPSHOT if needs_snapshot and not isinstance(script, OneStep) else None)

    def listen(self, channel: str, wake: Callable[[str], None]) -> Callable[[], None]:
        """Call `wake` after each commit, of any process, that notifies `channel`."""
        return self._listeners.add(channel, wake)

    async def healthy(self) -> bool:
        """Whether a write would find a connection, and the database take it."""
        if self._pool is None or self._busy >= self._max_waiting:
            return False
        try:
            async with asyncio.timeout(LOOK_S):
                return not await self._pool.fetchval("SELECT pg_is_in_recovery()")
        except FOREIGN:
            return False

    async def aclose(self) -> None:
        """Finish what is under way, and close all connections."""
        self._is_open = False
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(CONNECT_S):
                    await pool.close()
            except FOREIGN:
                pool.terminate()

    async def _tried(self, script: Callable[[], Script[T]], kind: dict[str, Any] | None) -> T:
        if not self._is_open:
            raise StoreUnavailable("the store is closed")
        if self._busy >= self._max_waiting:
            raise Saturated("too much waits for the database")
        self._busy += 1
        try:
            try:
                return await self._once(script, kind)  # the common case, without tenacity's machinery
            except FOREIGN as exc:
                if not _is_worth_another(exc):
                    raise
            await asyncio.sleep(_FIRST_PAUSE_S)
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(_is_worth_another),
                stop=stop_after_attempt(TRIES - 1),
                wait=wait_random_exponential(multiplier=0.02, max=0.5),
                reraise=True,
            ):
                with attempt:
                    return await self._once(script, kind)
        except FOREIGN as exc:
            raise translated(exc) from exc
        finally:
            self._busy -= 1
        raise AssertionError("tenacity either returns or raises")

    async def _once(self, script: Callable[[], Script[T]], kind: dict[str, Any] | None) -> T:
        """Run it in a transaction of that kind, or in none."""
        if self._pool is None:
            raise StoreUnavailable("the store is closed")
        async with self._pool.acquire(timeout=ACQUIRE_S) as connection:
            if kind is None:
                return (await run(connection, script))[0]
            transaction = connection.transaction(**kind)
            await transaction.start()
            try:
                result, notes = await run(connection, script, sender=self._id)
            except BaseException:
                # The connection may be what failed; the pool then throws it away.
                with suppress(*FOREIGN):
                    await transaction.rollback()
                raise
            await _commit(transaction)
        for note in notes:
            self._listeners.wake(note.channel, note.payload)
        return result

    # --- wake-ups of other processes ---

    async def _listen_on(self) -> None:
        """Keep one connection that listens; after each time that it was lost, wake everyone to look for themselves."""
        while True:
            try:
                connection = await asyncpg.connect(self._dsn, timeout=CONNECT_S, command_timeout=LOOK_S)
                try:
                    await connection.add_listener(CHANNEL, self._hear)
                    self._listeners.wake_all()
                    while True:
                        await asyncio.sleep(KEEPALIVE_S)
                        await connection.execute("SELECT 1")
                finally:
                    connection.terminate()
            except FOREIGN:
                await asyncio.sleep(1.0)

    def _hear(self, _connection: Connection, _pid: int, _channel: str, payload: object) -> None:
        sender, channel, rest = str(payload).split(":", 2)
        if sender != self._id:  # our own were woken at the commit
            self._listeners.wake(channel, rest)


def _is_worth_another(exc: BaseException) -> bool:
    return may_run_again(exc) or is_lost(exc)


async def _reset(_connection: Connection) -> None:
    """Nothing of ours outlives its transaction (one left open is rolled back before this): the server need not be asked to
    forget anything whenever a connection comes back to the pool.
    """


async def _commit(transaction: asyncpg.transaction.Transaction) -> None:
    try:
        await transaction.commit()
    except FOREIGN as exc:
        if may_run_again(exc):
            raise
        raise _MaybeCommitted from exc
