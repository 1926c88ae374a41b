"""What agents say of their runs, one script for each call: looked up in the table of `schemas.runs`, written under a lock."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, bindparam, case, insert, select, update

from schemas.errors import Conflict, NotFound
from schemas.invocation import Order, State
from schemas.ledger import RunTerms
from schemas.runs import ACCEPTED, CANCEL, SUPERSEDE, Effect, Phase, Said, effect_of, phase_of
from schemas.times import iso
from store.audit import Act, audited
from store.calibrations import Lesson, learnt
from store.engine import Call, Engine, Notify, Script
from store.heads import ZERO
from store.moves import OUTCOMES, Move, moved
from store.prepared import Prepared
from store.run_rows import begun, ended, noted
from store.runs import RUNS
from store.tables import attempts, invocations, outbox, runs
from store.texts import kept

REPORTED = "reported"  # the beginning of the reason once the agent has told how its run ended
_LONGEST_DETAIL = 16_384
_ANY_OPEN = frozenset({State.QUEUED, State.RUNNING, State.ACCEPTED, State.WAITING})
_INVOCATION = (
    "seq", "id", "team", "event_id", "subscription", "agent", "ordering_key", "state", "reason", "outcome", "attempts", "tries",
    "created_ms", "budget_ms", "due_ms",
)  # fmt: skip
_RUN = ("number", "begun_ms", "waiting", "lease_ms", "ends_ms", "signal", "notes", "verdict", "note")
_newer = invocations.alias("newer")
_NEWER = (
    select(_newer.c.event_id)
    .where(_newer.c.lane == invocations.c.lane, _newer.c.ended_ms == ZERO, _newer.c.seq > invocations.c.seq)
    .order_by(_newer.c.seq.desc())
    .limit(1)
    .correlate(invocations)
    .scalar_subquery()
)
FOR_CALL = Prepared(
    select(
        *(invocations.c[name] for name in _INVOCATION),
        *(runs.c[name] for name in _RUN),
        attempts.c.ended_ms,
        case((invocations.c.ordering == Order.LATEST.value, _NEWER), else_=None),
    )
    .outerjoin(runs, runs.c.invocation_seq == invocations.c.seq)
    .outerjoin(attempts, (attempts.c.invocation_seq == invocations.c.seq) & (attempts.c.number == invocations.c.attempts))
    .where(invocations.c.team == bindparam("team_"), invocations.c.id == bindparam("id_"))
    .with_for_update(of=invocations),
    "team_",
    "id_",
)
_later: ColumnElement[int] = bindparam("now") + runs.c.span_ms
_BEAT = Prepared(
    update(runs)
    .where(runs.c.invocation_seq == bindparam("seq_"))
    .values(
        lease_ms=case((runs.c.ends_ms < _later, runs.c.ends_ms), else_=_later),
        beats=runs.c.beats + 1,
        beat_ms=bindparam("now"),
    ),
    *("now", "seq_"),
)  # fmt: skip
_CHECK = Prepared(
    update(runs)
    .where(runs.c.invocation_seq == bindparam("seq_"))
    .values(checkpoint=bindparam("checkpoint_"), checkpoint_ms=bindparam("now")),
    *("checkpoint_", "now", "seq_"),
)
_STATUS = Prepared(
    update(runs)
    .where(runs.c.invocation_seq == bindparam("seq_"))
    .values(tried=bindparam("tried_"), blocked=bindparam("blocked_"), next=bindparam("next_"), status_ms=bindparam("now")),
    *("tried_", "blocked_", "next_", "now", "seq_"),
)
# What a 202 ended whose runs nobody watches has left its lane long ago: only its own row changes.
_SETTLE = Prepared(
    update(invocations)
    .where(invocations.c.seq == bindparam("seq_"))
    .values(state=bindparam("state_"), reason=bindparam("reason_"), outcome=bindparam("outcome_")),
    *("state_", "reason_", "outcome_", "seq_"),
)
_TELL = Prepared(insert(outbox).values(key=bindparam("key_"), body=bindparam("body_")), "key_", "body_")


class Seen(NamedTuple):
    """An invocation with its last run, as a call finds it; the run's fields are None where it never had one."""

    seq: int
    id: str
    team: str
    event_id: str
    subscription: str
    agent: str
    ordering_key: str
    state: str
    reason: str
    outcome: str
    attempts: int
    tries: int
    created_ms: int
    budget_ms: int
    due_ms: int
    number: int | None
    begun_ms: int | None
    waiting: int | None
    lease_ms: int | None
    ends_ms: int | None
    signal: str | None
    notes: int | None
    verdict: str | None
    note: str | None
    attempt_ended_ms: int | None
    newer: str | None

    @property
    def has_run(self) -> bool:
        """Whether its run's row is of its last attempt."""
        return self.number == self.attempts

    @property
    def asked(self) -> str:
        """What the run is asked to do: `cancel`, `supersede` where a newer event of its key waits behind it, or nothing."""
        if self.has_run and self.signal == CANCEL:
            return CANCEL
        return SUPERSEDE if self.newer else ""


