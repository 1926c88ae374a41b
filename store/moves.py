"""Moves invocations from state to state, their attempts and lanes with them: the scripts behind `store.ledger`.

Every script here locks in one order: shards, invocations by `seq`, lanes by name.  So two of them never wait for each other
crosswise, and admission, which locks lanes alone, waits for none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from sqlalchemy import bindparam, case, delete, select, update

from schemas.invocation import END_STATES, State
from schemas.ledger import Settlement
from schemas.runs import ACCEPTED, OFFERED, UNANSWERED
from schemas.times import iso
from store.engine import Call, Change, Each, Notify, Put, Script
from store.fallbacks import Fall, falls_of, handed_over
from store.heads import ZERO
from store.prepared import Bulk, Prepared, among
from store.run_rows import Begin, begun, ended, judged
from store.sent import SENT_BODY, SENT_NAMES, packed
from store.shards import WORK, epochs_of
from store.tables import NEVER_MS, ROSTER, attempts, exchanges, invocations, lanes, outbox, subscriptions
from store.texts import kept
from store.versions import raised

REDRIVEN = "redriven"  # the reason of what an operator queued again
OUTCOMES = "outcomes"  # the channel on which the publisher of outcomes hears of new ones
WAITING_STATES = frozenset({State.QUEUED, State.WAITING})
_RUNNING = frozenset({State.RUNNING})
_MAX_ANSWER = 4096
_ENDS = frozenset(state.value for state in END_STATES)

_FOUND = Prepared(
    select(
        *(
            invocations.c[name]
            for name in ("id", "seq", "state", "attempts", "tries", "lane", "ordering_key", "event_id", "team")
        ),
        *(invocations.c[name] for name in ("subscription", "agent", "budget_ms")),
        attempts.c.ended_ms,
    )
    .outerjoin(attempts, (attempts.c.invocation_seq == invocations.c.seq) & (attempts.c.number == invocations.c.attempts))
    .where(among(invocations.c.id, "ids"))
    .order_by(invocations.c.seq)
    .with_for_update(of=invocations),
    "ids",
)
_MOVE = Prepared(
    update(invocations)
    .where(invocations.c.seq == bindparam("seq_"))
    .values(
        state=bindparam("to_state"),
        reason=bindparam("why"),
        outcome=bindparam("came_out"),
        tries=bindparam("tried"),
        due_ms=bindparam("due"),
        ended_ms=bindparam("ended"),
        budget_ms=bindparam("budget"),
    ),
    *("to_state", "why", "came_out", "tried", "due", "ended", "budget", "seq_"),
)
_OF_CALL = {
    "status": bindparam("status_"),
    "answer": bindparam("answer_"),
    "duration_ms": bindparam("duration"),
    "sent": bindparam("sent_"),
    "tokens": bindparam("tokens_"),
    "bytes_sent": bindparam("bytes_"),
    "context_digest": bindparam("context"),
    "raw_tokens": bindparam("raw_"),
    "missing": bindparam("missing_"),
    "cut": bindparam("cut_"),
    "sent_body": SENT_BODY,
}  # what a call gave
_CLOSE = Prepared(
    update(attempts)
    .where(attempts.c.invocation_seq == bindparam("seq_"), attempts.c.number == bindparam("no"))
    .values(
        ended_ms=bindparam("ended"),
        outcome=bindparam("came_out"),
        error=bindparam("error_"),
        **_OF_CALL,
    ),
    *("ended", "came_out", "status_", "error_", "answer_", "duration", "sent_", "tokens_", "bytes_", "context", "raw_"),
    *("missing_", "cut_", *SENT_NAMES, "seq_", "no"),
)
# What the call of an attempt gave that its agent reported about before: the run has its word already.
_FILL = Prepared(
    update(attempts)
    .where(attempts.c.invocation_seq == bindparam("seq_"), attempts.c.number == bindparam("no"), attempts.c.duration_ms == 0)
    .values(
        ended_ms=case((attempts.c.ended_ms == 0, bindparam("ended")), else_=attempts.c.ended_ms),
        outcome=case((attempts.c.outcome == "", bindparam("came_out")), else_=attempts.c.outcome),
        **_OF_CALL,
    ),
    *("ended", "came_out", "status_", "answer_", "duration", "sent_", "tokens_", "bytes_", "context", "raw_"),
    *("missing_", "cut_", *SENT_NAMES, "seq_", "no"),
)
_LANES = Prepared(
    select(lanes.c.id, lanes.c.queued, lanes.c.agent).where(among(lanes.c.id, "ids")).order_by(lanes.c.id).with_for_update(),
    "ids",
)
_DROP_LANE = Prepared(delete(lanes).where(lanes.c.id == bindparam("id_")), "id_")
_SET_LANE = Prepared(
    update(lanes)
    .where(lanes.c.id == bindparam("id_"))
    .values(
        queued=bindparam("left"),
        due_ms=bindparam("due"),
        hold=bindparam("why"),
        agent=bindparam("agent_"),
        shard=bindparam("shard_"),
    ),
    *("left", "due", "why", "agent_", "shard_", "id_"),
)
_SET_LENGTH = Prepared(update(lanes).where(lanes.c.id == bindparam("id_")).values(queued=bindparam("left")), "left", "id_")
_first = invocations.alias("first")
_LANE_HEADS = Prepared(
    select(
        *(invocations.c[name] for name in ("lane", "seq", "state", "reason", "due_ms", "agent", "shard")),
    ).where(
        invocations.c.seq.in_(
            select(
                select(_first.c.seq)
                .where(_first.c.lane == lanes.c.id, _first.c.ended_ms == ZERO)
                .order_by(_first.c.seq)
                .limit(1)
                .correlate(lanes)
                .scalar_subquery()
            ).where(among(lanes.c.id, "ids"))
        )
    ),
    "ids",
)
_EXCHANGES = Bulk(exchanges, "invocation_seq", "number", "exchange", then="ON CONFLICT DO NOTHING")
_OUTBOX = Bulk(outbox, "key", "body")
_DISABLE = Prepared(
    update(subscriptions)
    .where(subscriptions.c.uid == bindparam("uid_"), subscriptions.c.state != "disabled")
    .values(state="disabled", disabled_reason=bindparam("why"), updated_ms=bindparam("now")),
    *("why", "now", "uid_"),
)


@dataclass(frozen=True, slots=True)
class Move:
    """One invocation's way into another state.  `epoch` None: an operator's act, which no shard fences.

    `tries` and `budget_ms` None: as they are.  `due_ms` counts where it goes on waiting; 0: until someone releases it.
    `attempt_outcome` is what the last attempt is called from now on, where its run changed that.  `told` is what an agent said
    of its end: it is published with the outcome, also of one that waits for a person.
    """

    invocation_id: str
    state: State
    reason: str
    at_ms: int
    shard: int = 0
    epoch: int | None = None
    due_ms: int = 0
    tries: int | None = None
    budget_ms: int | None = None
    outcome: str = ""
    froms: frozenset[State] = WAITING_STATES
    settlement: Settlement | None = None
    attempt_outcome: str = ""
    told: Mapping[str, Any] | None = None
    fall: Fall | None = None


def move_of(settlement: Settlement) -> Move:
    """What a settlement asks for."""
    return Move(
        settlement.invocation_id,
        settlement.state,
        settlement.reason,
        settlement.ended_ms,
        shard=settlement.shard,
        epoch=settlement.epoch,
        due_ms=settlement.due_ms,
        tries=settlement.tries,
        outcome=settlement.outcome,
        froms=_RUNNING,
        settlement=settlement,
    )


def moved(moves: Sequence[Move]) -> Script[list[bool]]:
    """Move those that are in a state to move from and still ours, all that hangs on them with them; which ones were.

    A settlement that was written before, and whose answer was lost on the way, counts as written.
    """
    epochs = yield from epochs_of({move.shard for move in moves if move.epoch is not None})
    rows = {row[0]: row for row in (yield Call(_FOUND, ([move.invocation_id for move in moves],)))}
    answers: list[bool] = []
    todo: list[tuple[Move, Any]] = []
    fills: list[tuple[Settlement, int]] = []
    for move in moves:
        row = rows.get(move.invocation_id)
        if row is None or (move.epoch is not None and epochs.get(move.shard) != move.epoch):
            answers.append(False)
        elif _may_move(move, row):
            answers.append(True)
            todo.append((move, row))
            del rows[move.invocation_id]
        else:
            answers.append(_is_repeated(move, row))
            if move.settlement is not None and move.settlement.number == row[3]:
                fills.append((move.settlement, row[1]))
    if todo:
        yield from _write((yield from _fallen(todo)))
    if fills:
        yield Each(_FILL, [_filling(settlement, seq) for settlement, seq in fills])
    return answers


def _fallen(todo: list[tuple[Move, Any]]) -> Script[list[tuple[Move, Any]]]:
    """Part of a script: the moves, with those that would bury going on along their fallback chain where there is one."""
    buried = {
        move.invocation_id: (row[8], move.reason, move.at_ms)
        for move, row in todo
        if move.state is State.BURIED and not (move.settlement and move.settlement.disable_subscription)
    }
    falls = (yield from falls_of(buried)) if buried else {}
    return [(move if move.invocation_id not in falls else _falling(move, falls[move.invocation_id]), row) for move, row in todo]


def _falling(move: Move, fall: Fall) -> Move:
    return replace(
        move, state=fall.state, reason=fall.reason, due_ms=fall.due_ms, tries=0, budget_ms=fall.due_ms, outcome="", fall=fall
    )


def _may_move(move: Move, row: Any) -> bool:
    _, _, state, number, *_ = row
    if move.settlement is None:
        return state in move.froms
    if move.settlement.number != number:
        return False
    # Its agent reported before its call had ended: what it answered counts, silence does not while the run lives.
    return state in move.froms or (state == State.ACCEPTED and row[12] == 0 and move.outcome not in UNANSWERED)


def _is_repeated(move: Move, row: Any) -> bool:
    settlement = move.settlement
    return settlement is not None and settlement.number == row[3] and settlement.ended_ms == row[12]


def _write(todo: Sequence[tuple[Move, Any]]) -> Script[None]:
    yield Each(_CLOSE, [_closing(move.settlement, row[1]) for move, row in todo if move.settlement is not None])
    if frames := [
        (row[1], move.settlement.number, move.settlement.exchange)
        for move, row in todo
        if move.settlement is not None and move.settlement.exchange
    ]:
        yield Put(_EXCHANGES, frames)
    yield Each(_MOVE, [_movement(move, row) for move, row in todo])
    yield from _follow_runs(todo)
    if falls := [(move.fall, row[1], row[3], move.at_ms, row[8]) for move, row in todo if move.fall is not None]:
        yield from handed_over(falls)
        yield Notify(WORK, ",".join(map(str, sorted({fall.shard for fall, *_ in falls}))))
    gone: dict[str, int] = {}
    firsts: dict[str, int] = {}
    for move, row in todo:
        has_left = move.state in END_STATES or (move.fall is not None and move.fall.leaves_lane)
        gone[row[5]] = gone.get(row[5], 0) + has_left
        firsts[row[5]] = min(firsts.get(row[5], row[1]), row[1])
    yield from _shorten(gone, firsts)
    is_news = [move.state in END_STATES or (move.told is not None and move.fall is None) for move, _ in todo]
    told = [(row[6], _outcome(move, row)) for (move, row), is_told in zip(todo, is_news, strict=True) if is_told]
    if told:
        yield Put(_OUTBOX, told)
        yield Notify(OUTCOMES)
    yield from _disable(todo)


def _follow_runs(todo: Sequence[tuple[Move, Any]]) -> Script[None]:
    """Part of a script: begin the runs that were accepted, and end those that their call's own answer ended."""
    if beginning := [(move.settlement, row) for move, row in todo if move.settlement and move.settlement.run]:
        yield from begun([_beginning(settlement, row) for settlement, row in beginning])
    if words := [(m.at_ms, m.attempt_outcome, m.reason, row[1], row[3]) for m, row in todo if m.attempt_outcome]:
        yield from judged(words)
    if over := [
        (move.at_ms, move.outcome, move.reason, "", row[1])
        for move, row in todo
        if move.settlement is not None and row[2] == State.ACCEPTED and move.state is not State.ACCEPTED
    ]:
        yield from ended(over)


