"""What agents report about a run that they had accepted: one compare-and-set, with its outcome and its line in the audit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from schemas.errors import Conflict, NotFound
from schemas.invocation import State
from schemas.times import iso
from store.audit import Act, audited
from store.calibrations import Lesson, learnt
from store.engine import Call, Engine, Notify, Script
from store.moves import OUTCOMES
from store.prepared import Prepared
from store.tables import invocations, outbox

ACCEPTED = "accepted"  # the reason of an invocation that is done because its agent answered 202
REPORTED = "reported"  # the beginning of the reason once the agent has told how its run ended
_LONGEST_DETAIL = 16_384
_FOUND = Prepared(
    select(
        *(
            invocations.c[name]
            for name in ("seq", "state", "reason", "outcome", "attempts", "event_id", "subscription", "agent", "ordering_key")
        )
    )
    .where(invocations.c.team == bindparam("team_"), invocations.c.id == bindparam("id_"))
    .with_for_update(),
    "team_",
    "id_",
)
_SETTLE = Prepared(
    update(invocations)
    .where(invocations.c.seq == bindparam("seq_"))
    .values(state=bindparam("state_"), reason=bindparam("reason_"), outcome=bindparam("outcome_")),
    "state_",
    "reason_",
    "outcome_",
    "seq_",
)
_TELL = Prepared(insert(outbox).values(key=bindparam("key_"), body=bindparam("body_")), "key_", "body_")


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended, by its agent.  `told` is what else it said: kept in the audit, published with the outcome.

    `teaches` is what its usage says about our token counts.
    """

    team: str
    invocation_id: str
    state: State
    outcome: str
    note: str
    told: Mapping[str, Any]
    teaches: Lesson | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the invocation stands after a report; `attempts` are all that were ever made."""

    state: str
    reason: str
    outcome: str
    attempts: int


async def report(engine: Engine, told: Report, *, now_ms: int) -> Standing:
    """Record how an accepted run ended.  The same report again changes nothing; another one raises `Conflict`."""
    return await engine.write(lambda: _reported(told, now_ms))


def _reported(told: Report, now_ms: int) -> Script[Standing]:
    rows = yield Call(_FOUND, (told.team, told.invocation_id))
    if not rows:
        raise NotFound("there is no such invocation")
    seq, state, reason, outcome, attempts, *_ = rows[0]
    wanted = Standing(told.state.value, _reason(told), told.outcome, attempts)
    if (state, reason, outcome) == (wanted.state, wanted.reason, wanted.outcome):
        return wanted
    if state != State.DONE or reason != ACCEPTED:
        raise Conflict(_refusal(state, reason), state=state, reason=reason)
    yield Call(_SETTLE, (wanted.state, wanted.reason, wanted.outcome, seq))
    yield Call(_TELL, (rows[0][8], json.dumps(_outcome(told, rows[0], now_ms))))
    yield Notify(OUTCOMES)
    detail = json.dumps(dict(told.told))[:_LONGEST_DETAIL]
    act = Act(told.team, told.invocation_id, f"invocations.{told.outcome}", f"invocation/{told.invocation_id}", detail)
    yield from audited(act, at_ms=now_ms)
    if told.teaches is not None:
        yield from learnt(told.team, told.teaches, now_ms)
    return wanted


def _reason(told: Report) -> str:
    note = told.note.replace("\0", "\ufffd")  # PostgreSQL's text holds no NUL
    return f"{REPORTED}: {note}" if note else REPORTED


def _refusal(state: str, reason: str) -> str:
    if state == State.RUNNING:
        return "the call to the agent is still under way: its own answer (2xx, or 202 and a report afterwards) ends it"
    if state == State.DONE and not reason.startswith(REPORTED):
        return "the agent answered the call itself with a 2xx, so the run is done: answer 202 to report later"
    return f"no report is awaited: the invocation is {state}" + (f" ({reason})" if reason else "")


def _outcome(told: Report, row: Any, now_ms: int) -> dict[str, Any]:
    return {
        "invocation": told.invocation_id,
        "event": row[5],
        "team": told.team,
        "subscription": row[6],
        "agent": row[7],
        "state": told.state.value,
        "outcome": told.outcome,
        "reason": _reason(told),
        "attempts": row[4],
        "time": iso(now_ms),
        "causationid": told.invocation_id,
        "report": dict(told.told),
    }
