"""Duties that one process at a time has, among all that share the store: leases by the database's clock."""

from __future__ import annotations

from sqlalchemy import bindparam, select, update

from store.engine import Call, Change, Engine, Put, Script
from store.prepared import Bulk, Prepared, database_ms
from store.tables import meta

_NOW = Prepared(select(database_ms()))
_MAKE = Bulk(meta, "key", "value", then="ON CONFLICT DO NOTHING")
_FIND = Prepared(select(meta.c.value).where(meta.c.key == bindparam("key_")).with_for_update(), "key_")
_SET = Prepared(update(meta).where(meta.c.key == bindparam("key_")).values(value=bindparam("value_")), "value_", "key_")


async def hold_duty(engine: Engine, duty: str, owner: str, *, lease_ms: int) -> bool:
    """Take or renew a duty; False where another owner has it."""

    def script() -> Script[bool]:
        key = f"duty:{duty}"
        yield Put(_MAKE, [(key, " 0")])
        holder, _, until_ms = (yield Call(_FIND, (key,)))[0][0].rpartition(" ")
        now_ms = int((yield Call(_NOW))[0][0])
        if holder not in {"", owner} and int(until_ms) > now_ms:
            return False
        yield Change(_SET, (f"{owner} {now_ms + lease_ms}", key))
        return True

    return await engine.write(script)


async def release_duty(engine: Engine, duty: str, owner: str) -> None:
    """Give a duty back, where it is still ours."""

    def script() -> Script[None]:
        rows = yield Call(_FIND, (f"duty:{duty}",))
        if rows and rows[0][0].rpartition(" ")[0] == owner:
            yield Change(_SET, (" 0", f"duty:{duty}"))

    await engine.write(script)
