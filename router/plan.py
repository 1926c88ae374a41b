"""What an event gives: pure, so that the same events and rules give the same plan for ever."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

from payload.pointer import MISSING, reach, steps_of
from router.flow import FlowRule
from router.ruleset import Rule, Ruleset
from router.values import parse_exact
from schemas.event import Event, Flag
from schemas.ids import invocation_id
from schemas.invocation import Invocation, Order, Planned
from schemas.outcomes import OWN


def plan(
    event: Event, data: object, ruleset: Ruleset, *, position: int, now_ms: int, appended_ms: int = 0, replay_id: str = ""
) -> Planned:
    """The invocations of one event, one for each rule that matches it; none where nothing does.

    `data` is the event's JSON view.  The ids come from the event, the subscription and the replay alone, so planning again
    gives the same.
    """
    document = event.document(data)
    rules = ruleset.matching(event.team, document, exact=lambda: exact_document(event, data), now_ms=now_ms)
    if event.provider == OWN:
        rules = [rule for rule in rules if rule.hears_outcomes and Flag.LOOP_CUT not in event.flags]
    planned = tuple(_invocation(event, document, rule, now_ms, replay_id) for rule in rules)
    return Planned(event, position, planned, data, appended_ms)


def exact_document(event: Event, data: object) -> dict[str, object]:
    """The document with every number as it was written: asked for only where a pattern compares one that no double holds."""
    try:
        found = reach(parse_exact(event.body), steps_of(event.pointer))
    except ValueError:
        return event.document(data)  # no JSON of its own: a form, XML
    return event.document(data if found is MISSING else found)


def _invocation(event: Event, document: Mapping[str, Any], rule: Rule, now_ms: int, replay_id: str) -> Invocation:
    name = invocation_id(event.id, rule.uid, replay_id)
    digest = "" if rule.key_of is None else _dedup_digest(rule.uid, rule.key_of(document), replay_id)
    plain = Invocation(
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
        dedup_digest=digest,
        dedup_window_ms=rule.window_ms if digest else 0,
    )
    return plain if rule.flow is None else _flowing(plain, event, document, rule, rule.flow)


def _flowing(plain: Invocation, event: Event, document: Mapping[str, Any], rule: Rule, ruled: FlowRule) -> Invocation:
    """The same for a subscription with flow control: in the lane that gathers it, due when its digest may close."""
    flow = ruled.flow(event, document, is_replay=bool(plain.replay_id))
    group = ruled.group(event, document) if ruled.full_at else event.partitionkey
    lane = plain.id if rule.order is Order.NONE else f"{rule.uid}/{group}"
    shard = ruled.shard(flow, lane) if flow.is_part else rule.shard
    return replace(plain, shard=shard, lane=lane, due_ms=plain.due_ms + ruled.wait_ms, flow=flow)


def _dedup_digest(uid: str, key: str | None, replay_id: str) -> str:
    """The digest of a dedup key: of one subscription, and of one replay, which folds its own events among themselves."""
    if key is None:
        return ""
    return sha256(f"{uid}\0{replay_id}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()
