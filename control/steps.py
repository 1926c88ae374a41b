"""The steps of one event, each with its time: the story that a trace tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from control.later import duplicate_of, late_by
from schemas.event import Flag
from schemas.times import iso
from store.digests import Noted
from store.events import EventRow
from store.fallbacks import FallbackRow
from store.folding import Fold
from store.runs import NoteRow
from store.work import AttemptRow, InvocationRow

_SHOWN_EVENTS = 20


class Step(NamedTuple):
    """Something that happened at an instant."""

    at_ms: int
    step: str
    detail: str
    invocation: str = ""


def steps_of(
    event: EventRow,
    invocations: Sequence[InvocationRow],
    attempts: Mapping[int, Sequence[AttemptRow]],
    *,
    folds: Sequence[Fold] = (),
    told: Sequence[EventRow] = (),
    flow: Mapping[str, Noted] | None = None,
    runs: Mapping[int, Sequence[NoteRow]] | None = None,
    falls: Mapping[int, Sequence[FallbackRow]] = MappingProxyType({}),
) -> list[dict[str, Any]]:
    """All steps in the order in which they happened; `after_ms` counts from the receipt.

    `told` are the events that outcomes of these invocations became.
    """
    steps = [*_arrival(event)]
    steps += [Step(found.admitted_ms, "outcome told", f"{found.type} as {found.id}: {_matched(found)}") for found in told]
    steps += [_fold(fold) for fold in folds]
    for invocation in invocations:
        if flow and (noted := flow.get(invocation.id)):
            steps += _flow(invocation, noted)
        steps += _life(invocation, attempts.get(invocation.seq, ()))
        of_runs = (runs or {}).get(invocation.seq, ())
        steps += [Step(note.at_ms, f"run {note.number} {note.kind}", note.detail, invocation.id) for note in of_runs]
        steps += [
            Step(fall.at_ms, f"fallback {fall.kind}", _link(fall), invocation.id) for fall in falls.get(invocation.seq, ())
        ]
    steps.sort(key=lambda step: step.at_ms)  # stable: steps of one instant stay as they were told
    return [
        {
            "at": iso(step.at_ms),
            "after_ms": step.at_ms - event.received_ms,
            "step": step.step,
            "detail": step.detail,
            "invocation": step.invocation,
        }
        for step in steps
    ]


def _arrival(event: EventRow) -> Iterator[Step]:
    yield Step(event.received_ms, "received", f"verified and normalized as {event.type} from {event.source}")
    if event.appended_ms:
        yield Step(event.appended_ms, "appended", f"{event.topic}/{event.partition} at {event.position}")
    yield Step(event.admitted_ms, "admitted", _matched(event))


def _matched(event: EventRow) -> str:
    if Flag.LOOP_CUT in event.flags.split(","):
        return "the loop guard cut the chain here: too many outcomes followed one event"
    count = event.invocations
    return f"{count} subscription{'s' * (count != 1)} matched" if count else "nothing matched"


def _fold(fold: Fold) -> Step:
    if fold.stale:
        return Step(fold.at_ms, "dropped as late", late_by(fold.stale))
    return Step(fold.at_ms, "folded", duplicate_of(fold))


def _flow(invocation: InvocationRow, noted: Noted) -> Iterator[Step]:
    if noted.stale:
        yield Step(invocation.created_ms, "marked as late", late_by(noted.stale), invocation.id)
    if noted.events:
        listed = ", ".join(noted.events[:_SHOWN_EVENTS]) + (", …" if len(noted.events) > _SHOWN_EVENTS else "")
        yield Step(
            noted.closed_ms or invocation.created_ms,
            "digest closed",
            f"hands over {len(noted.events)} events: {listed}",
            invocation.id,
        )
    elif noted.digest_id:
        yield Step(invocation.ended_ms, "handed over", f"with {noted.digest_id}, which is {noted.digest_state}", invocation.id)


def _life(invocation: InvocationRow, attempts: Sequence[AttemptRow]) -> Iterator[Step]:
    where = f"{invocation.subscription} → {invocation.agent}"
    yield Step(invocation.created_ms, "planned", where, invocation.id)
    for attempt in attempts:
        yield Step(attempt.started_ms, f"attempt {attempt.number} started", where, invocation.id)
        if attempt.ended_ms:
            yield Step(attempt.ended_ms, f"attempt {attempt.number} {attempt.outcome}", _answer(attempt), invocation.id)
    if invocation.ended_ms:
        yield Step(invocation.ended_ms, invocation.state, invocation.reason, invocation.id)


def _link(fall: FallbackRow) -> str:
    what = {
        "wait": f"{fall.agent} gets one more try at {iso(fall.due_ms)}",
        "agent": f"{fall.agent} gets it",
        "notify": f"a person is told by {fall.agent}",
        "answer": f"a redrive or a cancel is waited for until {iso(fall.due_ms)}",
    }
    return f"{what.get(fall.kind, fall.agent)}: {fall.reason}"


def _answer(attempt: AttemptRow) -> str:
    parts = [f"HTTP {attempt.status}" if attempt.status else "", f"{attempt.duration_ms:.1f} ms", attempt.error]
    if not attempt.status and attempt.sent:
        parts.append("sent, unanswered")
    return ", ".join(part for part in parts if part)
