"""What people ask of runs: to stop, and what becomes of those that wait for a person."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import bindparam, update

from schemas.errors import Conflict
from schemas.invocation import State, Wait
from schemas.runs import CANCEL, CANCELED, OFFERED
from store.engine import Call, Engine, Notify, Script
from store.moves import Move, moved
from store.prepared import Prepared
from store.reports import Seen, ensured, found
from store.run_rows import ended, noted, signals_forgotten
from store.runs import RUNS
from store.tables import runs

_SIGNAL = Prepared(update(runs).where(runs.c.invocation_seq == bindparam("seq_")).values(signal=CANCEL), "seq_")
_UNDER_WAY = frozenset({State.RUNNING, State.ACCEPTED})


async def ask_to_stop(engine: Engine, team: str, invocation_id: str, *, actor: str, force: bool, now_ms: int) -> str:
    """Ask a run to stop, by its next heartbeat's answer, or end it here and now; the invocation's state then.

    Raises `NotFound`, and `Conflict` where nothing runs.
    """
    return await engine.write(lambda: _asked(team, invocation_id, actor, force=force, now_ms=now_ms))


def _asked(team: str, invocation_id: str, actor: str, *, force: bool, now_ms: int) -> Script[str]:
    seen = yield from found(team, invocation_id)
    if State(seen.state) not in _UNDER_WAY:
        raise Conflict(f"the invocation is {seen.state}: it has no run to stop", state=seen.state)
    yield from ensured(seen, now_ms)
    yield from _note(seen, now_ms, CANCEL, f"asked by {actor}")
    yield Notify(RUNS, f"{team}/{seen.agent}")
    if not force and not (seen.state == State.ACCEPTED and seen.reason == OFFERED):
        yield Call(_SIGNAL, (seen.seq,))
        return seen.state
    word = CANCELED if seen.attempt_ended_ms == 0 else ""
    reason = "canceled by an operator"
    yield from moved([Move(seen.id, State.CANCELED, reason, now_ms, froms=_UNDER_WAY, attempt_outcome=word)])
    yield from ended([(now_ms, CANCELED, reason, "", seen.seq)])
    return State.CANCELED.value


class Word(NamedTuple):
    """What a person says of an invocation that waits for one: an end, or `queued` for another try with a new budget."""

    state: State
    outcome: str
    note: str
    actor: str


async def resolve(engine: Engine, team: str, invocation_id: str, *, word: Word, now_ms: int) -> str:
    """Let a person's word count; the state that follows.

    Raises `NotFound`, and `Conflict` where the invocation does not wait for one.
    """
    return await engine.write(lambda: _resolved(team, invocation_id, word, now_ms))


def _resolved(team: str, invocation_id: str, word: Word, now_ms: int) -> Script[str]:
    seen = yield from found(team, invocation_id)
    if seen.state != State.WAITING or seen.reason != Wait.HUMAN:
        raise Conflict(f"the invocation is {seen.state}, and waits for nobody's word", state=seen.state, reason=seen.reason)
    reason = f"resolved by {word.actor}" + (f": {word.note}" if word.note else "")
    again = word.state is State.QUEUED
    move = Move(
        seen.id,
        word.state,
        reason,
        now_ms,
        due_ms=now_ms,
        tries=0 if again else None,
        budget_ms=now_ms if again else None,
        outcome="" if again else word.outcome,
        froms=frozenset({State.WAITING}),
    )
    yield from moved([move])
    yield from signals_forgotten([seen.seq])
    yield from _note(seen, now_ms, "resolved", f"{word.state.value}, {reason}")
    yield Notify(RUNS, f"{team}/{seen.agent}")
    return word.state.value


def _note(seen: Seen, now_ms: int, kind: str, detail: str) -> Script[None]:
    yield from noted(seen.seq, seen.notes or 0, number=seen.attempts, at_ms=now_ms, kind=kind, detail=detail)
