"""Rows of runs: the statements that begin, end and annotate them, for the scripts that move their invocations."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, case, update

from store.engine import Change, Each, Notify, Put, Script
from store.prepared import Bulk, Prepared
from store.tables import attempts, run_notes, runs
from store.texts import kept

OFFERS = "offers"  # the channel on which who waits for an agent's work hears that there is some: `team/agent`
NOTES = 64  # how many lines of a run are kept
_LONGEST_DETAIL = 2_000
_SAME = "CASE WHEN runs.number = excluded.number THEN runs."
# What a run of an earlier attempt left goes, but for its checkpoint; what came early for this one stays.
_BEGIN = Bulk(
    runs,
    *("invocation_seq", "number", "team", "agent", "begun_ms", "waiting", "lease_ms", "span_ms", "ends_ms", "offer"),
    then="ON CONFLICT (invocation_seq) DO UPDATE SET number = excluded.number, agent = excluded.agent, "
    "begun_ms = excluded.begun_ms, "
    "waiting = excluded.waiting, lease_ms = excluded.lease_ms, span_ms = excluded.span_ms, ends_ms = excluded.ends_ms, "
    f"offer = excluded.offer, beats = {_SAME}beats ELSE 0 END, beat_ms = {_SAME}beat_ms ELSE 0 END, "
    f"signal = {_SAME}signal ELSE '' END, worker = '', ended_ms = 0, verdict = '', note = '', report = ''",
)
_END = Prepared(
    update(runs)
    .where(runs.c.invocation_seq == bindparam("seq_"))
    .values(
        ended_ms=bindparam("ended"), verdict=bindparam("verdict_"), note=bindparam("note_"), report=bindparam("report_"),
        signal="", waiting=0, offer=None,
    ),
    *("ended", "verdict_", "note_", "report_", "seq_"),
)  # fmt: skip
_FORGET_SIGNAL = Prepared(
    update(runs).where(runs.c.invocation_seq == bindparam("seq_"), runs.c.signal != "").values(signal=""), "seq_"
)
_NOTE = Bulk(
    run_notes,
    *("invocation_seq", "place", "number", "at_ms", "kind", "detail"),
    then="ON CONFLICT (invocation_seq, place) DO UPDATE SET number = excluded.number, at_ms = excluded.at_ms, "
    "kind = excluded.kind, detail = excluded.detail",
)
_NOTED = Prepared(update(runs).where(runs.c.invocation_seq == bindparam("seq_")).values(notes=runs.c.notes + 1), "seq_")
_JUDGE = Prepared(
    update(attempts)
    .where(attempts.c.invocation_seq == bindparam("seq_"), attempts.c.number == bindparam("no"))
    .values(
        ended_ms=case((attempts.c.ended_ms == 0, bindparam("at")), else_=attempts.c.ended_ms),
        outcome=bindparam("came_out"),
        error=bindparam("error_"),
    ),
    *("at", "came_out", "error_", "seq_", "no"),
)

Begin = tuple[int, int, str, str, int, int, int, int, int, bytes | None]  # as the columns of `_BEGIN`
End = tuple[int, str, str, str, int]  # when, verdict, note, report, seq


def begun(rows: Sequence[Begin]) -> Script[None]:
    """Part of a script: these runs begin."""
    yield Put(_BEGIN, rows)
    for whose in sorted({f"{row[2]}/{row[3]}" for row in rows if row[5]}):
        yield Notify(OFFERS, whose)


def ended(rows: Sequence[End]) -> Script[None]:
    """Part of a script: these runs are over."""
    yield Each(_END, [(at_ms, verdict, kept(note), report, seq) for at_ms, verdict, note, report, seq in rows])


def judged(rows: Sequence[tuple[int, str, str, int, int]]) -> Script[None]:
    """Part of a script: what came of attempts (when, word, why, seq, number) whose runs are over; open ones are closed."""
    yield Each(_JUDGE, [(at_ms, word, kept(why), seq, number) for at_ms, word, why, seq, number in rows])


def noted(seq: int, count: int, *, number: int, at_ms: int, kind: str, detail: str) -> Script[None]:
    """Part of a script: keep a line about a run, in the place of the oldest; `count` is how many it had."""
    yield Put(_NOTE, [(seq, count % NOTES, number, at_ms, kind, kept(detail)[:_LONGEST_DETAIL])])
    yield Change(_NOTED, (seq,))


def signals_forgotten(seqs: Sequence[int]) -> Script[None]:
    """Part of a script: what was asked of the runs before counts no more."""
    yield Each(_FORGET_SIGNAL, [(seq,) for seq in seqs])
