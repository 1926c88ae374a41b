"""An embedded store's new process takes everything over at once: whoever held its file before is dead."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, select, update

from schemas.invocation import State
from store.engine import Call, Engine, Script
from store.heads import ZERO
from store.prepared import Prepared
from store.runs import leases_renewed
from store.tables import attempts, invocations, owners, shards

_FREE = Prepared(update(shards).values(owner="", lease_ms=0))
_FORGET = Prepared(delete(owners))
_RUNNING = select(invocations.c.seq).where(invocations.c.ended_ms == ZERO, invocations.c.state == State.RUNNING.value)
_OVERDUE = Prepared(
    update(attempts)
    .where(attempts.c.ended_ms == 0, attempts.c.invocation_seq.in_(_RUNNING), attempts.c.deadline_ms > bindparam("now"))
    .values(deadline_ms=bindparam("now")),
    "now",
)


async def take_over(engine: Engine, *, now_ms: int) -> None:
    """Void every lease, and let the attempts that were under way be closed at once.

    Only for a store that one process has to itself (its file lock says so): elsewhere a lease is waited out.
    """

    def script() -> Script[None]:
        yield Call(_FREE)
        yield Call(_FORGET)
        yield Call(_OVERDUE, (now_ms,))
        yield from leases_renewed(now_ms)

    await engine.write(script)
