"""Opens attempts: the row before the call, for what waits in the ledger and for what is being admitted.

The locks are taken in the order that `store.moves` tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, case, exists, or_, select, update

from schemas.invocation import State
from schemas.ledger import Opening
from store.engine import AddNew, Call, Each, Put, Script
from store.heads import ZERO
from store.mending import closed_stale
from store.moves import REDRIVEN, WAITING_STATES
from store.prepared import Bulk, Prepared, among
from store.shards import epochs_of
from store.tables import attempts, invocations, lanes

_before = invocations.alias("before")
_FOR_OPENING = Prepared(
    select(
        invocations.c.id,
        invocations.c.seq,
        invocations.c.state,
        invocations.c.attempts,
        invocations.c.shard,
        exists()
        .where(_before.c.lane == invocations.c.lane, _before.c.ended_ms == ZERO, _before.c.seq < invocations.c.seq)
        .correlate(invocations),
        invocations.c.reason,
        invocations.c.lane,
        invocations.c.due_ms,
    )
    .where(among(invocations.c.id, "ids"))
    .order_by(invocations.c.seq)
    .with_for_update(),
    "ids",
)
# Of the lane of a redriven one alone: what began before the redrive stands behind it, and may still run.
_RUNNING_IN = Prepared(
    select(invocations.c.lane, invocations.c.seq, invocations.c.state, attempts.c.deadline_ms)
    .join(attempts, (attempts.c.invocation_seq == invocations.c.seq) & (attempts.c.number == invocations.c.attempts))
    .where(
        among(invocations.c.lane, "lanes"),
        invocations.c.ended_ms == ZERO,
        or_(invocations.c.state == State.RUNNING.value, invocations.c.state == State.ACCEPTED.value),
    ),
    "lanes",
)
_LOOK_AGAIN = Prepared(update(lanes).where(lanes.c.id == bindparam("id_")).values(due_ms=bindparam("due")), "due", "id_")
_LOOK_AGAIN_MS = 1000
# A lane in flight is due, so that whoever takes it over after a crash finds it.
_IN_FLIGHT = Prepared(
    update(lanes)
    .where(lanes.c.id == bindparam("id_"), lanes.c.due_ms > bindparam("now"))
    .values(due_ms=bindparam("now"), hold=""),
    *("id_", "now"),
)
ADMITTED = (
    *("id", "team", "event_id", "subscription_uid", "subscription", "generation", "agent", "shard", "lane", "ordering_key"),
    *("ordering", "state", "created_ms", "due_ms", "replay_id"),
)  # what admission writes of an invocation
_BEGUN = Bulk(invocations, *ADMITTED, "attempts", then="RETURNING id, seq")
_ATTEMPTS = Bulk(attempts, "invocation_seq", "number", "started_ms", "deadline_ms", "owner", "epoch")
# It was due when it began, whatever it waited for before: its lane's due time is read from it again.
_RUN = Prepared(
    update(invocations)
    .where(invocations.c.seq == bindparam("seq_"))
    .values(
        state=State.RUNNING.value,
        reason="",
        attempts=bindparam("number"),
        due_ms=case((invocations.c.due_ms > bindparam("now"), bindparam("now")), else_=invocations.c.due_ms),
    ),
    *("number", "now", "seq_"),
)


def opened(openings: Sequence[Opening]) -> Script[list[bool]]:
    """Write the attempt rows of those that are heads of their lanes, wait, and are still ours; which ones were."""
    epochs = yield from epochs_of({opening.shard for opening in openings})
    rows = {row[0]: row for row in (yield Call(_FOR_OPENING, ([opening.invocation_id for opening in openings],)))}
    redriven = {
        row[7]: opening.started_ms for opening in openings if (row := rows.get(opening.invocation_id)) and row[6] == REDRIVEN
    }
    busy = (yield from _still_running(redriven)) if redriven else frozenset()
    answers, new, runs, early = [], [], [], []
    for opening in openings:
        row = rows.pop(opening.invocation_id, None)  # taken out: a second opening of the same one finds none
        is_open = (
            row is not None
            and epochs.get(opening.shard) == opening.epoch
            and row[2] in WAITING_STATES
            and opening.number == row[3] + 1
            and opening.shard == row[4]
            and not row[5]
            and row[7] not in busy
        )
        answers.append(is_open)
        if is_open and row is not None:
            new.append(_attempt_row(opening, row[1]))
            runs.append((opening.number, opening.started_ms, row[1]))
            if row[8] > opening.started_ms:  # parked, unknown to who opens it: the answer to the parking was lost on the way
                early.append((row[7], opening.started_ms))
    yield Put(_ATTEMPTS, new)
    yield Each(_RUN, runs)
    yield Each(_IN_FLIGHT, sorted(early))
    return answers


def _still_running(lanes_at: Mapping[str, int]) -> Script[frozenset[str]]:
    """Part of a script: in which of these lanes something runs now; what a crash left open is closed once its time is over.

    The lane of one whose time is not over falls due when it is.
    """
    rows = yield Call(_RUNNING_IN, (sorted(lanes_at),))
    busy = set()
    for lane, seq, state, deadline_ms in rows:
        at_ms = lanes_at[lane]
        if state == State.ACCEPTED:  # its end lets the lane go on; until then it is looked at now and then
            yield Call(_LOOK_AGAIN, (at_ms + _LOOK_AGAIN_MS, lane))
            busy.add(lane)
            continue
        yield from closed_stale([seq], at_ms)
        if deadline_ms > at_ms:
            busy.add(lane)
    return frozenset(busy)


def begun_with(begun: Sequence[tuple[Opening, tuple[Any, ...]]]) -> Script[None]:
    """Part of admission: write new invocations (rows as `ADMITTED` names them, running) with their first attempts."""
    if not begun:
        return
    seqs = dict((yield AddNew(_BEGUN, [(*row, opening.number) for opening, row in begun])))
    yield Put(_ATTEMPTS, [_attempt_row(opening, seqs[opening.invocation_id]) for opening, _ in begun])


def _attempt_row(opening: Opening, seq: int) -> tuple[Any, ...]:
    return (seq, opening.number, opening.started_ms, opening.deadline_ms, opening.owner, opening.epoch)
