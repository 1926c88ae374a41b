"""The audit: what operators did, each line chained to the one before it by SHA-256; all SQL of `audit`.

    hash = SHA-256(previous hash | the line's fields, each preceded by its length)

A team's lines form one chain that begins at 64 zeros.  An edit, a deletion, an insertion or another order breaks it; a cut tail
shows against a head that was kept elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from sqlalchemy import bindparam, insert, select

from store.engine import Call, Engine, Script, fetch
from store.prepared import Prepared
from store.tables import audit
from store.versions import raised

BEGINNING = "0" * 64
_COLUMNS = ("seq", "at_ms", "team", "actor", "act", "object", "detail", "prev_hash", "hash")
_WANTED = [audit.c[name] for name in _COLUMNS]
_ADDED = _COLUMNS[1:]
_ADD = Prepared(insert(audit).values({name: bindparam(f"{name}_") for name in _ADDED}), *(f"{name}_" for name in _ADDED))
_HEAD = Prepared(
    select(audit.c.hash).where(audit.c.team == bindparam("team_")).order_by(audit.c.seq.desc()).limit(1),
    "team_",
)
_PAGE = Prepared(
    select(*_WANTED)
    .where(audit.c.team == bindparam("team_"), audit.c.seq > bindparam("after"))
    .order_by(audit.c.seq)
    .limit(bindparam("limit_")),
    "team_",
    "after",
    "limit_",
)
_LAST = Prepared(
    select(*_WANTED)
    .where(audit.c.team == bindparam("team_"), audit.c.seq < bindparam("before"))
    .order_by(audit.c.seq.desc())
    .limit(bindparam("limit_")),
    "team_",
    "before",
    "limit_",
)
_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Act:
    """What someone did.  `detail` is for people and holds no secret."""

    team: str
    actor: str
    act: str
    object: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class AuditLine:
    """A kept line of the audit."""

    seq: int
    at_ms: int
    team: str
    actor: str
    act: str
    object: str
    detail: str
    prev_hash: str
    hash: str


def line_hash(previous: str, act: Act, at_ms: int) -> str:
    """The hash of a line that follows `previous`."""
    hasher = hashlib.sha256()
    for part in (previous, str(at_ms), act.team, act.actor, act.act, act.object, act.detail):
        encoded = part.encode()
        hasher.update(len(encoded).to_bytes(8, "big") + encoded)
    return hasher.hexdigest()


def audited(act: Act, *, at_ms: int) -> Script[None]:
    """Part of a script: add a line to the team's chain."""
    act = replace(act, detail=act.detail.replace("\0", "\ufffd"))  # PostgreSQL's text holds no NUL
    # Raising the counter locks its row, so that two writers of PostgreSQL cannot both follow the same line.
    yield from raised(f"audit/{act.team}")
    head = yield Call(_HEAD, (act.team,))
    previous = head[0][0] if head else BEGINNING
    line = (at_ms, act.team, act.actor, act.act, act.object, act.detail, previous, line_hash(previous, act, at_ms))
    yield Call(_ADD, line)


async def audit_page(engine: Engine, team: str, *, before: int, limit: int) -> list[AuditLine]:
    """The last lines of a team before line `before`, newest first."""
    return [AuditLine(*row) for row in await fetch(engine, _LAST, team, before, limit)]


def break_in(lines: Iterable[AuditLine], *, previous: str = BEGINNING) -> AuditLine | None:
    """The first line that does not follow from the one before it; None where the chain is whole."""
    for line in lines:
        act = Act(line.team, line.actor, line.act, line.object, line.detail)
        if line.prev_hash != previous or line.hash != line_hash(previous, act, line.at_ms):
            return line
        previous = line.hash
    return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look at a whole chain gave: `broken_at` is the first line that does not fit (0: whole), `head` the last hash."""

    lines: int
    head: str
    broken_at: int


async def verify_audit(engine: Engine, team: str) -> Verdict:
    """Read a team's whole chain and check it."""
    count, after, head = 0, 0, BEGINNING
    while True:
        lines = await _lines_after(engine, team, after)
        broken = break_in(lines, previous=head)
        if broken:
            return Verdict(count, head, broken.seq)
        if not lines:
            return Verdict(count, head, 0)
        count, after, head = count + len(lines), lines[-1].seq, lines[-1].hash


async def _lines_after(engine: Engine, team: str, after: int) -> list[AuditLine]:
    return [AuditLine(*row) for row in await fetch(engine, _PAGE, team, after, _CHUNK)]


async def keep_act(engine: Engine, act: Act, *, at_ms: int) -> None:
    """Add a line to the audit in a transaction of its own: for acts whose rows another room's transaction changed."""
    await engine.write(lambda: audited(act, at_ms=at_ms))
