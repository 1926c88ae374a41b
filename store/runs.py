"""Runs under supervision as people read them, and as the owner of their shard asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import bindparam, case, func, select, update

from schemas.invocation import State, Wait
from schemas.ledger import Head, OpenRuns, Stall
from schemas.runs import CANCELED
from store.engine import Call, Engine, Script, fetch
from store.heads import heads_of
from store.moves import Move, moved
from store.prepared import Prepared, among
from store.run_rows import ended, noted
from store.shards import epochs_of
from store.tables import invocations, pollers, run_notes, runs

RunsOf = tuple[str, str, int]  # team, agent, shard
RUNS = "runs"  # the channel on which owners hear that an agent's runs changed, or that it waits for work: `team/agent`
_WAITERS = frozenset({State.QUEUED, State.WAITING})

RUN_COLUMNS = (
    "number", "begun_ms", "waiting", "lease_ms", "span_ms", "ends_ms", "beats", "beat_ms", "signal", "worker", "checkpoint",
    "checkpoint_ms", "tried", "blocked", "next", "status_ms", "notes", "ended_ms", "verdict", "note", "report",
)  # fmt: skip
_OF = Prepared(
    select(runs.c.invocation_seq, *(runs.c[name] for name in RUN_COLUMNS)).where(among(runs.c.invocation_seq, "seqs")), "seqs"
)
_NOTES_OF = Prepared(
    select(run_notes.c.invocation_seq, run_notes.c.number, run_notes.c.at_ms, run_notes.c.kind, run_notes.c.detail)
    .where(among(run_notes.c.invocation_seq, "seqs"))
    .order_by(run_notes.c.invocation_seq, run_notes.c.at_ms),
    "seqs",
)
_OPEN = Prepared(
    select(runs.c.team, runs.c.agent, invocations.c.shard, invocations.c.id, runs.c.waiting)
    .join(invocations, invocations.c.seq == runs.c.invocation_seq)
    .where(
        among(runs.c.agent, "agents"),
        runs.c.team == bindparam("team_"),
        runs.c.ended_ms == 0,
        runs.c.begun_ms > 0,
        invocations.c.state == State.ACCEPTED.value,
    ),
    *("team_", "agents"),
)
_WANTED = Prepared(
    select(pollers.c.agent, func.sum(pollers.c.want))
    .where(pollers.c.team == bindparam("team_"), among(pollers.c.agent, "agents"), pollers.c.until_ms > bindparam("now"))
    .group_by(pollers.c.agent),
    *("team_", "agents", "now"),
)
_end = case((runs.c.lease_ms < runs.c.ends_ms, runs.c.lease_ms), else_=runs.c.ends_ms)
_OVER = Prepared(
    select(invocations.c.lane, invocations.c.agent, invocations.c.shard)
    .join(runs, invocations.c.seq == runs.c.invocation_seq)
    .where(
        runs.c.team == bindparam("team_"),
        among(runs.c.agent, "agents"),
        runs.c.ended_ms == 0,
        runs.c.begun_ms > 0,
        _end <= bindparam("now"),
        invocations.c.state == State.ACCEPTED.value,
    )
    .order_by(_end)
    .limit(bindparam("limit_")),
    *("team_", "agents", "now", "limit_"),
)
_FOR_STALL = Prepared(
    select(invocations.c.seq, invocations.c.state, invocations.c.attempts, runs.c.number, _end, runs.c.signal, runs.c.begun_ms)
    .join(runs, runs.c.invocation_seq == invocations.c.seq)
    .where(invocations.c.id == bindparam("id_"))
    .with_for_update(of=invocations),
    "id_",
)
_GRACE = Prepared(
    update(runs)
    .where(runs.c.ended_ms == 0, runs.c.waiting == 0, runs.c.lease_ms < bindparam("now") + runs.c.span_ms)
    .values(lease_ms=bindparam("now") + runs.c.span_ms),
    "now",
)
_FORGET_POLLERS = Prepared(update(pollers).values(until_ms=0))


@dataclass(frozen=True, slots=True)
class RunRow:
    """A kept run.  `ended_ms` is 0 while it is open, `begun_ms` where something was kept of an attempt that is no run."""

    invocation_seq: int
    number: int
    begun_ms: int
    waiting: int
    lease_ms: int
    span_ms: int
    ends_ms: int
    beats: int
    beat_ms: int
    signal: str
    worker: str
    checkpoint: str
    checkpoint_ms: int
    tried: str
    blocked: str
    next: str
    status_ms: int
    notes: int
    ended_ms: int
    verdict: str
    note: str
    report: str


class NoteRow(NamedTuple):
    """A line about a run."""

    invocation_seq: int
    number: int
    at_ms: int
    kind: str
    detail: str


async def runs_of(engine: Engine, seqs: list[int]) -> dict[int, RunRow]:
    """The last runs of these invocations, by their `seq`; those that never had one are not there."""
    return {row[0]: RunRow(*row) for row in await fetch(engine, _OF, seqs)} if seqs else {}


async def notes_of(engine: Engine, seqs: list[int]) -> dict[int, list[NoteRow]]:
    """The lines about the runs of these invocations, by their `seq`, each in order."""
    found: dict[int, list[NoteRow]] = {}
    for row in await fetch(engine, _NOTES_OF, seqs) if seqs else ():
        found.setdefault(row[0], []).append(NoteRow(*row))
    return found


def leases_renewed(now_ms: int) -> Script[None]:
    """Part of a script: nobody could take heartbeats for a while, so every open run has its whole lease again."""
    yield Call(_GRACE, (now_ms,))
    yield Call(_FORGET_POLLERS)


async def open_ids(engine: Engine, team: str, agent: str) -> set[str]:
    """The invocations of an agent that have an open run."""
    return {row[3] for row in await fetch(engine, _OPEN, team, [agent])}


# --- what the shard's owner asks and does ------------------------------------------------------------------------------------


def open_runs(parts: Sequence[RunsOf], now_ms: int) -> Script[dict[RunsOf, OpenRuns]]:
    """The open runs of these (team, agent, shard), on one snapshot with what their agents' pollers want."""
    runs_by: dict[RunsOf, set[str]] = {part: set() for part in parts}
    unfetched: dict[RunsOf, set[str]] = {part: set() for part in parts}
    wanted: dict[tuple[str, str], int] = {}
    for team, names in _by_team(parts):
        for _, agent, shard, ident, is_waiting in (yield Call(_OPEN, (team, names))):
            if (team, agent, shard) in runs_by:
                runs_by[team, agent, shard].add(ident)
                if is_waiting:
                    unfetched[team, agent, shard].add(ident)
        for agent, count in (yield Call(_WANTED, (team, names, now_ms))):
            wanted[team, agent] = int(count)
    return {part: OpenRuns(frozenset(runs_by[part]), frozenset(unfetched[part]), wanted.get(part[:2], 0)) for part in parts}


