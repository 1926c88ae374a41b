"""A world around the API for each test, over a copy of an empty store."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from store.connect import connect
from tests.fakes.api_world import World, a_world, migrated_template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return asyncio.run(migrated_template(tmp_path_factory.mktemp("template")))


@pytest.fixture
async def world(template: Path, tmp_path: Path) -> AsyncIterator[World]:
    shutil.copy(template, tmp_path / "store.db")
    store = connect(f"sqlite:///{tmp_path / 'store.db'}")
    await store.start()
    world = await a_world(store)
    yield world
    await world.client.close()
    await store.aclose()
