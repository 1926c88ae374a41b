"""Buried invocations as people look at them: lists, counts by reason, what was said on the wire, and how they are purged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, case, delete, func, literal_column, select, update

from schemas.invocation import State
from store.engine import Call, Each, Engine, Script, fetch
from store.prepared import Prepared, among
from store.tables import attempts, events, exchanges, invocations

PURGED = "purged"  # what the reason of a purged one begins with
# Why something was buried, by how its reason begins; the first that fits.
KINDS: Mapping[str, str] = {
    "context": "rejected: context:",
    "rejected": "rejected",
    "max_attempts": "max_attempts",
    "max_age": "max_age",
    "gone": "gone",
    "reported": "reported",
}
OTHER = "other"
REASONS = (*KINDS, OTHER)

KIND: ColumnElement[str] = case(
    *((invocations.c.reason.like(f"{begin}%"), kind) for kind, begin in KINDS.items()), else_=OTHER
).label("kind")
_IS_BURIED = invocations.c.state == literal_column(
    "'buried'"
)  # written out: a partial index serves only what the planner can read
_TEAM = invocations.c.team == bindparam("team_")
_SHOWN = (
    *("seq", "id", "event_id", "subscription", "agent", "reason", "outcome", "attempts", "ordering_key", "created_ms"),
    "ended_ms",
)
_COUNTS = Prepared(
    select(KIND, invocations.c.agent, func.count(), func.min(invocations.c.ended_ms))
    .where(_TEAM, _IS_BURIED)
    .group_by(KIND, invocations.c.agent),
    "team_",
)
_ALL_COUNTS = Prepared(
    select(KIND, func.count(), func.min(invocations.c.ended_ms)).where(_IS_BURIED).group_by(KIND),
)
_LAST = Prepared(
    select(attempts.c.invocation_seq, attempts.c.status, attempts.c.error, events.c.type, events.c.subject)
    .join(invocations, (invocations.c.seq == attempts.c.invocation_seq) & (invocations.c.attempts == attempts.c.number))
    .outerjoin(events, events.c.id == invocations.c.event_id)
    .where(among(attempts.c.invocation_seq, "seqs")),
    "seqs",
)
_EXCHANGES = Prepared(
    select(exchanges.c.number, exchanges.c.exchange).where(exchanges.c.invocation_seq == bindparam("seq_")), "seq_"
)
_PURGEABLE = Prepared(
    select(invocations.c.seq, invocations.c.id, invocations.c.reason)
    .where(_TEAM, _IS_BURIED, among(invocations.c.id, "ids"))
    .order_by(invocations.c.seq)
    .with_for_update(),
    *("team_", "ids"),
)
_FORGET_ANSWERS = Prepared(
    update(attempts).where(among(attempts.c.invocation_seq, "seqs")).values(answer=None, sent_body=None, error=""),
    "seqs",
)
_FORGET_EXCHANGES = Prepared(delete(exchanges).where(among(exchanges.c.invocation_seq, "seqs")), "seqs")
_PURGE = Prepared(
    update(invocations)
    .where(invocations.c.seq == bindparam("seq_"))
    .values(state=State.CANCELED.value, reason=bindparam("why")),
    *("why", "seq_"),
)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A buried invocation, why, and how its last attempt ended; `kind` is one of `REASONS`."""

    seq: int
    id: str
    event_id: str
    subscription: str
    agent: str
    reason: str
    outcome: str
    attempts: int
    ordering_key: str
    created_ms: int
    ended_ms: int
    kind: str
    status: int = 0
    error: str = ""
    type: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class DeadFilter:
    """Which dead letters are wanted; what is None or empty is not asked.  Times are those of their burial."""

    kind: str = ""
    agent: str = ""
    subscription: str = ""
    event: str = ""
    since_ms: int | None = None
    until_ms: int | None = None

    def asked(self) -> dict[str, Any]:
        """The names of the conditions that are asked, with their parameters' values."""
        found = {name: value for name in ("kind", "agent", "subscription", "event") if (value := getattr(self, name))}
        times = {"since": self.since_ms, "until": self.until_ms}
        return found | {name: value for name, value in times.items() if value is not None}


