"""Leases on shards, by the database's clock alone."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import bindparam, delete, func, select, update

from schemas.ledger import Lease
from store.engine import Call, Each, Engine, Notify, Put, Script
from store.prepared import Bulk, Prepared, among, database_ms
from store.tables import SHARDS, owners, shards

SHARDS_FREED = "shards"  # the channel on which owners hear that shards became free
WORK = "work"  # the channel on which the owners of shards hear of new work; its payload names the shards

_NOW = Prepared(select(database_ms()))
_REGISTER = Bulk(owners, "id", "lease_ms", then="ON CONFLICT (id) DO UPDATE SET lease_ms = excluded.lease_ms")
_FORGET_LATE = Prepared(delete(owners).where(owners.c.lease_ms <= bindparam("now")), "now")
_FORGET = Prepared(delete(owners).where(owners.c.id == bindparam("id_")), "id_")
_COUNT = Prepared(select(func.count()).select_from(owners))
_ALL = Prepared(select(shards.c.id, shards.c.owner, shards.c.epoch, shards.c.lease_ms).order_by(shards.c.id).with_for_update())
_WRITE = Prepared(
    update(shards)
    .where(shards.c.id == bindparam("id_"))
    .values(owner=bindparam("owner_"), epoch=bindparam("epoch_"), lease_ms=bindparam("lease_")),
    "owner_",
    "epoch_",
    "lease_",
    "id_",
)
_GIVE_BACK = Prepared(update(shards).where(shards.c.owner == bindparam("owner_")).values(owner="", lease_ms=0), "owner_")
_EPOCHS = Prepared(
    select(shards.c.id, shards.c.epoch).where(among(shards.c.id, "ids")).order_by(shards.c.id).with_for_update(read=True), "ids"
)


def epochs_of(wanted: set[int]) -> Script[dict[int, int]]:
    """Part of a script: today's epochs of these shards, which then cannot change before the script is committed."""
    if not wanted:
        return {}
    return dict((yield Call(_EPOCHS, (sorted(wanted),))))


async def hold_shards(engine: Engine, owner: str, *, lease_ms: int, busy: Collection[int] = ()) -> list[Lease]:
    """Renew what `owner` holds, take what is free or expired up to its fair share, give back what is above it.

    Of its shards it gives back those last that it calls `busy`: an attempt under way there would have to be repeated.
    The fair share is that of all who asked within their lease.  An owner whose lease ran out keeps its epoch where nobody took
    the shard meanwhile; each taking raises the epoch.
    """

    def script() -> Script[list[Lease]]:
        # The locks come first: everyone who asks waits here for the other, and sees what it wrote.
        rows = yield Call(_ALL)
        now_ms = int((yield Call(_NOW))[0][0])
        until_ms = now_ms + lease_ms
        yield Put(_REGISTER, [(owner, until_ms)])
        yield Call(_FORGET_LATE, (now_ms,))
        fair = -(-SHARDS // int((yield Call(_COUNT))[0][0]))
        mine = sorted((row for row in rows if row[1] == owner), key=lambda row: row[0] not in busy)
        free = [row for row in rows if row[1] != owner and row[3] <= now_ms]
        kept, surplus = mine[:fair], mine[fair:]
        taken = free[: fair - len(kept)]
        leases = [Lease(number, epoch, until_ms) for number, _, epoch, _ in kept]
        leases += [Lease(number, epoch + 1, until_ms) for number, _, epoch, _ in taken]
        changed = [(owner, lease.epoch, until_ms, lease.shard) for lease in leases]
        yield Each(_WRITE, changed + [("", epoch, 0, number) for number, _, epoch, _ in surplus])
        if surplus:
            yield Notify(SHARDS_FREED)
        return sorted(leases, key=lambda lease: lease.shard)

    return await engine.write(script)


async def release_shards(engine: Engine, owner: str) -> None:
    """Give every shard back, and ask for none."""

    def script() -> Script[None]:
        yield Call(_ALL)
        yield Call(_GIVE_BACK, (owner,))
        yield Call(_FORGET, (owner,))
        yield Notify(SHARDS_FREED)

    await engine.write(script)
