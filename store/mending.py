"""Closes the attempts that a crash left open."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, select, update

from schemas.invocation import State
from store.engine import Call, Each, Script
from store.prepared import Prepared, among
from store.tables import attempts, invocations, lanes

UNKNOWN = "unknown"
_ERROR = "its dispatcher stopped before it recorded an answer; the agent may have been called"

_LEFT_OPEN = Prepared(
    select(invocations.c.seq, invocations.c.lane, invocations.c.attempts, attempts.c.deadline_ms)
    .join(attempts, (attempts.c.invocation_seq == invocations.c.seq) & (attempts.c.number == invocations.c.attempts))
    .where(among(invocations.c.seq, "seqs"), invocations.c.state == State.RUNNING.value, attempts.c.ended_ms == 0)
    .order_by(invocations.c.seq)
    .with_for_update(of=invocations),
    "seqs",
)
_CLOSE = Prepared(
    update(attempts)
    .where(attempts.c.invocation_seq == bindparam("seq_"), attempts.c.number == bindparam("no"))
    .values(ended_ms=bindparam("now"), outcome=UNKNOWN, error=_ERROR),
    *("now", "seq_", "no"),
)
_AGAIN = Prepared(
    update(invocations)
    .where(invocations.c.seq == bindparam("seq_"))
    .values(state=State.QUEUED.value, reason=UNKNOWN, tries=invocations.c.tries + 1, due_ms=bindparam("now")),
    *("now", "seq_"),
)
_DUE_AT = Prepared(update(lanes).where(lanes.c.id == bindparam("id_")).values(due_ms=bindparam("due"), hold=""), "due", "id_")


def closed_stale(seqs: Sequence[int], now_ms: int) -> Script[None]:
    """Close, as `unknown`, the open attempts of these invocations whose deadline has passed, and queue those again.

    The lane of one whose deadline is to come falls due then: a call of the owner before may still be under way.
    """
    rows = yield Call(_LEFT_OPEN, (seqs,))
    over = [row for row in rows if row[3] <= now_ms]
    yield Each(_CLOSE, [(now_ms, seq, number) for seq, _, number, _ in over])
    yield Each(_AGAIN, [(now_ms, seq) for seq, _, _, _ in over])
    dues = {lane: max(now_ms, deadline_ms) for _, lane, _, deadline_ms in rows}
    yield Each(_DUE_AT, [(due_ms, lane) for lane, due_ms in sorted(dues.items())])
