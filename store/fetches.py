"""What contexts cost and lacked, and which parts of events were fetched by reference afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, func, select

from store.engine import Engine, OneStep, Put, fetch
from store.prepared import Bulk, Prepared
from store.tables import attempts, fetches, invocations

LOOK_BACK = 100_000  # invocations that the sums are taken over, at most: no index of the hot path's is spent on them
_NOTE = Bulk(
    fetches,
    *("subscription_uid", "pointer", "count", "last_ms"),
    then="ON CONFLICT (subscription_uid, pointer) DO UPDATE SET count = fetches.count + 1, last_ms = excluded.last_ms",
)
_OF_SUBSCRIPTION = Prepared(
    select(fetches.c.pointer, fetches.c.count)
    .where(fetches.c.subscription_uid == bindparam("uid_"), fetches.c.last_ms >= bindparam("since_"))
    .order_by(fetches.c.count.desc(), fetches.c.pointer)
    .limit(100),
    *("uid_", "since_"),
)
_any = invocations.alias("any_invocation")
_NEWEST = select(func.coalesce(func.max(_any.c.seq), 0)).scalar_subquery()

_SUMS = Prepared(
    select(
        invocations.c.subscription,
        func.count(),
        func.sum(attempts.c.raw_tokens),
        func.sum(attempts.c.tokens),
        func.count(func.nullif(attempts.c.missing, bindparam("none_"))),
        func.count(func.nullif(attempts.c.cut, bindparam("none_"))),
    )
    .join(attempts, attempts.c.invocation_seq == invocations.c.seq)
    .where(
        invocations.c.seq > _NEWEST - LOOK_BACK,
        invocations.c.team == bindparam("team_"),
        attempts.c.started_ms >= bindparam("since_"),
        attempts.c.context_digest != bindparam("empty_"),
    )
    .group_by(invocations.c.subscription)
    .order_by(invocations.c.subscription),
    *("none_", "team_", "since_", "empty_"),
)


@dataclass(frozen=True, slots=True)
class ContextSums:
    """The contexts of one subscription: how many, tokens of the whole bodies (estimated) and of what was made of them, how many
    lacked something that was asked for, and from how many something was left out.
    """

    subscription: str
    contexts: int
    raw_tokens: int
    tokens: int
    missing: int
    cut: int


async def note_fetch(engine: Engine, *, subscription_uid: str, pointer: str, now_ms: int) -> None:
    """Count that a subscription's agent fetched this part of an event."""
    await engine.write(OneStep(Put(_NOTE, [(subscription_uid, pointer, 1, now_ms)])))


async def fetched(engine: Engine, subscription_uid: str, *, since_ms: int) -> dict[str, int]:
    """How often each part was fetched that was fetched since then, the most wanted first."""
    return {pointer: count for pointer, count in await fetch(engine, _OF_SUBSCRIPTION, subscription_uid, since_ms)}  # noqa: C416 - rows are sequences, not pairs


async def context_sums(engine: Engine, team: str, *, since_ms: int) -> list[ContextSums]:
    """What the contexts of each subscription came to since then, over the newest `LOOK_BACK` invocations."""
    rows = await fetch(engine, _SUMS, 0, team, since_ms, "")
    return [ContextSums(row[0], *(int(number or 0) for number in row[1:])) for row in rows]
