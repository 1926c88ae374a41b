"""Quotas of teams: what each may use in a span of time, given out to dispatchers in blocks; all SQL of `quotas`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import bindparam, delete, select, update

from schemas.config import QuotaSpec
from schemas.ledger import Block
from store.changes import Action, FieldChange, ObjectChange
from store.decide import Decision, Wish
from store.engine import Call, Engine, Put, Script, fetch
from store.prepared import Bulk, Prepared, database_ms
from store.tables import quotas

QUOTA, TEAM = "quota", "team"  # the kind of the object in a plan, and its name there
NO_QUOTA = Block(1 << 30, 1_000)  # what a dispatcher gets that has not heard yet that there is none any more

_ALL = Prepared(select(quotas.c.team, quotas.c.attempts, quotas.c.per_ms))
_ONE = Prepared(
    select(quotas.c.attempts, quotas.c.per_ms, quotas.c.span_ms, quotas.c.taken, database_ms().label("now"))
    .where(quotas.c.team == bindparam("team_"))
    .with_for_update(),
    "team_",
)
_TAKE = Prepared(
    update(quotas).where(quotas.c.team == bindparam("team_")).values(span_ms=bindparam("span"), taken=bindparam("taken_")),
    *("span", "taken_", "team_"),
)
_WRITE = Bulk(
    quotas,
    *("team", "attempts", "per_ms"),
    then="ON CONFLICT (team) DO UPDATE SET attempts = excluded.attempts, per_ms = excluded.per_ms",
)
_DROP = Prepared(delete(quotas).where(quotas.c.team == bindparam("team_")), "team_")


class Standing(NamedTuple):
    """A team's quota, and how much of the present span is given out."""

    spec: QuotaSpec
    taken: int
    ends_in_ms: int


async def all_quotas(engine: Engine) -> dict[str, QuotaSpec]:
    """The quotas, by team."""
    return {team: _spec(attempts, per_ms) for team, attempts, per_ms in await fetch(engine, _ALL)}


async def standing_of(engine: Engine, team: str) -> Standing | None:
    """How a team's quota stands; None where it has none."""
    rows = await engine.write(lambda: _row(team))
    if not rows:
        return None
    attempts, per_ms, span_ms, taken, now_ms = rows[0]
    present_ms = now_ms - now_ms % per_ms
    return Standing(_spec(attempts, per_ms), taken if span_ms == present_ms else 0, present_ms + per_ms - now_ms)


def leased(team: str, wanted: int) -> Script[Block]:
    """Give out up to `wanted` attempts of the team's present span, which is one of the database's clock."""
    rows = yield from _row(team)
    if not rows:
        return NO_QUOTA
    attempts, per_ms, span_ms, taken, now_ms = rows[0]
    present_ms = now_ms - now_ms % per_ms
    if span_ms != present_ms:
        taken = 0
    granted = max(0, min(wanted, attempts - taken))
    if granted:
        yield Call(_TAKE, (present_ms, taken + granted, team))
    return Block(granted, present_ms + per_ms - now_ms)


def decide_quota(wish: Wish) -> Script[list[Decision]]:
    """Part of a script: what becomes of the team's quota; nothing where the wish says nothing of it."""
    drops = (QUOTA, TEAM) in wish.drop
    if wish.quota is None and not drops:
        return []
    rows = yield from _row(wish.team)
    before = _spec(rows[0][0], rows[0][1]) if rows else None
    if wish.quota is None:
        change = ObjectChange(QUOTA, TEAM, Action.DELETE if before else Action.UNCHANGED)
        return [Decision(change, (lambda: _dropped(wish.team)) if before else None)]
    wanted = wish.quota
    fields = tuple(_differences(before, wanted))
    if not fields:
        return [Decision(ObjectChange(QUOTA, TEAM, Action.UNCHANGED))]
    change = ObjectChange(QUOTA, TEAM, Action.UPDATE if before else Action.CREATE, fields)
    return [Decision(change, lambda: _written(wish.team, wanted))]


def _differences(before: QuotaSpec | None, after: QuotaSpec) -> Iterator[FieldChange]:
    for name in ("attempts", "per"):
        old, new = getattr(before, name, None), getattr(after, name)
        if old != new:
            yield FieldChange(name, old, new)


def _row(team: str) -> Script[list[tuple[int, ...]]]:
    return [tuple(row) for row in (yield Call(_ONE, (team,)))]


def _written(team: str, spec: QuotaSpec) -> Script[None]:
    yield Put(_WRITE, [(team, spec.attempts, max(1, round(spec.per * 1000)))])


def _dropped(team: str) -> Script[None]:
    yield Call(_DROP, (team,))


def _spec(attempts: int, per_ms: int) -> QuotaSpec:
    return QuotaSpec(attempts=attempts, per=per_ms / 1000)
