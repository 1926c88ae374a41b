"""What an event gives: pure, so that the same events and rules give the same plan for ever."""

from __future__ import annotations

from payload.pointer import MISSING, reach, steps_of
from router.ruleset import Rule, Ruleset
from router.values import parse_exact
from schemas.event import Event
from schemas.ids import invocation_id
from schemas.invocation import Invocation, Order, Planned


def plan(
    event: Event, data: object, ruleset: Ruleset, *, position: int, now_ms: int, appended_ms: int = 0, replay_id: str = ""
) -> Planned:
    """The invocations of one event, one for each rule that matches it; none where nothing does.

    `data` is the event's JSON view.  The ids come from the event, the subscription and the replay alone, so planning again
    gives the same.
    """
    rules = ruleset.matching(event.team, event.document(data), exact=lambda: _exact(event, data), now_ms=now_ms)
    return Planned(event, position, tuple(_invocation(event, rule, now_ms, replay_id) for rule in rules), data, appended_ms)


def _exact(event: Event, data: object) -> dict[str, object]:
    """The document with every number as it was written: asked for only where a pattern compares one that no double holds."""
    try:
        found = reach(parse_exact(event.body), steps_of(event.pointer))
    except ValueError:
        return event.document(data)  # no JSON of its own: a form, XML
    return event.document(data if found is MISSING else found)


def _invocation(event: Event, rule: Rule, now_ms: int, replay_id: str) -> Invocation:
    name = invocation_id(event.id, rule.uid, replay_id)
    return Invocation(
        id=name,
        team=event.team,
        event_id=event.id,
        subscription_uid=rule.uid,
        subscription=rule.name,
        generation=rule.generation,
        agent=rule.agent,
        shard=rule.shard,
        ordering_key=event.partitionkey,
        lane=name if rule.order is Order.NONE else f"{rule.uid}/{event.partitionkey}",
        order=rule.order,
        created_ms=now_ms,
        due_ms=now_ms,
        replay_id=replay_id,
    )
