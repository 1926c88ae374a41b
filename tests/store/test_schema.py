from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from schemas.errors import BadSetting, StoreUnavailable
from store import schema
from store.address import Address, read_address
from store.connect import connect
from store.engine import Call, OneStep, change, fetch
from store.prepared import Prepared
from store.schema import migrate, newest, schema_version
from store.sqlite_driver import take_lock
from store.tables import SHARDS, metadata


async def test_the_revisions_make_the_tables_that_the_code_means(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await migrate(f"sqlite:///{path}")
    engine = create_engine(f"sqlite:///{path}")

    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)

    engine.dispose()
    assert differences == []


def test_the_newest_revision_is_the_one_that_alembic_finds() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config)

    assert scripts.get_heads() == [newest()]
    assert [script.revision for script in scripts.walk_revisions()] == sorted(schema._known(), reverse=True)


def test_a_process_whose_schema_is_current_loads_no_alembic(tmp_path: Path) -> None:
    work = (
        "import asyncio, sys\n"
        "from store.connect import connect\n"
        "async def main():\n"
        f"    store = connect('sqlite:///{tmp_path / 'store.db'}')\n"
        "    await store.start(may_migrate=True)\n"
        "    await store.aclose()\n"
        "asyncio.run(main())\n"
        "print('alembic' in sys.modules)"
    )
    said = [subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=True).stdout for _ in range(2)]

    assert [line.strip() for line in said] == ["True", "False"]


async def test_a_store_is_migrated_once_and_knows_its_revision(store_url: str) -> None:
    before = await schema_version(store_url)

    found = [await migrate(store_url), await migrate(store_url)]

    assert before in {None, newest()}
    assert found == [newest()] * 2
    assert await schema_version(store_url) == newest()


async def test_a_new_store_has_its_shards_its_counters_and_one_team(store_url: str) -> None:
    store = connect(store_url)
    await store.start(may_migrate=True)

    counts = [
        [tuple(row) for row in await fetch(store.engine, Prepared(text(statement)))]
        for statement in ("SELECT count(*) FROM shards", "SELECT name FROM versions ORDER BY name", "SELECT id FROM teams")
    ]

    await store.aclose()
    assert counts == [[(SHARDS,)], [("roster",), ("sources",)], [("default",)]]


async def test_a_store_without_a_schema_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="nightbell migrate"):
        await connect(f"sqlite:///{tmp_path / 'store.db'}").start()


async def test_a_schema_of_a_newer_build_is_left_alone(store_url: str) -> None:
    store = connect(store_url)
    await store.start(may_migrate=True)
    await change(store.engine, Prepared(text("UPDATE alembic_version SET version_num = '9999'")))
    await store.aclose()

    with pytest.raises(BadSetting, match="newer build"):
        await migrate(store_url)


async def test_a_file_that_a_server_holds_is_not_migrated(tmp_path: Path) -> None:
    with take_lock(str(tmp_path / "store.db")), pytest.raises(StoreUnavailable, match="another process"):
        await migrate(f"sqlite:///{tmp_path / 'store.db'}")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("sqlite:///store.db", Address("sqlite", "store.db")),
        ("sqlite:////var/lib/store.db", Address("sqlite", "/var/lib/store.db")),
        ("postgresql://u:p@h:5432/d?sslmode=require", Address("postgresql", "postgresql://u:p@h:5432/d?sslmode=require")),
        ("postgres://h/d", Address("postgresql", "postgresql://h/d")),
        ("postgresql+asyncpg://h/d", Address("postgresql", "postgresql://h/d")),
    ],
)
def test_a_url_names_a_dialect_and_a_place(url: str, address: Address) -> None:
    assert read_address(url) == address


@pytest.mark.parametrize("url", ["", "store.db", "sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "kafka://h"])
def test_a_url_that_is_no_store_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(BadSetting) as caught:
        read_address(url)

    assert "secret" not in str(caught.value)


async def test_the_file_is_one_that_sqlite_reads_without_us(tmp_path: Path) -> None:
    store = connect(f"sqlite:///{tmp_path / 'store.db'}")
    await store.start(may_migrate=True)
    await store.engine.write(OneStep(Call(Prepared(text("INSERT INTO meta (key, value) VALUES ('a', 'b')")))))
    await store.aclose()

    connection = sqlite3.connect(tmp_path / "store.db")

    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert connection.execute("SELECT value FROM meta WHERE key = 'a'").fetchone() == ("b",)
    connection.close()
