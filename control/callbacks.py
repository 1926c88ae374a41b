"""What a woken agent says about its own run, with the invocation's token: heartbeat, checkpoint, status, complete, fail."""

from __future__ import annotations

from typing import Any

import orjson

from control.asked import CheckpointBody, CompleteBody, FailBody, HeartbeatBody, StatusBody, Usage, Verdict
from control.auth import Caller
from control.desk import Desk
from control.lessons import lesson_of
from control.shown import moment
from dispatcher.protocols.base import FAILED, Outcome
from dispatcher.retry import Block, Bury, RetryAt, blocking, next_step
from schemas.config import SubscriptionConfig, SupervisionSpec
from schemas.errors import Conflict, NotFound, TooLarge
from schemas.invocation import END_STATES, State, Wait
from schemas.ledger import RunTerms
from schemas.runs import CANCEL, SUPERSEDE, Phase, Said
from store.agents import agents_of
from store.reports import Decided, Ending, Report, Seen, report, reported
from store.subscriptions import subscriptions_of
from store.work import InvocationRow, invocation_row

MAX_CHECKPOINT_BYTES = 16 * 1024
MAX_RESULT_BYTES = 256 * 1024
_STATES = {
    Verdict.DONE: State.DONE,
    Verdict.DECLINED: State.DECLINED,
    Verdict.NEEDS_HUMAN: State.DONE,
    Verdict.FAILED: State.BURIED,
    Verdict.UNSURE: State.DONE,
}


async def own_invocation(desk: Desk, caller: Caller, invocation_id: str) -> InvocationRow:
    """The invocation, where this caller may see it: a token opens its own, an agent's key its agent's.  Raises `NotFound`."""
    if caller.is_token and caller.invocation_id != invocation_id:
        raise NotFound("there is no such invocation")
    row = await invocation_row(desk.engine, caller.team, invocation_id)
    if row is None or (caller.agent and caller.agent != row.agent):
        raise NotFound("there is no such invocation")
    return row


async def heartbeat(desk: Desk, caller: Caller, *, invocation_id: str, body: HeartbeatBody) -> dict[str, Any]:  # noqa: ARG001 - a heartbeat says nothing but that it is there
    """Say that the run goes on: its lease begins anew.  The answer says where it stands, and whether to stop."""
    row = await own_invocation(desk, caller, invocation_id)
    seen, phase = await _said(desk, caller, row, Report(row.team, row.id, Said.HEARTBEAT))
    return _pulse(seen, phase)


async def status(desk: Desk, caller: Caller, *, invocation_id: str, body: StatusBody) -> dict[str, Any]:
    """Keep, for people, what the agent tried, what blocks it and what it does next: the trace shows it."""
    row = await own_invocation(desk, caller, invocation_id)
    said = Report(row.team, row.id, Said.STATUS, status=(body.tried, body.blocked, body.next))
    seen, phase = await _said(desk, caller, row, said)
    return {**_pulse(seen, phase), "kept": True}


async def checkpoint(desk: Desk, caller: Caller, *, invocation_id: str, body: CheckpointBody) -> dict[str, Any]:
    """Keep a small JSON value that the next attempt is handed back, so that it need not start over."""
    row = await own_invocation(desk, caller, invocation_id)
    text = orjson.dumps(body.checkpoint)
    if len(text) > MAX_CHECKPOINT_BYTES:
        raise TooLarge(f"a checkpoint has at most {MAX_CHECKPOINT_BYTES} bytes of JSON, this one {len(text)}")
    seen, phase = await _said(desk, caller, row, Report(row.team, row.id, Said.CHECKPOINT, checkpoint=text.decode()))
    return {**_pulse(seen, phase), "kept": True}


async def complete(desk: Desk, caller: Caller, *, invocation_id: str, body: CompleteBody) -> dict[str, Any]:
    """Tell how a run ended.  The same report may come twice; another one after it is refused."""
    row = await own_invocation(desk, caller, invocation_id)
    told = body.model_dump(mode="json", exclude_none=True)
    if len(orjson.dumps(told)) > MAX_RESULT_BYTES:
        raise TooLarge(f"a report has at most {MAX_RESULT_BYTES} bytes of JSON: keep the rest elsewhere, and say where")
    watch = await _supervision(desk, row) if body.outcome is Verdict.NEEDS_HUMAN else None

    def decide(seen: Seen, phase: Phase) -> Decided:
        if body.outcome is Verdict.STOPPED:
            return _stopped(seen)
        if watch is not None and watch.on_needs_human == "park" and phase is not Phase.UNWATCHED:
            return Decided(State.WAITING, Wait.HUMAN)
        return Decided(_STATES[body.outcome], reported(body.note))

    ending = Ending(body.outcome.value, body.note, told, decide, await lesson_of(desk, row, body.usage))
    seen, phase = await _said(desk, caller, row, Report(row.team, row.id, Said.COMPLETE, ending=ending))
    _counted(desk, body.outcome.value, phase, seen, body.usage)
    return _standing(seen)


