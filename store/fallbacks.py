"""Moves what would be buried along its subscription's fallback chain: the next link takes it, in the same transaction.

So whoever buries (an attempt, a held agent's end of patience, a stalled run, an agent's own report) starts the chain, and it is
as durable as the burial would have been.  Where nothing is buried, nothing here is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy import bindparam, select, update

from schemas.config import FallbackStep
from schemas.fallback import Kind, Link, agent_at, chain_of, link_at, onward
from schemas.ids import part_of, shards_of
from schemas.invocation import State, Wait
from store.engine import AddNew, Call, Each, Engine, Put, Row, Script, fetch
from store.prepared import Bulk, Prepared, among
from store.subscriptions import CHAINED
from store.tables import agents, fallbacks, invocations, lanes, subscriptions
from store.texts import kept

WAIT, GO_ON = "wait", "go_on"  # what the lane does while its head is on the chain
_FALLING = Prepared(
    select(
        invocations.c.id,
        invocations.c.step,
        invocations.c.agent,
        invocations.c.shard,
        invocations.c.home_agent,
        invocations.c.home_shard,
        invocations.c.fell_for,
        invocations.c.lane,
        invocations.c.subscription_uid,
        subscriptions.c.spec,
    )
    .join(subscriptions, subscriptions.c.uid == invocations.c.subscription_uid)
    .where(among(invocations.c.id, "ids")),
    "ids",
)
_SHARDS = Prepared(
    select(agents.c.name, agents.c.shard, agents.c.spec).where(
        agents.c.team == bindparam("team_"), among(agents.c.name, "names")
    ),
    *("team_", "names"),
)
_HAND_OVER = Prepared(
    update(invocations)
    .where(invocations.c.seq == bindparam("seq_"))
    .values(
        step=bindparam("step_"),
        agent=bindparam("agent_"),
        shard=bindparam("shard_"),
        home_agent=bindparam("home_"),
        home_shard=bindparam("home_shard_"),
        fell_for=bindparam("why_"),
        lane=bindparam("lane_"),
        tries=0,
    ),
    *("step_", "agent_", "shard_", "home_", "home_shard_", "why_", "lane_", "seq_"),
)
_NOTE = Bulk(fallbacks, "invocation_seq", "at_ms", "step", "kind", "agent", "attempts", "due_ms", "reason")
_OWN_LANES = Bulk(
    lanes,
    *("id", "team", "subscription_uid", "agent", "shard", "due_ms", "queued"),
    then="ON CONFLICT (id) DO UPDATE SET queued = lanes.queued + excluded.queued RETURNING id",
)
_OF_INVOCATIONS = Prepared(
    select(
        *(fallbacks.c[name] for name in ("invocation_seq", "at_ms", "step", "kind", "agent", "attempts", "due_ms", "reason"))
    )
    .where(among(fallbacks.c.invocation_seq, "seqs"))
    .order_by(fallbacks.c.seq),
    "seqs",
)


@dataclass(frozen=True, slots=True)
class Fall:
    """Where an invocation goes instead of being buried.  `lane` is its own where it leaves the lane that it stood in."""

    step: int
    kind: Kind
    agent: str
    shard: int
    home_agent: str
    home_shard: int
    fell_for: str
    lane: str
    left: str
    uid: str
    due_ms: int

    @property
    def leaves_lane(self) -> bool:
        """Whether what stands behind it goes on meanwhile."""
        return self.lane != self.left

    @property
    def state(self) -> State:
        """A link without a wait is queued for whoever has it now."""
        return State.WAITING if self.kind in {Kind.AGAIN, Kind.ANSWER} else State.QUEUED

    @property
    def reason(self) -> str:
        """Why it waits, or what it is queued for, as the invocation shows it."""
        if self.kind is Kind.ANSWER:
            return Wait.HUMAN
        return Wait.FALLBACK if self.kind is Kind.AGAIN else f"fallback: {self.fell_for}"


@dataclass(frozen=True, slots=True)
class FallbackRow:
    """A link of a chain that an invocation went to; `attempts` is how many had been made before."""

    invocation_seq: int
    at_ms: int
    step: int
    kind: str
    agent: str
    attempts: int
    due_ms: int
    reason: str


def falls_of(buried: Mapping[str, tuple[str, str, int]]) -> Script[dict[str, Fall]]:
    """Part of a script: where these go instead, by id; those whose chain is over, or that have none, are left out.

    `buried` gives, by the invocation's id, its team, the reason of its burial, and when.
    """
    found: dict[str, Fall] = {}
    for row in (yield Call(_FALLING, (list(buried),))):
        if CHAINED not in row[9]:
            continue
        document = orjson.loads(row[9])
        chain = chain_of([FallbackStep.model_validate(step) for step in document["fallback"]])
        team, reason, at_ms = buried[row[0]]
        others = yield Call(_SHARDS, (team, sorted({link.agent for link in chain if link.agent})))
        lane = row[0] if document.get("fallback_lane") == GO_ON else row[7]
        shards = {name: _shard(team, name, shard, spec, lane) for name, shard, spec in others}
        fall = _next(row, chain, shards, reason=reason, at_ms=at_ms, goes_on=document.get("fallback_lane") == GO_ON)
        if fall is not None:
            found[row[0]] = fall
    return found


def _shard(team: str, name: str, shard: int, spec: str, lane: str) -> int:
    """The shard of an agent's that has this lane."""
    count = int(orjson.loads(spec).get("shards", 1))
    return shard if count == 1 else shards_of(team, name, count)[part_of(lane, count)]