def _beginning(settlement: Settlement, row: Any) -> Begin:
    terms = settlement.run
    assert terms is not None
    team, agent, at_ms = row[8], row[10], settlement.ended_ms
    waiting, lease_ms = int(terms.offer is not None), settlement.due_ms
    return row[1], settlement.number, team, agent, at_ms, waiting, lease_ms, terms.span_ms, terms.ends_ms, terms.offer


def _movement(move: Move, row: Any) -> tuple[Any, ...]:
    is_end = move.state in END_STATES
    return (
        move.state.value,
        kept(move.reason),
        move.outcome,
        row[4] if move.tries is None else move.tries,
        move.at_ms if is_end else move.due_ms,
        move.at_ms if is_end else 0,
        row[11] if move.budget_ms is None else move.budget_ms,
        row[1],
    )


def _closing(settlement: Settlement, seq: int) -> tuple[Any, ...]:
    return (
        settlement.ended_ms,
        settlement.outcome,
        settlement.status,
        kept(settlement.error),
        settlement.answer[:_MAX_ANSWER] or None,
        settlement.duration_ms,
        int(settlement.sent),
        settlement.tokens,
        settlement.bytes_sent,
        settlement.context_digest,
        settlement.raw_tokens,
        settlement.missing,
        settlement.cut,
        *packed(settlement),
        seq,
        settlement.number,
    )


