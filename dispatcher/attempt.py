"""One attempt: its row, the context, the call, the verdict, the settlement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

from dispatcher.book import Setting
from dispatcher.clock import Clock
from dispatcher.digest import digested
from dispatcher.exchange import exchange_of
from dispatcher.fallback import after_step, at_step, goes_on
from dispatcher.ports import Caller, Curated, Curator, Ledger, Tokens
from dispatcher.protocols.base import (
    ACCEPTED,
    FAILED,
    MISCONFIGURED,
    REJECTED,
    UNKNOWN,
    Attempt,
    Call,
    Links,
    Outcome,
    is_success,
    unanswered,
)
from dispatcher.retry import Block, Bury, Delivered, Hold, RetryAt, Step, Supervise, blocking, next_step
from dispatcher.runs import accepted, token_ends_ms
from dispatcher.sent import KeepSent, sent_to_keep
from dispatcher.tenure import Tenure
from payload.read import view
from schemas.config import ContextSpec, SubscriptionConfig
from schemas.context import Envelope, Sent
from schemas.errors import AddressRefused, AgentFailed, Busy
from schemas.invocation import Invocation, State, Wait
from schemas.ledger import Head, Opening, Settlement
from schemas.runs import OFFERED

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 2.0
_STORE_S = 5.0
_MAX_WHY_CHARS = 500
_NO_CONTEXT = Curated(b"null", 0, 0, "")


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended, as the ledger has it now."""

    outcome: Outcome
    step: Step
    settlement: Settlement


@dataclass(frozen=True, slots=True)
class Desk:
    """What every attempt needs from around it."""

    ledger: Ledger
    caller: Caller
    curate: Curator
    tokens: Tokens
    tenure: Tenure
    clock: Clock
    owner: str
    api_url: str
    say: Callable[..., Any]
    keep_sent: KeepSent = "all"


def opening_of(
    desk: Desk, invocation: Invocation, setting: Setting, context: ContextSpec, *, number: int, now_ms: int
) -> Opening | None:
    """The row of an attempt that begins now; None where the lease does not reach."""
    gathering_s = _gathering_s(context)
    epoch = desk.tenure.epoch(invocation.shard)
    if epoch is None or not _fits(desk.tenure, setting.timeout_s + gathering_s):
        return None
    latest_ms = now_ms + round(setting.timeout_s * 1000) + round(gathering_s * 1000)
    return Opening(invocation.id, number, invocation.shard, epoch, desk.owner, now_ms, latest_ms)


async def attempt(
    desk: Desk,
    head: Head,
    setting: Setting,
    subscription: SubscriptionConfig,
    *,
    probe: str,
    pauses: int,
    opening: Opening | None = None,
) -> Ended | None:
    """Try once, and settle.  None where nothing came of it: the invocation is not this process's to try, or no longer.

    `opening` is the attempt's row where it is written already.
    `probe` is the cause for which the agent is being probed, or empty; `pauses` is how often probes found it misconfigured
    before. The row is durable before the agent is called; a crash from there on leaves an open row, which the ledger closes as
    `unknown`.
    """
    began_s = perf_counter()
    if head.step:
        setting, subscription = at_step(head, setting, subscription, now_ms=desk.clock.now_ms())
    if opening is None:
        context = subscription.spec.context
        opening = opening_of(desk, head.invocation, setting, context, number=head.attempts + 1, now_ms=desk.clock.now_ms())
        if opening is None or not await desk.ledger.open(opening):
            return None
    this = Attempt(opening.number, opening.started_ms, opening.started_ms + round(setting.timeout_s * 1000))
    curated, outcome, bytes_sent, kept = await _tried(desk, head, setting, subscription, this)
    if outcome is None:
        return None  # the lease ran out before a byte was written; the next owner closes the row
    ended_ms = desk.clock.now_ms()
    # A probe is our question about the agent, not the invocation's own try: it may be asked often and must not use up the
    # budget.
    tries = head.tries + (not probe and outcome.word != MISCONFIGURED and outcome.offer is None)
    step = _step_after(outcome, head, setting, subscription, this, tries=tries, pauses=pauses + 1, now_ms=ended_ms)
    state, reason, due_ms = _standing(step)
    settlement = Settlement(
        invocation_id=head.invocation.id,
        team=head.invocation.team,
        lane=head.invocation.lane,
        number=opening.number,
        shard=opening.shard,
        epoch=opening.epoch,
        outcome=outcome.word,
        state=state,
        reason=reason,
        ended_ms=ended_ms,
        tries=tries,
        due_ms=due_ms,
        status=outcome.status,
        error=outcome.error,
        answer=outcome.answer,
        duration_ms=round((perf_counter() - began_s) * 1000, 3),
        sent=outcome.sent,
        bytes_sent=bytes_sent,
        tokens=curated.tokens,
        context_digest=curated.digest,
        raw_tokens=curated.raw_tokens,
        missing=len(curated.missing),
        cut=len(curated.left_out),
        body=kept,
        exchange=outcome.exchange,
        disable_subscription=head.invocation.subscription_uid if isinstance(step, Bury) and step.disable else "",
        run=step.terms if isinstance(step, Supervise) else None,
    )
    return Ended(outcome, step, settlement) if await settled(desk, settlement) else None


