"""What bounds a statement on PostgreSQL, and a listener that loses its connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import func, select

from schemas.errors import StoreUnavailable
from store import postgres
from store.engine import Call, Notify, OneStep, Script, fetch
from store.postgres import PostgresEngine
from store.prepared import Prepared
from tests.servers.postgres import PostgresServer, fresh_database

pytestmark = pytest.mark.postgres
_SETTING = Prepared(select(func.current_setting("statement_timeout")))
_SLOW = Prepared(select(func.pg_sleep(20)))


@pytest.fixture
async def engine(
    postgres_server: PostgresServer, postgres_template: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PostgresEngine]:
    monkeypatch.setitem(postgres._SETTINGS, "statement_timeout", "300ms")
    url = await fresh_database(postgres_server, f"t{uuid4().hex}", template=postgres_template)
    found = PostgresEngine(url, pool_size=2)
    await found.start()
    yield found
    await found.aclose()


def test_a_statement_is_bounded_by_default() -> None:
    limits = {"statement_timeout": "30s", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "60s"}

    assert limits.items() <= postgres._SETTINGS.items()


async def test_a_statement_that_takes_too_long_is_ended_by_the_server_and_its_connection_serves_on(
    engine: PostgresEngine,
) -> None:
    with pytest.raises(StoreUnavailable):
        await engine.write(OneStep(Call(_SLOW)))

    found = await asyncio.gather(*(fetch(engine, _SETTING) for _ in range(4)))

    assert {row[0][0] for row in found} == {"300ms"}


async def test_a_listener_whose_connection_was_ended_listens_again_and_is_told_to_look(
    engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "KEEPALIVE_S", 0.1)
    other = PostgresEngine(engine._dsn, pool_size=1)
    await other.start()
    heard: asyncio.Queue[str] = asyncio.Queue()
    engine.listen("work", heard.put_nowait)

    async def until_heard(payload: str) -> None:
        def script() -> Script[None]:
            yield Notify("work", "7")

        async with asyncio.timeout(60):
            while True:
                await other.write(script)
                try:
                    async with asyncio.timeout(1):
                        while await heard.get() != payload:
                            pass
                        return
                except TimeoutError:
                    continue

    await until_heard("7")
    killer = await asyncpg.connect(engine._dsn)
    await killer.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    await killer.close()
    while not heard.empty():
        heard.get_nowait()
    await until_heard("")  # something may have been missed
    await until_heard("7")

    await other.aclose()