def _filling(settlement: Settlement, seq: int) -> tuple[Any, ...]:
    ended_ms, outcome, status, _, *rest = _closing(settlement, seq)
    return ended_ms, outcome, status, *rest


def _outcome(move: Move, row: Any) -> str:
    ident, _, _, number, _, _, _, event_id, team, subscription, agent, *_ = row
    found = {
        "invocation": ident,
        "event": event_id,
        "team": team,
        "subscription": subscription,
        "agent": agent,
        "state": move.state.value,
        "outcome": move.outcome,
        "reason": kept(move.reason),
        "attempts": number,
        "time": iso(move.at_ms),
        "causationid": ident,
    }
    if move.told is not None:
        found["report"] = dict(move.told)
    return orjson.dumps(found).decode()


def _disable(todo: Iterable[tuple[Move, Any]]) -> Script[None]:
    changed = 0
    for move, _ in todo:
        if move.settlement is not None and move.settlement.disable_subscription:
            changed += yield Change(_DISABLE, (kept(move.reason), move.at_ms, move.settlement.disable_subscription))
    if changed:
        yield from raised(ROSTER)


def _shorten(ended: dict[str, int], firsts: Mapping[str, int]) -> Script[None]:
    """Part of a script: take the ended ones off their lanes; an empty lane goes, another takes its new head's due time.

    `firsts` are the lowest `seq` moved in each.
    """
    dropped, left, agents = [], {}, {}
    for lane, queued, agent in (yield Call(_LANES, (list(ended),))):
        if queued > ended[lane]:
            left[lane], agents[lane] = queued - ended[lane], agent
        else:
            dropped.append((lane,))
    yield Each(_DROP_LANE, dropped)
    if left:
        yield from point_at_heads(left, agents, firsts)


