"""Opens a store by its URL."""

from __future__ import annotations

import secrets

from sqlalchemy import bindparam, select

from store.address import read_address
from store.engine import Call, Engine, Put, Script, fetch
from store.postgres import PostgresEngine
from store.prepared import SQLITE, Bulk, Prepared
from store.schema import check_schema, migrate
from store.sqlite import SqliteEngine
from store.tables import meta

_VALUE = Prepared(select(meta.c.value).where(meta.c.key == bindparam("key_")), "key_")
_KEEP_FIRST = Bulk(meta, "key", "value", then="ON CONFLICT DO NOTHING")
_STORE_ID = "store_id"


class Store:
    """An open store: its engine, and its own identity."""

    def __init__(self, url: str, engine: Engine, *, read_only: bool) -> None:
        self.url = url
        self.engine = engine
        self.store_id = ""
        self._read_only = read_only

    @property
    def is_embedded(self) -> bool:
        """Whether it is a file that one process has to itself."""
        return self.engine.dialect == SQLITE

    async def start(self, *, may_migrate: bool = False) -> None:
        """Open it; with `may_migrate` its schema is brought up first, else it must be this build's.

        Raises `BadSetting`, `StoreUnavailable`.
        """
        if may_migrate and not self._read_only:
            await migrate(self.url)
        else:
            await check_schema(self.url)
        await self.engine.start()
        try:
            self.store_id = await self._identity()
        except BaseException:
            await self.engine.aclose()
            raise

    async def aclose(self) -> None:
        """Finish what is queued, and close it."""
        await self.engine.aclose()

    async def _identity(self) -> str:
        made = secrets.token_hex(16)

        def script() -> Script[str]:
            yield Put(_KEEP_FIRST, [(_STORE_ID, made)])
            found = yield Call(_VALUE, (_STORE_ID,))
            return str(found[0][0])

        if not self._read_only:
            return await self.engine.write(script)
        rows = await fetch(self.engine, _VALUE, _STORE_ID)
        return str(rows[0][0]) if rows else ""


def connect(url: str, *, read_only: bool = False, pool_size: int = 10) -> Store:
    """The store that `url` names (`sqlite:///path`, `postgresql://…`), not yet started.  Raises `BadSetting`.

    `read_only` opens a file beside the process that writes it.
    """
    address = read_address(url)
    engine: Engine
    if address.dialect == SQLITE:
        engine = SqliteEngine(address.place, read_only=read_only)
    else:
        engine = PostgresEngine(address.place, pool_size=pool_size)
    return Store(url, engine, read_only=read_only)