def _step_after(
    outcome: Outcome,
    head: Head,
    setting: Setting,
    subscription: SubscriptionConfig,
    this: Attempt,
    *,
    tries: int,
    pauses: int,
    now_ms: int,
) -> Step:
    """What becomes of the invocation: by the answer, the schedule, its fallback chain, and whether a burial blocks its key."""
    step = accepted(outcome, setting, now_ms=now_ms) or next_step(
        outcome,
        tries=tries,
        pauses=pauses,
        policy=subscription.spec.retry,
        begun_ms=head.budget_ms or head.invocation.created_ms,
        now_ms=now_ms,
        attempt_id=f"{head.invocation.id}:{this.number}",
    )
    if head.step:
        step = after_step(step, head, setting)
    if isinstance(step, Bury) and goes_on(subscription, head.step) is None:
        step = blocking(step, subscription)
    return step


async def settled(desk: Desk, settlement: Settlement) -> bool:
    """Write the settlement, patiently: while the store is away the answer is kept here, for as long as the lease holds."""
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            return await desk.ledger.settle(settlement)
        except Busy:
            if desk.tenure.epoch(settlement.shard) != settlement.epoch:
                return False
        await asyncio.sleep(wait_s)
        wait_s = min(wait_s * 2, _LONGEST_WAIT_S)


def _fits(tenure: Tenure, timeout_s: float) -> bool:
    """Whether an attempt may begin: it ends within the lease, or is of the long kind that renewals carry.

    Renewals come three to a lease, so less than half of it left means that they fail.  Then only what surely ends in time
    begins.
    """
    remaining_s = tenure.remaining_s()
    return remaining_s > timeout_s or remaining_s > tenure.lease_s / 2


async def _tried(
    desk: Desk, head: Head, setting: Setting, subscription: SubscriptionConfig, this: Attempt
) -> tuple[Curated, Outcome | None, int, Sent | None]:
    """The context, what came of the call, how many bytes were sent, and what of them is kept."""
    if setting.protocol is None or setting.target is None:
        return _NO_CONTEXT, Outcome(MISCONFIGURED, error=setting.problem, sent=False), 0, None
    links = _links(desk, head, setting, this)
    try:
        envelope = setting.protocol.envelope(head, links)
        curated = await _curated(desk, head, subscription, envelope)
    except Exception as exc:  # noqa: BLE001 - a view may meet any input; one event must not end the worker for all others
        return _NO_CONTEXT, _ours(FAILED, f"{type(exc).__name__}: {exc}"), 0, None
    if curated.verdict != "deliver":
        # What a parked one lacks may come later, so it goes by the schedule; what is refused is refused for good.
        return curated, _ours(FAILED if curated.verdict == "park" else REJECTED, curated.reason or curated.verdict), 0, None
    if not subscription.spec.context.is_plain:  # what was gathered took its time, and that is not the agent's
        this = replace(this, deadline_ms=desk.clock.now_ms() + round(setting.timeout_s * 1000))
        links = _links(desk, head, setting, this)
    call = setting.protocol.build(head, curated, setting.target, links, this)
    if desk.tenure.epoch(head.invocation.shard) is None:
        return curated, None, 0, None
    outcome = await _called(desk, setting, call)
    kept = sent_to_keep(desk.keep_sent, call, curated, links, outcome)
    return curated, outcome, len(call.body) if outcome.sent or setting.is_pull else 0, kept


async def _called(desk: Desk, setting: Setting, call: Call) -> Outcome:
    """What came of a call; one of a pull agent goes nowhere: it is offered."""
    if setting.is_pull:
        return Outcome(ACCEPTED, sent=False, offer=call.body)
    assert setting.protocol is not None
    try:
        answer = await desk.caller.request(
            call.method,
            call.url,
            headers=call.headers,
            body=call.body,
            timeout_s=setting.timeout_s,
            allow_private=setting.allow_private,
            allow_http=setting.allow_private,
        )
    except (AgentFailed, AddressRefused) as exc:
        outcome, answered = unanswered(exc), None
    else:
        outcome, answered = setting.protocol.interpret(answer), answer.headers
    if outcome.sent and not is_success(outcome):
        own = setting.target.headers if setting.target is not None else ()
        outcome = replace(outcome, exchange=exchange_of(call, own=own, answer=answered))
    return outcome


