"""What an event gives: pure, so that the same events and rules give the same plan for ever."""

from __future__ import annotations

from router.ruleset import Rule, Ruleset
from schemas.event import Event
from schemas.ids import invocation_id
from schemas.invocation import Invocation, Order, Planned


def plan(event: Event, data: object, ruleset: Ruleset, *, position: int, now_ms: int) -> Planned:
    """The invocations of one event, one for each rule that matches it; none where nothing does.

    `data` is the event's JSON view.  The ids come from the event and the subscription alone, so planning again gives the same.
    """
    rules = ruleset.matching(event.team, event.document(data))
    return Planned(event, position, tuple(_invocation(event, rule, now_ms) for rule in rules), data)


def _invocation(event: Event, rule: Rule, now_ms: int) -> Invocation:
    name = invocation_id(event.id, rule.uid, event.replayid)
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
        replay_id=event.replayid,
    )