_CONDITIONS: dict[str, ColumnElement[bool]] = {
    "kind": bindparam("kind_") == KIND,
    "agent": invocations.c.agent == bindparam("agent_"),
    "subscription": invocations.c.subscription == bindparam("subscription_"),
    "event": invocations.c.event_id == bindparam("event_"),
    "since": invocations.c.ended_ms >= bindparam("since_"),
    "until": invocations.c.ended_ms < bindparam("until_"),
}


@lru_cache(maxsize=128)
def _page_of(asked: tuple[str, ...], *, newest_first: bool) -> Prepared:
    seq = invocations.c.seq
    at: ColumnElement[int] = bindparam("at")
    where = and_(_TEAM, _IS_BURIED, seq < at if newest_first else seq > at, *(_CONDITIONS[name] for name in asked))
    wanted = (*(invocations.c[name] for name in _SHOWN), KIND)
    statement = select(*wanted).where(where).order_by(seq.desc() if newest_first else seq).limit(bindparam("limit_"))
    return Prepared(statement, "team_", "at", *(f"{name}_" for name in asked), "limit_")


@lru_cache(maxsize=64)
def _total_of(asked: tuple[str, ...]) -> Prepared:
    where = and_(_TEAM, _IS_BURIED, *(_CONDITIONS[name] for name in asked))
    return Prepared(select(func.count()).select_from(invocations).where(where), "team_", *(f"{name}_" for name in asked))


async def dead_page(engine: Engine, team: str, wanted: DeadFilter, *, before: int, limit: int) -> list[DeadLetter]:
    """A page of a team's dead letters before the one at `before`, newest first, each with its event and its last answer."""
    asked = wanted.asked()
    rows = await fetch(engine, _page_of(tuple(asked), newest_first=True), team, before, *asked.values(), limit)
    last = {seq: rest for seq, *rest in await fetch(engine, _LAST, [row[0] for row in rows])} if rows else {}
    return [DeadLetter(*row, *last.get(row[0], ())) for row in rows]


async def dead_after(engine: Engine, team: str, wanted: DeadFilter, *, after: int, limit: int) -> list[tuple[int, str]]:
    """The next dead letters behind `after`, oldest first: `seq` and id."""
    asked = wanted.asked()
    rows = await fetch(engine, _page_of(tuple(asked), newest_first=False), team, after, *asked.values(), limit)
    return [(row[0], row[1]) for row in rows]


async def dead_total(engine: Engine, team: str, wanted: DeadFilter) -> int:
    """How many of a team's dead letters are of that kind."""
    asked = wanted.asked()
    return int((await fetch(engine, _total_of(tuple(asked)), team, *asked.values()))[0][0])


async def dead_counts(engine: Engine, team: str) -> list[tuple[str, str, int, int]]:
    """By reason and agent: how many of a team's, and when the oldest was buried."""
    return [(kind, agent, int(count), int(oldest)) for kind, agent, count, oldest in await fetch(engine, _COUNTS, team)]


async def all_dead_counts(engine: Engine) -> dict[str, tuple[int, int]]:
    """By reason, over all teams: how many, and when the oldest was buried."""
    return {kind: (int(count), int(oldest)) for kind, count, oldest in await fetch(engine, _ALL_COUNTS)}


async def exchanges_of(engine: Engine, seq: int) -> dict[int, bytes]:
    """The kept frames of one invocation's failed calls, by the attempt's number: JSON."""
    return {number: exchange for number, exchange in await fetch(engine, _EXCHANGES, seq)}  # noqa: C416 - rows are sequences


async def purge(engine: Engine, team: str, ids: Sequence[str]) -> list[str]:
    """Forget what dead letters held: the bytes sent and answered, headers and errors.  Gives those that were purged.

    That they were there, and why, is kept with their event, as `canceled`: every event has an end that can be seen.
    """
    return await engine.write(lambda: _purged(team, ids))


def _purged(team: str, ids: Sequence[str]) -> Script[list[str]]:
    rows = yield Call(_PURGEABLE, (team, ids))
    if rows:
        seqs = [row[0] for row in rows]
        yield Call(_FORGET_ANSWERS, (seqs,))
        yield Call(_FORGET_EXCHANGES, (seqs,))
        yield Each(_PURGE, [(f"{PURGED}: {reason}", seq) for seq, _, reason in rows])
    return [row[1] for row in rows]


def kind_of(reason: str) -> str:
    """The class of a reason, as the lists and the metrics have it."""
    return next((kind for kind, begin in KINDS.items() if reason.startswith(begin)), OTHER)