def over_runs(parts: Sequence[RunsOf], now_ms: int, limit: int) -> Script[list[tuple[Head, int]]]:
    """The heads whose runs are over without a report, the longest over first, at most `limit` a team."""
    wanted, lanes = set(parts), []
    for team, names in _by_team(parts):
        rows = yield Call(_OVER, (team, names, now_ms, limit))
        lanes += [lane for lane, agent, shard in rows if (team, agent, shard) in wanted]
    return (yield from heads_of(lanes))


def _by_team(parts: Sequence[RunsOf]) -> Iterator[tuple[str, list[str]]]:
    for team in sorted({team for team, _, _ in parts}):
        yield team, sorted({name for of, name, _ in parts if of == team})


def run_over(stall: Stall) -> Script[bool]:
    """End a run as its shard's owner decided, where it is ours and, but for a cancel, still over; whether it was."""
    epochs = yield from epochs_of({stall.shard})
    rows = yield Call(_FOR_STALL, (stall.invocation_id,))
    if not rows or epochs.get(stall.shard) != stall.epoch:
        return False
    seq, state, attempts, number, end_ms, signal, begun_ms = rows[0]
    is_its = attempts == number == stall.number
    is_canceled = stall.verdict == CANCELED and bool(signal) and (state in _WAITERS or end_ms <= stall.at_ms)
    if not is_its or not (is_canceled or (state == State.ACCEPTED and begun_ms and end_ms <= stall.at_ms)):
        return False
    move = Move(
        stall.invocation_id,
        stall.state,
        stall.reason,
        stall.at_ms,
        shard=stall.shard,
        epoch=stall.epoch,
        due_ms=stall.due_ms,
        tries=stall.tries,
        outcome=stall.verdict if stall.state is not State.QUEUED else "",
        froms=frozenset({State.ACCEPTED, State.QUEUED, State.WAITING}),
        attempt_outcome=stall.verdict if state == State.ACCEPTED else "",
        told={"run": stall.verdict} if stall.reason == Wait.HUMAN else None,
    )
    (was,) = yield from moved([move])
    if was:
        yield from ended([(stall.at_ms, stall.verdict, stall.reason, "", seq)])
        row = yield Call(_OF, ([seq],))
        detail = f"{stall.state.value}: {stall.reason}"
        yield from noted(seq, RunRow(*row[0]).notes, number=number, at_ms=stall.at_ms, kind=stall.verdict, detail=detail)
    return bool(was)
