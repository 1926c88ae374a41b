"""Subscriptions: all SQL of `subscriptions` that operators cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, exists, func, insert, or_, select, update

from schemas.config import SubscriptionConfig, SubscriptionSpec, SubscriptionState
from store.engine import Call, Engine, Script, fetch
from store.prepared import Prepared
from store.tables import lanes, subscriptions

_COLUMNS = (
    "uid", "team", "name", "agent", "spec", "generation", "state", "disabled_reason", "managed_by", "draining", "created_ms",
    "updated_ms",
)  # fmt: skip
_WANTED = [subscriptions.c[name] for name in _COLUMNS]
_ALL = Prepared(select(*_WANTED).order_by(subscriptions.c.team, subscriptions.c.name, subscriptions.c.uid))
_OF_TEAM = Prepared(
    select(*_WANTED).where(subscriptions.c.team == bindparam("team_")).order_by(subscriptions.c.name, subscriptions.c.uid),
    "team_",
)
_ADD = Prepared(
    insert(subscriptions).values({name: bindparam(f"{name}_") for name in _COLUMNS}), *(f"{name}_" for name in _COLUMNS)
)
_MENDED = ("agent", "spec", "generation", "state", "disabled_reason", "managed_by", "draining", "updated_ms")
_MEND = Prepared(
    update(subscriptions)
    .where(subscriptions.c.uid == bindparam("uid_"))
    .values({name: bindparam(f"{name}_") for name in _MENDED}),
    *(f"{name}_" for name in _MENDED),
    "uid_",
)
# Team and agent stand first in the lanes' index, so a look at one subscription's lanes reads its agent's alone.
_HAS_LANES = exists().where(
    lanes.c.team == subscriptions.c.team,
    lanes.c.agent == subscriptions.c.agent,
    lanes.c.subscription_uid == subscriptions.c.uid,
)
CHAINED = '"fallback": [{'  # what the spec of a subscription with a fallback chain contains, as it is kept
# On a fallback chain a lane may be another agent's; no index leads there, so only those with a chain look for them.
_HAS_NO_CHAIN = subscriptions.c.spec.not_like(f"%{CHAINED}%")
_HAS_LANES_ELSEWHERE = exists().where(lanes.c.subscription_uid == subscriptions.c.uid, lanes.c.agent != subscriptions.c.agent)
_DROP_DRAINED = Prepared(
    delete(subscriptions)
    .where(
        subscriptions.c.draining == 1,
        subscriptions.c.updated_ms < bindparam("before_ms"),
        ~_HAS_LANES,
        or_(_HAS_NO_CHAIN, ~_HAS_LANES_ELSEWHERE),
    )
    .returning(subscriptions.c.uid),
    "before_ms",
)
_QUEUED = Prepared(
    select(func.coalesce(func.sum(lanes.c.queued), 0)).where(
        lanes.c.team == bindparam("team_"), lanes.c.agent == bindparam("agent_"), lanes.c.subscription_uid == bindparam("uid_")
    ),
    "team_",
    "agent_",
    "uid_",
)
_GENERATION_FIELDS = (
    *("pattern", "filters", "cesql", "when", "extensions", "dedup", "order", "context"),
    *("stale", "concurrency", "debounce", "batch"),
)


@dataclass(frozen=True, slots=True)
class SubscriptionRow:
    """A subscription as it is kept.  `state` is today's, the one in `spec` is what was asked for."""

    uid: str
    team: str
    name: str
    agent: str
    spec: str
    generation: int
    state: str
    disabled_reason: str
    managed_by: str
    draining: int
    created_ms: int
    updated_ms: int

    @property
    def public(self) -> dict[str, Any]:
        """What was written, with today's defaults for what was left out."""
        return SubscriptionSpec.model_validate_json(self.spec).model_dump(mode="json")

    @property
    def config(self) -> SubscriptionConfig:
        """As the stages use it, in today's state."""
        spec = SubscriptionSpec.model_validate_json(self.spec).model_copy(update={"state": SubscriptionState(self.state)})
        return SubscriptionConfig(self.team, self.name, self.uid, self.generation, spec, bool(self.draining))


def raises_generation(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether a change of spec makes it another rule: other events, other lanes or other contexts than before."""
    return any(before.get(name) != after.get(name) for name in _GENERATION_FIELDS)


def subscription_rows(team: str) -> Script[list[SubscriptionRow]]:
    """Part of a script: a team's subscriptions, draining ones included."""
    rows = yield Call(_OF_TEAM, (team,))
    return [SubscriptionRow(*raw) for raw in rows]


def all_subscription_rows() -> Script[list[SubscriptionRow]]:
    """Part of a script: the subscriptions of all teams, draining ones included."""
    rows = yield Call(_ALL)
    return [SubscriptionRow(*raw) for raw in rows]


def add_subscription(row: SubscriptionRow) -> Script[None]:
    """Part of a script: a new subscription."""
    yield Call(_ADD, tuple(getattr(row, name) for name in _COLUMNS))


def mend_subscription(row: SubscriptionRow) -> Script[None]:
    """Part of a script: write what may change of a subscription."""
    yield Call(_MEND, (*(getattr(row, name) for name in _MENDED), row.uid))


def drop_drained(before_ms: int) -> Script[list[str]]:
    """Part of a script: drop the rows of subscriptions deleted before `before_ms` whose queues are empty; gives their uids."""
    rows = yield Call(_DROP_DRAINED, (before_ms,))
    return [row[0] for row in rows]


async def subscriptions_of(engine: Engine, team: str) -> dict[str, SubscriptionRow]:
    """A team's subscriptions that are not deleted, by name."""
    rows = await engine.read(lambda: subscription_rows(team))
    return {row.name: row for row in rows if not row.draining}


async def queued_of(engine: Engine, row: SubscriptionRow) -> int:
    """How many unfinished invocations a subscription has."""
    return int((await fetch(engine, _QUEUED, row.team, row.agent, row.uid))[0][0])
