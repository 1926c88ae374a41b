"""Plans, as the router would make them, for tests of the store."""

from __future__ import annotations

from schemas.event import Event
from schemas.ids import event_id, invocation_id, shard_of
from schemas.invocation import Invocation, Order, Planned, State
from schemas.ledger import Head, Opening, Settlement
from schemas.topics import Place

NOW = 1_800_000_000_000
PLACE = Place("nightbell.events.github", 0)
LOG = "log-1"


def an_event(identity: str, *, key: str = "", body: bytes = b'{"n": 1}', **fields: object) -> Event:
    ident = event_id("default", "gh", identity)
    words: dict[str, object] = {"subject": "acme/shop/issues/1"}
    words |= fields
    return Event(
        id=ident,
        team="default",
        source="gh",
        provider="github",
        family="github",
        type="github.issues.opened",
        partitionkey=f"default/gh/{key or ident}",
        time_ms=NOW - 1000,
        received_ms=NOW - 500,
        traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        datacontenttype="application/json",
        body=body,
        **words,
    )


def an_invocation(
    event: Event, *, uid: str = "sub-1", agent: str = "triage", replay: str = "", order: Order = Order.STRICT
) -> Invocation:
    return Invocation(
        id=invocation_id(event.id, uid, replay),
        team=event.team,
        event_id=event.id,
        subscription_uid=uid,
        subscription=uid,
        generation=1,
        agent=agent,
        shard=shard_of(event.team, agent),
        ordering_key=event.partitionkey,
        lane=f"{uid}/{event.partitionkey}",
        order=order,
        created_ms=NOW,
        due_ms=NOW,
        replay_id=replay,
    )


def a_plan(
    identity: str, *, position: int = 0, uids: tuple[str, ...] = ("sub-1",), agent: str = "triage", **fields: object
) -> Planned:
    event = an_event(identity, **fields)
    return Planned(
        event, position, tuple(an_invocation(event, uid=uid, agent=agent) for uid in uids), data={"n": 1}, appended_ms=NOW - 400
    )


def an_opening(
    invocation: Invocation, *, number: int = 1, epoch: int = 1, started_ms: int = NOW, deadline_ms: int = NOW + 30_000
) -> Opening:
    return Opening(invocation.id, number, invocation.shard, epoch, "me", started_ms, deadline_ms)


def a_settlement(
    invocation: Invocation,
    state: State = State.DONE,
    *,
    number: int = 1,
    epoch: int = 1,
    outcome: str = "delivered",
    **fields: object,
) -> Settlement:
    words: dict[str, object] = {"reason": "", "ended_ms": NOW + 50, "tries": number}
    words |= fields
    return Settlement(
        invocation_id=invocation.id,
        team=invocation.team,
        lane=invocation.lane,
        number=number,
        shard=invocation.shard,
        epoch=epoch,
        outcome=outcome,
        state=state,
        **words,
    )


def ids(heads: list[Head]) -> list[str]:
    return [head.invocation.id for head in heads]
