"""Whether anything went missing between the tables: sums that must agree, read on one snapshot."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import bindparam, func, select

from store.engine import Call, Engine, Script
from store.heads import ZERO
from store.prepared import Prepared
from store.tables import events, folds, invocations, lanes

_OPEN = Prepared(select(func.count()).select_from(invocations).where(invocations.c.ended_ms == ZERO))
_IN_LANES = Prepared(select(func.coalesce(func.sum(lanes.c.queued), 0)))
_between = (events.c.admitted_ms >= bindparam("since"), events.c.admitted_ms < bindparam("until"))
_PLANNED = Prepared(select(func.coalesce(func.sum(events.c.invocations), 0)).where(*_between), "since", "until")
_QUEUED = Prepared(
    select(func.count())
    .select_from(events.join(invocations, invocations.c.event_id == events.c.id))
    .where(*_between, invocations.c.replay_id == ""),
    "since",
    "until",
)
_FOLDED = Prepared(
    select(func.count())
    .select_from(events.join(folds, folds.c.event_id == events.c.id))
    .where(*_between, folds.c.replay_id == ""),
    "since",
    "until",
)


async def gaps(engine: Engine, *, since_ms: int, until_ms: int) -> Mapping[str, int]:
    """By stage, how many invocations are missing (or too many, where negative); all zero where nothing was lost.

    `route`: planned for the events admitted in that span, not folded by a dedup, and not in the ledger.  `dispatch`: open, and
    in no lane, so that nobody would ever deliver them.
    """

    def script() -> Script[dict[str, int]]:
        planned = (yield Call(_PLANNED, (since_ms, until_ms)))[0][0]
        queued = (yield Call(_QUEUED, (since_ms, until_ms)))[0][0]
        folded = (yield Call(_FOLDED, (since_ms, until_ms)))[0][0]
        is_open = (yield Call(_OPEN))[0][0]
        in_lanes = (yield Call(_IN_LANES))[0][0]
        return {"route": int(planned) - int(folded) - int(queued), "dispatch": int(is_open) - int(in_lanes)}

    return await engine.read(script)
