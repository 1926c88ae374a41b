"""Brings a store's schema to the newest revision, by Alembic's revisions in `store.migrations`."""

from __future__ import annotations

import asyncio
import io
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import NullPool, create_engine

from schemas.errors import BadSetting
from store.address import read_address
from store.postgres_driver import CONNECT_S, FOREIGN, translated
from store.prepared import SQLITE
from store.sqlite_driver import ours, take_lock

if TYPE_CHECKING:
    from alembic.config import Config

_REVISIONS = Path(__file__).parent / "migrations" / "versions"
_LOCK = 0x6E62_6D69_6772_6174  # "nbmigrat": one migration at a time, over all processes
_VERSION = "SELECT version_num FROM alembic_version"


async def migrate(url: str) -> str:
    """Bring the schema up, waiting for another process that does; the revision it has then.

    Raises `BadSetting` where a newer build has migrated it, `StoreUnavailable` where it cannot be reached.
    """
    address = read_address(url)
    if address.dialect == SQLITE:
        await asyncio.to_thread(_migrate_sqlite, address.place)
    else:
        await _migrate_postgres(address.place)
    return newest()


async def schema_version(url: str) -> str | None:
    """The revision that the schema has; None where there is none yet.  Raises `StoreUnavailable`."""
    address = read_address(url)
    if address.dialect == SQLITE:
        return await asyncio.to_thread(_version_sqlite, address.place)
    try:
        async with asyncio.timeout(CONNECT_S):
            connection = await asyncpg.connect(address.place)
            try:
                return await _version_postgres(connection)
            finally:
                await connection.close()
    except FOREIGN as exc:
        raise translated(exc) from exc


def newest() -> str:
    """The newest revision that this build knows."""
    return max(_known())


def _known() -> set[str]:
    """The revisions of this build, by their files' names; a test holds that Alembic reads the same."""
    return {path.name.partition("_")[0] for path in _REVISIONS.glob("[0-9]*_*.py")}


async def check_schema(url: str) -> None:
    """Raises `BadSetting` where the schema is not this build's, saying what to run."""
    found = await schema_version(url)
    if found != newest():
        raise BadSetting(
            f"the store's schema is {found or 'not made yet'}, this build needs {newest()}: run `nightbell migrate`"
        )


def _upgrade(span: str, *, as_sql: bool = False, **attributes: Any) -> None:
    """Run the revisions.  Alembic is loaded here: a process that finds its schema current, as most do, needs none of it."""
    from alembic import command

    command.upgrade(alembic_config(**attributes), span, sql=as_sql)


def alembic_config(**attributes: Any) -> Config:
    """Where Alembic finds our revisions; with a `connection` to run them on, or an `output` that gets them as SQL."""
    from alembic.config import Config

    config = Config(attributes=attributes)
    config.set_main_option("script_location", str(_REVISIONS.parent).replace("%", "%%"))
    return config


def _refuse_unknown(version: str | None) -> None:
    if version is not None and version not in _known():
        raise BadSetting(f"the store's schema is {version}, made by a newer build; this one knows up to {newest()}")


def _version_sqlite(path: str) -> str | None:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            row = connection.execute(_VERSION).fetchone()
    except sqlite3.OperationalError:
        return None  # no file, or no such table
    return row[0] if row else None


def _migrate_sqlite(path: str) -> None:
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise BadSetting(f"cannot make the folder of the store {path}: {exc.strerror}") from exc
    with take_lock(path):
        version = _version_sqlite(path)
        _refuse_unknown(version)
        if version == newest():
            return
        engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
        try:
            with engine.connect() as connection:
                _upgrade("head", connection=connection)
        except sqlite3.Error as exc:
            raise ours(exc) from exc
        finally:
            engine.dispose()


async def _version_postgres(connection: Any) -> str | None:
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    version: str | None = await connection.fetchval(_VERSION)
    return version


async def _migrate_postgres(dsn: str) -> None:
    try:
        async with asyncio.timeout(CONNECT_S):
            connection = await asyncpg.connect(dsn)
        try:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                version = await _version_postgres(connection)
                _refuse_unknown(version)
                if version != newest():
                    await connection.execute(_statements(version))
        finally:
            await connection.close()
    except FOREIGN as exc:
        raise translated(exc) from exc


def _statements(version: str | None) -> str:
    """The revisions from `version` on as SQL text: asyncpg runs it, so that no second driver is needed."""
    text = io.StringIO()
    _upgrade(f"{version or 'base'}:head", as_sql=True, output=text)
    return text.getvalue()
