"""How far replays and redrives by query are: all SQL of `progress`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, insert, select, update

from store.audit import Act, audited
from store.engine import Call, Engine, Script, change, fetch
from store.prepared import Prepared
from store.tables import progress

REPLAY, REDRIVE, PURGE = "replay", "redrive", "purge"
RUNNING, DONE, FAILED = "running", "done", "failed"
_COLUMNS = (
    "id", "team", "kind", "query", "state", "reason", "actor", "total", "done", "position", "created_ms", "updated_ms",
)  # fmt: skip
_WANTED = [progress.c[name] for name in _COLUMNS]
_ADD = Prepared(insert(progress).values({name: bindparam(f"{name}_") for name in _COLUMNS}), *(f"{name}_" for name in _COLUMNS))
_ONE = Prepared(
    select(*_WANTED).where(progress.c.team == bindparam("team_"), progress.c.id == bindparam("id_")), "team_", "id_"
)
_RUNNING = Prepared(select(*_WANTED).where(progress.c.state == RUNNING).order_by(progress.c.created_ms, progress.c.id))
_ADVANCE = Prepared(
    update(progress)
    .where(progress.c.id == bindparam("id_"), progress.c.state == RUNNING)
    .values(
        done=bindparam("done_"),
        position=bindparam("position_"),
        state=bindparam("next_"),
        reason=bindparam("reason_"),
        updated_ms=bindparam("now_"),
    ),
    "done_",
    "position_",
    "next_",
    "reason_",
    "now_",
    "id_",
)


@dataclass(frozen=True, slots=True)
class Progress:
    """A replay or redrive by query.  `query` is JSON; `position` is the `seq` of the last row that was dealt with, as text."""

    id: str
    team: str
    kind: str
    query: str
    state: str
    reason: str
    actor: str
    total: int
    done: int
    position: str
    created_ms: int
    updated_ms: int


async def begin(engine: Engine, begun: Progress) -> None:
    """Keep a new one, with its line in the audit."""

    def script() -> Script[None]:
        yield Call(_ADD, tuple(getattr(begun, name) for name in _COLUMNS))
        act = Act(begun.team, begun.actor, f"{begun.kind}s.create", f"{begun.kind}/{begun.id}", begun.query)
        yield from audited(act, at_ms=begun.created_ms)

    await engine.write(script)


async def progress_of(engine: Engine, team: str, progress_id: str) -> Progress | None:
    """One of a team's; None where there is none."""
    rows = await fetch(engine, _ONE, team, progress_id)
    return Progress(*rows[0]) if rows else None


async def unfinished(engine: Engine) -> list[Progress]:
    """All that still run, oldest first: after a restart they go on where they were."""
    return [Progress(*row) for row in await fetch(engine, _RUNNING)]


async def advance(
    engine: Engine, progress_id: str, *, done: int, position: str, now_ms: int, state: str = RUNNING, reason: str = ""
) -> bool:
    """Note how far it is; False where it no longer runs."""
    return bool(await change(engine, _ADVANCE, done, position, state, reason, now_ms, progress_id))