def _next(row: Row, chain: Sequence[Link], shards: Mapping[str, int], *, reason: str, at_ms: int, goes_on: bool) -> Fall | None:
    ident, step, agent, shard, home_agent, home_shard, fell_for, lane, uid, _ = row
    if not step:
        home_agent, home_shard = agent, shard
    # A notice that was given, and an answer that never came, are no reasons of their own.
    here = link_at(chain, step)
    why = fell_for if here is not None and here.kind in {Kind.NOTIFY, Kind.ANSWER} else reason
    known = {**shards, home_agent: home_shard}
    number = onward(chain, step, home=home_agent, known=known)
    if number is None:
        return None
    link, target, own = chain[number - 1], agent_at(chain, number, home=home_agent), ident if goes_on else lane
    due_ms = at_ms + round(link.wait_s * 1000)
    return Fall(number, link.kind, target, known[target], home_agent, home_shard, kept(why), own, lane, uid, due_ms)


def handed_over(falls: Sequence[tuple[Fall, int, int, int, str]]) -> Script[None]:
    """Part of a script: write where they went, and note it.  Each with its `seq`, its attempts, the instant, its team."""
    yield Each(
        _HAND_OVER,
        [(f.step, f.agent, f.shard, f.home_agent, f.home_shard, f.fell_for, f.lane, seq) for f, seq, _, _, _ in falls],
    )
    yield Put(
        _NOTE,
        [(seq, at, f.step, f.kind.value, f.agent, attempts, f.due_ms, f.fell_for) for f, seq, attempts, at, _ in falls],
    )
    apart = [(f.lane, team, f.uid, f.agent, f.shard, f.due_ms, 1) for f, _, _, _, team in falls if f.leaves_lane]
    if apart:
        yield AddNew(_OWN_LANES, sorted(apart))


async def fallbacks_of(engine: Engine, seqs: Sequence[int]) -> dict[int, list[FallbackRow]]:
    """Which links these invocations (by their `seq`) went to, each in order."""
    found: dict[int, list[FallbackRow]] = {}
    for raw in await fetch(engine, _OF_INVOCATIONS, list(seqs)):
        row = FallbackRow(*raw)
        found.setdefault(row.invocation_seq, []).append(row)
    return found
