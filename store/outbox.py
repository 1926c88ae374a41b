"""What became of invocations, until it is published on the outcomes topic."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import bindparam, delete, select

from schemas.ledger import Outcome
from schemas.outcomes import OWN
from store.bodies import unpacked
from store.engine import Call, Engine, OneStep, fetch
from store.moves import OUTCOMES
from store.prepared import Prepared, among
from store.tables import bodies, events, outbox

_PENDING = Prepared(
    select(outbox.c.seq, outbox.c.key, outbox.c.body).order_by(outbox.c.seq).limit(bindparam("limit_")), "limit_"
)
# A body is read only where it says how long its chain is.
_CAUSES = Prepared(
    select(events.c.id, events.c.envelope, events.c.provider, bodies.c.coding, bodies.c.body)
    .outerjoin(bodies, (bodies.c.digest == events.c.body_digest) & (events.c.provider == OWN))
    .where(among(events.c.id, "ids")),
    "ids",
)
_DROP = Prepared(delete(outbox).where(among(outbox.c.seq, "seqs")), "seqs")


@dataclass(frozen=True, slots=True)
class Cause:
    """The event that an invocation was for: its envelope, and its data where it was an outcome itself (`{}`: out of reach)."""

    envelope: dict[str, Any]
    data: dict[str, Any] | None


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

    async def causes(self, event_ids: Collection[str]) -> dict[str, Cause]:
        """The events with these ids, those that are kept."""
        return {ident: _cause(*row) for ident, *row in await fetch(self._engine, _CAUSES, sorted(event_ids))}

    async def drop(self, seqs: Sequence[int]) -> None:
        """Forget those that were published."""
        if seqs:
            await self._engine.write(OneStep(Call(_DROP, (seqs,))))

    def listen(self, wake: Callable[[str], None]) -> Callable[[], None]:
        """Call `wake` when there are new ones; gives the function that ends this."""
        return self._engine.listen(OUTCOMES, wake)


def _cause(envelope: str, provider: str, coding: str | None, body: bytes | None) -> Cause:
    document = orjson.loads(envelope)
    if provider != OWN:
        return Cause(document, None)
    return Cause(document, {} if body is None else orjson.loads(unpacked(coding or "", body)))