async def fail(desk: Desk, caller: Caller, *, invocation_id: str, body: FailBody) -> dict[str, Any]:
    """Tell that a run failed; a retryable one is tried again on its subscription's schedule, while that allows attempts."""
    row = await own_invocation(desk, caller, invocation_id)
    subscription = await _subscription(desk, row)
    now_ms = desk.now_ms()

    def decide(seen: Seen, phase: Phase) -> Decided | None:
        if seen.asked == CANCEL:
            return _stopped(seen)
        if subscription is None or phase is Phase.UNWATCHED:
            return Decided(State.BURIED, reported(body.error))
        if body.retryable:
            return None if phase is Phase.BETWEEN else _again(seen, phase, body.error, subscription, now_ms=now_ms)
        return _buried(Bury(reported(body.error)), subscription)

    ending = Ending("failed", body.error, body.model_dump(mode="json"), decide)
    seen, phase = await _said(desk, caller, row, Report(row.team, row.id, Said.FAIL, ending=ending))
    _counted(desk, "failed", phase, seen, None)
    has_budget = subscription is not None and row.attempts < subscription.spec.retry.max_attempts
    is_unwatched = phase is Phase.UNWATCHED and body.retryable and has_budget
    if is_unwatched and await desk.redress.redrive(caller.team, [invocation_id], now_ms=now_ms):
        return {**_standing(seen), "state": State.QUEUED.value, "retried": True, "due_at": moment(now_ms)}
    retried = seen.state not in END_STATES and seen.reason not in {Wait.HUMAN, Wait.BLOCKED}
    return {**_standing(seen), "retried": retried, "due_at": moment(seen.due_ms) if retried else None}


async def _said(desk: Desk, caller: Caller, row: InvocationRow, said: Report) -> tuple[Seen, Phase]:
    terms = None
    if row.state == State.RUNNING:  # the call may be what begins the run
        watch = await _supervision(desk, row)
        if watch is not None and watch.accepted == "supervise":
            terms = RunTerms(round(watch.lease * 1000), desk.now_ms() + round(watch.max_run * 1000))
    full = Report(said.team, said.invocation_id, said.said, caller.attempt, terms, said.checkpoint, said.status, said.ending)
    seen, phase = await report(desk.engine, full, now_ms=desk.now_ms())
    if desk.runs is not None:
        desk.runs.called(said.said, phase)
    return seen, phase


def _counted(desk: Desk, outcome: str, phase: Phase, seen: Seen, usage: Usage | None) -> None:
    if desk.runs is not None:
        desk.runs.ended(seen.agent, outcome, phase, seen, usage, at_ms=desk.now_ms())


async def _supervision(desk: Desk, row: InvocationRow) -> SupervisionSpec | None:
    agent = (await agents_of(desk.engine, row.team)).get(row.agent)
    return None if agent is None else SupervisionSpec.model_validate(agent.public["supervision"])


async def _subscription(desk: Desk, row: InvocationRow) -> SubscriptionConfig | None:
    subscription = (await subscriptions_of(desk.engine, row.team)).get(row.subscription)
    return None if subscription is None or subscription.uid != row.subscription_uid else subscription.config


def _again(seen: Seen, phase: Phase, why: str, subscription: SubscriptionConfig, *, now_ms: int) -> Decided:
    step = next_step(
        Outcome(FAILED, error=reported(why)),
        tries=seen.tries + (phase is Phase.CALLING),
        pauses=1,
        policy=subscription.spec.retry,
        begun_ms=seen.budget_ms or seen.created_ms,
        now_ms=now_ms,
        attempt_id=f"{seen.id}:{seen.attempts}",
    )
    if isinstance(step, RetryAt):
        return Decided(State.WAITING, Wait.RETRY, step.due_ms)
    assert isinstance(step, Bury), step
    return _buried(step, subscription)


def _buried(step: Bury, subscription: SubscriptionConfig) -> Decided:
    if isinstance(blocking(step, subscription), Block):
        return Decided(State.WAITING, Wait.BLOCKED)
    return Decided(State.BURIED, step.reason)


def _stopped(seen: Seen) -> Decided:
    if seen.asked == CANCEL:
        return Decided(State.CANCELED, "canceled by an operator")
    if seen.asked == SUPERSEDE:
        return Decided(State.SUPERSEDED, "a newer event of its key came")
    raise Conflict("nobody asked this run to stop: say declined, failed or what else became of it", state=seen.state)


def _pulse(seen: Seen, phase: Phase) -> dict[str, Any]:
    """Where a run stands, as every sign of life is answered."""
    goes_on = phase in {Phase.CALLING, Phase.LIVE, Phase.UNWATCHED}
    lives = seen.state == State.ACCEPTED and seen.has_run
    signal = seen.asked if goes_on else ""
    return {
        "state": seen.state,
        "reason": "another attempt has taken over" if phase is Phase.TAKEN_OVER else seen.reason,
        "stop": not goes_on or signal == CANCEL,
        "signal": signal,
        "newer_event": seen.newer if signal == SUPERSEDE else None,
        "lease_until": moment(seen.lease_ms or 0) if lives else None,
        "deadline_at": moment(seen.ends_ms or 0) if lives else None,
    }


def _standing(seen: Seen) -> dict[str, Any]:
    return {"state": seen.state, "reason": seen.reason, "outcome": seen.outcome}
