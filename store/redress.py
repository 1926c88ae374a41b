"""Operators' acts on invocations: redriving what was buried, canceling what waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import bindparam, select, update

from schemas.invocation import State, Wait
from store.deadletters import PURGED
from store.engine import AddNew, Call, Each, Engine, Notify, Script, fetch
from store.heads import ZERO
from store.moves import REDRIVEN, Move, moved, point_at_heads
from store.prepared import Bulk, Prepared, among
from store.run_rows import signals_forgotten
from store.shards import WORK
from store.tables import invocations, lanes

REDRIVABLE = frozenset({State.BURIED, State.EXPIRED, State.CANCELED, State.SUPERSEDED})
_SLICE = 200

_ENDED = Prepared(
    select(
        *(invocations.c[name] for name in ("seq", "id", "state", "lane", "team", "subscription_uid", "agent", "shard")),
        *(invocations.c[name] for name in ("step", "home_agent", "home_shard", "reason")),
    )
    .where(invocations.c.team == bindparam("team_"), among(invocations.c.id, "ids"))
    .order_by(invocations.c.seq)
    .with_for_update(),
    *("team_", "ids"),
)
_AGAIN = Prepared(
    update(invocations)
    .where(invocations.c.seq == bindparam("seq_"))
    .values(
        state=State.QUEUED.value,
        reason=REDRIVEN,
        outcome="",
        tries=0,
        ended_ms=0,
        due_ms=bindparam("now"),
        budget_ms=bindparam("now"),
    ),
    *("now", "seq_"),
)
# A redrive begins at its own agent again, with the whole chain before it.
_HOME = Prepared(
    update(invocations)
    .where(invocations.c.seq == bindparam("seq_"))
    .values(step=0, fell_for="", agent=bindparam("agent_"), shard=bindparam("shard_")),
    *("agent_", "shard_", "seq_"),
)
_LENGTHEN = Bulk(
    lanes,
    *("id", "team", "subscription_uid", "agent", "shard", "due_ms", "queued"),
    then="ON CONFLICT (id) DO UPDATE SET queued = lanes.queued + excluded.queued RETURNING id, queued",
)
_TEAMS_OWN = Prepared(
    select(invocations.c.id).where(invocations.c.team == bindparam("team_"), among(invocations.c.id, "ids")), "team_", "ids"
)
_OPEN_OF = Prepared(
    select(invocations.c.id, invocations.c.seq)
    .where(
        invocations.c.lane.in_(select(lanes.c.id).where(lanes.c.subscription_uid == bindparam("uid_"))),
        invocations.c.ended_ms == ZERO,
        invocations.c.seq > bindparam("after"),
    )
    .order_by(invocations.c.seq)
    .limit(bindparam("limit_")),
    *("uid_", "after", "limit_"),
)


class Redress:
    """Acts on invocations that no shard's lease fences: each is a compare-and-set on their state."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def redrive(self, team: str, ids: Sequence[str], *, now_ms: int) -> list[str]:
        """Queue ended invocations again, at their old place in their lane: same id, same attempts, a new budget of tries.

        Gives those that were redriven; what is done, declined, unknown, or open and does not block its key is left alone.
        """
        done: list[str] = []
        for first in range(0, len(ids), _SLICE):
            part = ids[first : first + _SLICE]
            done += await self._engine.write(lambda part=part: _redriven(team, part, now_ms))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        return done

    async def skip(self, team: str, ids: Sequence[str], *, reason: str, now_ms: int) -> list[str]:
        """Bury those that block their keys, so that these go on; gives those that were."""
        return await self._engine.write(lambda: _skipped(team, ids, reason, now_ms))

    async def cancel(self, team: str, ids: Sequence[str], *, reason: str, now_ms: int) -> list[str]:
        """End what waits; gives those that were canceled.  One that is running is left alone."""
        rows = await fetch(self._engine, _TEAMS_OWN, team, ids)
        return await self._cancel([row[0] for row in rows], reason, now_ms)

    async def cancel_all(self, subscription_uid: str, *, reason: str, now_ms: int) -> int:
        """End all that waits for a subscription, slice by slice; how many there were."""
        total, after = 0, -1
        while rows := await fetch(self._engine, _OPEN_OF, subscription_uid, after, _SLICE):
            total += len(await self._cancel([row[0] for row in rows], reason, now_ms))
            after = rows[-1][1]
        return total

    async def _cancel(self, ids: Sequence[str], reason: str, now_ms: int) -> list[str]:
        moves = [Move(ident, State.CANCELED, reason, now_ms) for ident in ids]
        answers = await self._engine.write(lambda: moved(moves))
        return [ident for ident, was in zip(ids, answers, strict=True) if was]


def _redriven(team: str, ids: Sequence[str], now_ms: int) -> Script[list[str]]:
    rows = [_Redriven(*row) for row in (yield Call(_ENDED, (team, ids)))]
    rows = [row for row in rows if row.is_redrivable]
    if not rows:
        return []
    counts: dict[str, int] = {}
    firsts: dict[str, _Redriven] = {}
    for row in rows:
        counts[row.lane] = counts.get(row.lane, 0) + (row.state in REDRIVABLE)  # what waits or blocks is counted already
        firsts.setdefault(row.lane, row)
    lengthened = yield AddNew(
        _LENGTHEN,
        [(lane, *firsts[lane].whose, now_ms, counts[lane]) for lane in sorted(firsts)],
    )
    yield Each(_AGAIN, [(now_ms, row.seq) for row in rows])
    yield from signals_forgotten([row.seq for row in rows])
    if sent_home := [(row.home_agent, row.home_shard, row.seq) for row in rows if row.step]:
        yield Each(_HOME, sent_home)
    yield from point_at_heads(dict(lengthened), {}, {lane: row.seq for lane, row in firsts.items()})
    yield Notify(WORK, ",".join(map(str, sorted({row.home[1] for row in rows}))))
    return [row.id for row in rows]


def is_blocking(state: str, reason: str) -> bool:
    """Whether an invocation blocks its key: it would have been buried, and waits for an operator."""
    return state == State.WAITING and reason == Wait.BLOCKED


def _skipped(team: str, ids: Sequence[str], reason: str, now_ms: int) -> Script[list[str]]:
    rows = [_Redriven(*row) for row in (yield Call(_ENDED, (team, ids)))]
    rows = [row for row in rows if is_blocking(row.state, row.reason)]
    if not rows:
        return []
    answers = yield from moved([Move(row.id, State.BURIED, reason, now_ms) for row in rows])
    yield Notify(WORK, ",".join(map(str, sorted({row.shard for row in rows}))))
    return [row.id for row, was in zip(rows, answers, strict=True) if was]


class _Redriven(NamedTuple):
    """An invocation that is to be redriven."""

    seq: int
    id: str
    state: str
    lane: str
    team: str
    subscription_uid: str
    agent: str
    shard: int
    step: int
    home_agent: str
    home_shard: int
    reason: str

    @property
    def is_redrivable(self) -> bool:
        """It came to an end and was not purged, or waits for a person, whose answer this is."""
        if self.reason.startswith(PURGED):
            return False
        return self.state in REDRIVABLE or (self.state == State.WAITING and self.reason in {Wait.HUMAN, Wait.BLOCKED})

    @property
    def home(self) -> tuple[str, int]:
        """Whose it is from now on: its own agent, with that one's shard."""
        return (self.home_agent, self.home_shard) if self.step else (self.agent, self.shard)

    @property
    def whose(self) -> tuple[str, str, str, int]:
        """The lane's team, subscription, agent and shard."""
        return self.team, self.subscription_uid, *self.home