def point_at_heads(left: dict[str, int], agents: Mapping[str, str], firsts: Mapping[str, int]) -> Script[None]:
    """Part of a script: give lanes, locked already, their lengths, and their heads' due times and agents.

    `agents` is whose they were: where a head is for another one, that one's owner is woken.  A head that stands before all that
    was moved (`firsts`) is as it was, and so is its lane: it may have been called forward since it began to wait.
    """
    heads = yield Call(_LANE_HEADS, (list(left),))
    yield Each(_SET_LENGTH, [(left[lane], lane) for lane, seq, *_ in heads if seq < firsts[lane]])
    yield Each(
        _SET_LANE,
        [
            (left[lane], *_waits(state, reason, due), agent, shard, lane)
            for lane, seq, state, reason, due, agent, shard in heads
            if seq >= firsts[lane]
        ],
    )
    moved_on = {shard for lane, *_, agent, shard in heads if agents.get(lane, agent) != agent}
    if moved_on:
        yield Notify(WORK, ",".join(map(str, sorted(moved_on))))


def _waits(state: str, reason: str, due_ms: int) -> tuple[int, str]:
    if state == State.ACCEPTED:
        return NEVER_MS, OFFERED if reason == OFFERED else ACCEPTED  # a run's lease is in its own row
    if state != State.WAITING:
        return due_ms, ""
    return due_ms or NEVER_MS, reason
