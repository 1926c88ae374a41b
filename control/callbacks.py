"""What a woken agent says about its own run, with the invocation's token: heartbeat, status, complete, fail, checkpoint."""

from __future__ import annotations

from typing import Any

from control.asked import CheckpointBody, CompleteBody, FailBody, HeartbeatBody, StatusBody, Verdict
from control.auth import Caller
from control.desk import Desk
from control.lessons import lesson_of
from schemas.errors import Conflict, NotFound
from schemas.invocation import State
from schemas.times import iso
from store.reports import ACCEPTED, Report, Standing, report
from store.subscriptions import subscriptions_of
from store.work import InvocationRow, attempts_of, invocation_row

_STATES = {
    Verdict.DONE: State.DONE,
    Verdict.DECLINED: State.DECLINED,
    Verdict.NEEDS_HUMAN: State.DONE,
    Verdict.FAILED: State.BURIED,
    Verdict.UNSURE: State.DONE,
}
_STOP = frozenset({State.CANCELED, State.SUPERSEDED, State.EXPIRED})


async def own_invocation(desk: Desk, caller: Caller, invocation_id: str) -> InvocationRow:
    """The invocation, where this caller may see it: a token opens its own, an agent's key its agent's.  Raises `NotFound`."""
    if caller.is_token and caller.invocation_id != invocation_id:
        raise NotFound("there is no such invocation")
    row = await invocation_row(desk.engine, caller.team, invocation_id)
    if row is None or (caller.agent and caller.agent != row.agent):
        raise NotFound("there is no such invocation")
    return row


async def heartbeat(desk: Desk, caller: Caller, *, invocation_id: str, body: HeartbeatBody) -> dict[str, Any]:  # noqa: ARG001 - a heartbeat says nothing but that it is there
    """Where the invocation stands; `stop` is true where the run is of no use any more.  A heartbeat does not lengthen a run."""
    row = await own_invocation(desk, caller, invocation_id)
    found = {"state": row.state, "reason": row.reason, "stop": row.state in _STOP, "deadline_at": None}
    if row.state == State.RUNNING:
        last = (await attempts_of(desk.engine, [row.seq])).get(row.seq, [])[-1:]
        found["deadline_at"] = iso(last[0].deadline_ms) if last else None
    return found


async def status(desk: Desk, caller: Caller, *, invocation_id: str, body: StatusBody) -> dict[str, Any]:
    """Keep, for people, what the agent tried, what blocks it and what it does next: a line of the audit."""
    row = await own_invocation(desk, caller, invocation_id)
    if row.state != State.RUNNING and row.reason != ACCEPTED:
        raise Conflict(f"the invocation is {row.state}: it has no run to tell of", state=row.state)
    detail = "; ".join(f"{name}: {text}" for name, text in body.model_dump().items() if text)
    await desk.noted(caller, "invocations.status", f"invocation/{invocation_id}", detail)
    return {"state": row.state, "kept": True}


async def checkpoint(desk: Desk, caller: Caller, *, invocation_id: str, body: CheckpointBody) -> dict[str, Any]:  # noqa: ARG001 - refused, whatever it holds
    """Refused: this build hands no checkpoint back to the next attempt, and does not pretend to."""
    row = await own_invocation(desk, caller, invocation_id)
    raise Conflict("checkpoints are not kept: the next attempt would start over all the same", state=row.state)


async def complete(desk: Desk, caller: Caller, *, invocation_id: str, body: CompleteBody) -> dict[str, Any]:
    """Tell how an accepted run ended.  The same report may come twice; another one after it is refused."""
    row = await own_invocation(desk, caller, invocation_id)
    told = body.model_dump(mode="json", exclude_none=True)
    found = Report(
        caller.team,
        invocation_id,
        _STATES[body.outcome],
        body.outcome.value,
        body.note,
        told,
        await lesson_of(desk, row, body.usage),
    )
    return _standing(await report(desk.engine, found, now_ms=desk.now_ms()))


async def fail(desk: Desk, caller: Caller, *, invocation_id: str, body: FailBody) -> dict[str, Any]:
    """Tell that an accepted run failed; a retryable one is tried again while its subscription allows attempts."""
    row = await own_invocation(desk, caller, invocation_id)
    found = Report(caller.team, invocation_id, State.BURIED, "failed", body.error, body.model_dump(mode="json"))
    standing = await report(desk.engine, found, now_ms=desk.now_ms())
    wants_more = body.retryable and await _has_budget(desk, row)
    if wants_more and await desk.redress.redrive(caller.team, [invocation_id], now_ms=desk.now_ms()):
        return {**_standing(standing), "state": State.QUEUED.value, "retried": True}
    return {**_standing(standing), "retried": False}


async def _has_budget(desk: Desk, row: InvocationRow) -> bool:
    subscription = (await subscriptions_of(desk.engine, row.team)).get(row.subscription)
    return (
        subscription is not None
        and subscription.uid == row.subscription_uid
        and row.attempts < subscription.config.spec.retry.max_attempts
    )


def _standing(standing: Standing) -> dict[str, Any]:
    return {"state": standing.state, "reason": standing.reason, "outcome": standing.outcome}
