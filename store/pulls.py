"""Work that agents fetch: who waits for it, and the taking of what is offered."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, case, delete, select, update

from schemas.invocation import State
from schemas.runs import OFFERED
from store.engine import Call, Each, Engine, Notify, Put, Script
from store.moves import Move, moved
from store.prepared import Bulk, Prepared
from store.run_rows import noted
from store.runs import RUNS
from store.tables import invocations, pollers, runs
from store.texts import kept

_ACCEPTED = frozenset({State.ACCEPTED})
_OFFERS = Prepared(
    select(
        invocations.c.seq,
        invocations.c.id,
        invocations.c.event_id,
        invocations.c.attempts,
        invocations.c.tries,
        runs.c.span_ms,
        runs.c.ends_ms + bindparam("now") - runs.c.begun_ms,
        runs.c.notes,
        runs.c.offer,
    )
    .join(runs, runs.c.invocation_seq == invocations.c.seq)
    .where(
        runs.c.team == bindparam("team_"),
        runs.c.agent == bindparam("agent_"),
        runs.c.ended_ms == 0,
        runs.c.waiting == 1,
        invocations.c.state == State.ACCEPTED.value,
        invocations.c.reason == OFFERED,
    )
    .order_by(runs.c.invocation_seq)
    .limit(bindparam("limit_"))
    .with_for_update(of=invocations, skip_locked=True),
    *("now", "team_", "agent_", "limit_"),
)
_FETCH = Prepared(
    update(runs)
    .where(runs.c.invocation_seq == bindparam("seq_"))
    .values(
        waiting=0, offer=None, worker=bindparam("worker_"), begun_ms=bindparam("now"), lease_ms=bindparam("lease"),
        ends_ms=bindparam("ends"), beat_ms=bindparam("now"),
    ),
    *("worker_", "now", "lease", "ends", "seq_"),
)  # fmt: skip
_WAIT = Bulk(
    pollers,
    *("team", "agent", "id", "want", "until_ms"),
    then="ON CONFLICT (team, agent, id) DO UPDATE SET want = excluded.want, until_ms = excluded.until_ms",
)
_LEAVE = Prepared(
    delete(pollers).where(
        pollers.c.team == bindparam("team_"),
        pollers.c.agent == bindparam("agent_"),
        case((pollers.c.id == bindparam("id_"), True), else_=pollers.c.until_ms < bindparam("now")),
    ),
    *("team_", "agent_", "id_", "now"),
)


@dataclass(frozen=True, slots=True)
class Poller:
    """Somebody who waits for an agent's work; `id` is its own, `worker` is what it calls itself."""

    team: str
    agent: str
    id: str
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A run that its agent just fetched; `document` is what a webhook agent would have been sent."""

    invocation_id: str
    event_id: str
    number: int
    lease_ms: int
    ends_ms: int
    document: bytes


async def take(engine: Engine, who: Poller, *, limit: int, now_ms: int) -> list[Fetched]:
    """Up to `limit` offers of the agent, the oldest first; they are this caller's runs from now on."""
    return await engine.write(lambda: _taken(who, limit, now_ms))


def _taken(who: Poller, limit: int, now_ms: int) -> Script[list[Fetched]]:
    taken: list[Fetched] = []
    moves, fetches = [], []
    rows = yield Call(_OFFERS, (now_ms, who.team, who.agent, limit))
    for seq, ident, event_id, number, tries, span_ms, ends_ms, _, offer in rows:
        lease_ms = min(now_ms + span_ms, ends_ms)
        taken.append(Fetched(ident, event_id, number, lease_ms, ends_ms, bytes(offer)))
        moves.append(Move(ident, State.ACCEPTED, "", now_ms, due_ms=lease_ms, tries=tries + 1, froms=_ACCEPTED))
        fetches.append((kept(who.worker), now_ms, lease_ms, ends_ms, seq))
    if not taken:
        return []
    yield from moved(moves)
    yield Each(_FETCH, fetches)
    for seq, _, _, number, _, _, _, notes, _ in rows:
        yield from noted(seq, notes, number=number, at_ms=now_ms, kind="fetched", detail=who.worker)
    yield Call(_LEAVE, (who.team, who.agent, who.id, now_ms))
    yield Notify(RUNS, f"{who.team}/{who.agent}")
    return taken


async def wait_for_work(engine: Engine, who: Poller, *, want: int, until_ms: int) -> None:
    """Say that somebody waits for so many of the agent's invocations, until then at the longest."""

    def script() -> Script[None]:
        yield Put(_WAIT, [(who.team, who.agent, who.id, want, until_ms)])
        yield Notify(RUNS, f"{who.team}/{who.agent}")

    await engine.write(script)


async def leave(engine: Engine, who: Poller, *, now_ms: int) -> None:
    """Nobody waits there any more."""

    def script() -> Script[None]:
        yield Call(_LEAVE, (who.team, who.agent, who.id, now_ms))
        yield Notify(RUNS, f"{who.team}/{who.agent}")

    await engine.write(script)
