"""What became of invocations, until it is published on the outcomes topic."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import bindparam, delete, select

from schemas.ledger import Outcome
from store.engine import Call, Engine, fetch, one_step
from store.moves import OUTCOMES
from store.prepared import Prepared, among
from store.tables import outbox

_PENDING = Prepared(
    select(outbox.c.seq, outbox.c.key, outbox.c.body).order_by(outbox.c.seq).limit(bindparam("limit_")), "limit_"
)
_DROP = Prepared(delete(outbox).where(among(outbox.c.seq, "seqs")), "seqs")


class Outbox:
    """Outcomes in the order in which they were settled; those that were published are dropped.

    A crash between publishing and dropping publishes them again.  Rows are dropped by number, never "up to": on PostgreSQL a
    smaller number may be committed later.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def pending(self, *, limit: int = 500) -> list[Outcome]:
        """The oldest that wait."""
        return [Outcome(seq, key, body.encode()) for seq, key, body in await fetch(self._engine, _PENDING, limit)]

    async def drop(self, seqs: Sequence[int]) -> None:
        """Forget those that were published."""
        if seqs:
            await self._engine.write(one_step(Call(_DROP, (seqs,))))

    def listen(self, wake: Callable[[str], None]) -> Callable[[], None]:
        """Call `wake` when there are new ones; gives the function that ends this."""
        return self._engine.listen(OUTCOMES, wake)
