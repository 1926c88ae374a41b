"""A store on each engine: the same tests run over both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from store.connect import Store, connect
from store.engine import Engine
from store.schema import migrate
from tests.servers.postgres import PostgresServer, fresh_database, running_postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a migrated database, which is quicker to copy than to make."""

    async def make() -> None:
        await migrate(await fresh_database(postgres_server, "migrated"))

    asyncio.run(make())
    return "migrated"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
async def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    template = await asyncio.to_thread(request.getfixturevalue, "postgres_template")
    return await fresh_database(request.getfixturevalue("postgres_server"), f"t{uuid4().hex}", template=template)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    found = connect(store_url)
    await found.start(may_migrate=True)
    yield found
    await found.aclose()


@pytest.fixture
def engine(store: Store) -> Engine:
    return store.engine
