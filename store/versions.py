"""Counters that rise with every change of a set, so that its readers know when to read again: all SQL of `versions`."""

from __future__ import annotations

from sqlalchemy import bindparam, insert, select, update

from store.engine import Call, Change, Engine, Notify, Script, fetch
from store.prepared import Prepared
from store.tables import versions

KEYS = "keys"  # what changes API keys; beside `tables.SOURCES` and `tables.ROSTER`

_READ = Prepared(select(versions.c.number).where(versions.c.name == bindparam("name_")), "name_")
_RAISE = Prepared(update(versions).where(versions.c.name == bindparam("name_")).values(number=versions.c.number + 1), "name_")
_BEGIN = Prepared(insert(versions).values(name=bindparam("name_"), number=1), "name_")


def raised(name: str) -> Script[None]:
    """Part of a script: raise the counter `name`, and wake who listens for it."""
    if not (yield Change(_RAISE, (name,))):
        yield Call(_BEGIN, (name,))
    yield Notify(name)


async def number_of(engine: Engine, name: str) -> int:
    """The counter's number; 0 where nothing was ever changed."""
    rows = await fetch(engine, _READ, name)
    return int(rows[0][0]) if rows else 0