def _ours(word: str, why: str) -> Outcome:
    return Outcome(word, error=f"context: {why}"[:_MAX_WHY_CHARS], sent=False, is_ours=True)


def _gathering_s(context: ContextSpec) -> float:
    """How long the context may take that waits for the store and for lookups; these are asked at the same time."""
    if context.is_plain:
        return 0.0
    return _STORE_S + max((lookup.timeout for lookup in context.enrich.values()), default=0.0)


async def _curated(desk: Desk, head: Head, subscription: SubscriptionConfig, envelope: Envelope) -> Curated:
    if head.digest:
        async with asyncio.timeout(_STORE_S + _gathering_s(subscription.spec.context)):
            return await digested(desk.curate, head, subscription, envelope)
    curated = await _curated_one(desk, head, subscription, envelope)
    flow = head.invocation.flow
    if flow is None or not flow.stale or subscription.spec.stale is None or subscription.spec.stale.then != "flag":
        return curated
    return replace(curated, siblings=(*curated.siblings, ("stale", flow.stale.encode())))


async def _curated_one(desk: Desk, head: Head, subscription: SubscriptionConfig, envelope: Envelope) -> Curated:
    event = head.event
    data = head.data if head.has_data else view(event.body, event.datacontenttype, event.pointer)[0]
    if subscription.spec.context.is_plain:
        return desk.curate.plain(subscription, event, data, envelope=envelope)
    async with asyncio.timeout(_gathering_s(subscription.spec.context)):
        return await desk.curate.full(subscription, event, data, invocation_id=head.invocation.id, envelope=envelope)


def _links(desk: Desk, head: Head, setting: Setting, this: Attempt) -> Links:
    invocation = head.invocation
    return Links(
        f"{desk.api_url}/v1/events/{invocation.event_id}",
        f"{desk.api_url}/v1/invocations/{invocation.id}/complete",
        desk.tokens.mint(
            team=invocation.team,
            invocation_id=invocation.id,
            event_id=invocation.event_id,
            expires_ms=token_ends_ms(this.deadline_ms, setting),
            attempt=this.number,
        ),
    )


def _standing(step: Step) -> tuple[State, str, int]:
    match step:
        case Delivered(reason):
            return State.DONE, reason, 0
        case RetryAt(due_ms, _):
            return State.WAITING, Wait.RETRY, due_ms
        case Hold(due_ms, _):
            return State.WAITING, Wait.HOLD, due_ms
        case Bury(reason):
            return State.BURIED, reason, 0
        case Block(_):
            return State.WAITING, Wait.BLOCKED, 0
        case Supervise(due_ms, terms):
            return State.ACCEPTED, OFFERED if terms.offer is not None else "", due_ms


def abandoned(head: Head, *, epoch: int, now_ms: int) -> Settlement:
    """The settlement of an attempt that a stop cut off: the agent may have it, and the next process tries it at once."""
    return Settlement(
        invocation_id=head.invocation.id,
        team=head.invocation.team,
        lane=head.invocation.lane,
        number=head.attempts + 1,
        shard=head.invocation.shard,
        epoch=epoch,
        outcome=UNKNOWN,
        state=State.WAITING,
        reason=Wait.RETRY,
        ended_ms=now_ms,
        tries=head.tries + 1,
        due_ms=now_ms,
        error="stopped before the answer came",
        sent=True,
    )


def told(desk: Desk, head: Head, ended: Ended) -> None:
    """The one wide line of an attempt."""
    settlement, invocation = ended.settlement, head.invocation
    desk.say(
        "attempt",
        invocation=invocation.id,
        event_id=invocation.event_id,
        team=invocation.team,
        agent=invocation.agent,
        subscription=invocation.subscription,
        type=head.event.type,
        number=settlement.number,
        tries=settlement.tries,
        outcome=settlement.outcome,
        status=settlement.status,
        state=settlement.state.value,
        reason=settlement.reason,
        due_ms=settlement.due_ms,
        error=settlement.error,
        duration_ms=settlement.duration_ms,
        bytes_sent=settlement.bytes_sent,
        tokens=settlement.tokens,
        trace=head.event.traceparent[3:35],
    )