class Decided(NamedTuple):
    """What becomes of an invocation after a report."""

    state: State
    reason: str
    due_ms: int = 0


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, by its agent.

    `decide` is pure, and may answer None: the report changes nothing where it stands.  `teaches` is what its usage says about
    our token counts.
    """

    verdict: str
    note: str
    told: Mapping[str, Any]
    decide: Callable[[Seen, Phase], Decided | None]
    teaches: Lesson | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """One call of an agent.  `number` is the attempt that calls, 0 where a key of the agent does.

    `terms` are those of a run that this call may begin, None where nobody watches the agent's runs.
    """

    team: str
    invocation_id: str
    said: Said
    number: int = 0
    terms: RunTerms | None = None
    checkpoint: str = ""
    status: tuple[str, str, str] = ("", "", "")  # tried, blocked, next
    ending: Ending | None = None


async def report(engine: Engine, told: Report, *, now_ms: int) -> tuple[Seen, Phase]:
    """Take one call: the invocation as it is then, and the phase in which the call found it.

    The same call again changes nothing more.  Raises `NotFound`, and `Conflict` where it can mean nothing.
    """
    return await engine.write(lambda: _reported(told, now_ms))


def _reported(told: Report, now_ms: int) -> Script[tuple[Seen, Phase]]:
    seen = yield from found(told.team, told.invocation_id)
    phase = phase_of(State(seen.state), seen.reason, attempts=seen.attempts, number=told.number)
    effect = effect_of(phase, told.said)
    if effect is Effect.STOP:
        return seen, phase
    if told.ending is not None and _is_repeated(seen, phase, told.ending):
        return seen, phase
    if effect in {Effect.REFUSE, Effect.REPEAT}:
        raise Conflict(_refusal(seen, phase), state=seen.state, reason=seen.reason)
    if effect is Effect.BEGIN:
        yield from _begin(seen, told, now_ms)
    if effect is Effect.END:
        assert told.ending is not None
        yield from _end(seen, phase, told.ending, now_ms)
    elif told.said is not Said.HEARTBEAT or phase in {Phase.CALLING, Phase.LIVE}:
        yield from _keep(told, now_ms)
    return (yield from found(told.team, told.invocation_id)), phase


def found(team: str, invocation_id: str) -> Script[Seen]:
    """Part of a script: the invocation, locked.  Raises `NotFound`."""
    rows = yield Call(FOR_CALL, (team, invocation_id))
    if not rows:
        raise NotFound("there is no such invocation")
    return Seen(*rows[0])


def _is_repeated(seen: Seen, phase: Phase, ending: Ending) -> bool:
    is_over = phase in {Phase.ENDED, Phase.PARKED, Phase.BETWEEN}
    return is_over and seen.has_run and (seen.verdict, seen.note) == (ending.verdict, kept(ending.note))


def _refusal(seen: Seen, phase: Phase) -> str:
    if phase is Phase.TAKEN_OVER:
        return f"attempt {seen.attempts} has taken over: what this one says counts no more"
    if phase is Phase.ENDED and seen.state == State.DONE and not seen.reason.startswith(REPORTED):
        return "the agent answered the call itself with a 2xx, so the run is done: answer 202 to report later"
    return f"no report is awaited: the invocation is {seen.state}" + (f" ({seen.reason})" if seen.reason else "")


def _begin(seen: Seen, told: Report, now_ms: int) -> Script[None]:
    """The agent reports before its answer was written down, or without one: its run lives from now on."""
    if told.terms is None:
        if told.said is not Said.HEARTBEAT:
            yield from ensured(seen, now_ms)
        return
    lease_ms = now_ms + told.terms.span_ms
    row = (seen.seq, seen.attempts, seen.team, seen.agent, now_ms, 0, lease_ms, told.terms.span_ms, told.terms.ends_ms, None)
    yield from begun([row])
    froms = frozenset({State.RUNNING})
    yield from moved([Move(seen.id, State.ACCEPTED, "", now_ms, due_ms=lease_ms, tries=seen.tries + 1, froms=froms)])
    yield Notify(RUNS, f"{seen.team}/{seen.agent}")


def ensured(seen: Seen, now_ms: int) -> Script[None]:
    """Part of a script: see to it that there is a row of its last attempt, though that is no run."""
    if not seen.has_run:
        yield from begun([(seen.seq, seen.attempts, seen.team, seen.agent, 0, 0, now_ms, 0, now_ms, None)])


def _keep(told: Report, now_ms: int) -> Script[None]:
    seen = yield from found(told.team, told.invocation_id)
    if told.said is not Said.HEARTBEAT:
        yield from ensured(seen, now_ms)
    if seen.state == State.ACCEPTED:
        yield Call(_BEAT, (now_ms, seen.seq))  # whatever it says is a sign of life
    if told.said is Said.CHECKPOINT:
        yield Call(_CHECK, (kept(told.checkpoint), now_ms, seen.seq))
        yield from _note(seen, now_ms, "checkpoint", f"{len(told.checkpoint)} characters")
    if told.said is Said.STATUS:
        yield Call(_STATUS, (*(kept(text) for text in told.status), now_ms, seen.seq))
        parts = zip(("tried", "blocked", "next"), told.status, strict=True)
        yield from _note(seen, now_ms, "status", "; ".join(f"{name}: {text}" for name, text in parts if text))


def _note(seen: Seen, now_ms: int, kind: str, detail: str) -> Script[None]:
    yield from noted(seen.seq, seen.notes or 0, number=seen.attempts, at_ms=now_ms, kind=kind, detail=detail)


def _end(seen: Seen, phase: Phase, ending: Ending, now_ms: int) -> Script[None]:
    decided = ending.decide(seen, phase)
    if decided is None:
        return
    if phase is Phase.UNWATCHED:
        yield from _settle(seen, decided, ending, now_ms)
    else:
        is_failure = decided.state in {State.WAITING, State.BURIED} and ending.verdict == "failed"
        is_open = seen.attempt_ended_ms == 0
        move = Move(
            seen.id,
            decided.state,
            decided.reason,
            now_ms,
            due_ms=decided.due_ms,
            tries=seen.tries + 1 if phase is Phase.CALLING else None,
            outcome=ending.verdict,
            froms=_ANY_OPEN,
            attempt_outcome="failed" if is_failure else "accepted" if is_open else "",
            told=ending.told,
        )
        yield from moved([move])
    yield from ensured(seen, now_ms)
    yield from ended([(now_ms, ending.verdict, ending.note, json.dumps(dict(ending.told)), seen.seq)])
    yield from _note(seen, now_ms, ending.verdict, ending.note)
    detail = json.dumps(dict(ending.told))[:_LONGEST_DETAIL]
    yield from audited(Act(seen.team, seen.id, f"invocations.{ending.verdict}", f"invocation/{seen.id}", detail), at_ms=now_ms)
    yield Notify(RUNS, f"{seen.team}/{seen.agent}")
    if ending.teaches is not None:
        yield from learnt(seen.team, ending.teaches, now_ms)


def _settle(seen: Seen, decided: Decided, ending: Ending, now_ms: int) -> Script[None]:
    yield Call(_SETTLE, (decided.state.value, kept(decided.reason), ending.verdict, seen.seq))
    body = {
        "invocation": seen.id,
        "event": seen.event_id,
        "team": seen.team,
        "subscription": seen.subscription,
        "agent": seen.agent,
        "state": decided.state.value,
        "outcome": ending.verdict,
        "reason": kept(decided.reason),
        "attempts": seen.attempts,
        "time": iso(now_ms),
        "causationid": seen.id,
        "report": dict(ending.told),
    }
    yield Call(_TELL, (seen.ordering_key, json.dumps(body)))
    yield Notify(OUTCOMES)


def reported(note: str) -> str:
    """The reason of what ended by a report."""
    return f"{REPORTED}: {note}" if note else REPORTED


__all__ = ["ACCEPTED", "Decided", "Ending", "Report", "Seen", "found", "report", "reported"]
