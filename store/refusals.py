"""Refusals: requests that were not taken, for the operator; all SQL of `refusals`."""

# ruff: noqa: D102 - the properties of the protocol below say what they are by their names

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import bindparam, delete, func, insert, select

from store.engine import Each, Engine, Script, fetch
from store.prepared import Prepared
from store.tables import refusals

KEPT_PER_SOURCE = 100
_MOST_PER_MINUTE = 60  # of one source
_MOST_RATES = 10_000
_MOST_HEADERS, _LONGEST_VALUE = 64, 512
_COLUMNS = ("team", "source", "at_ms", "code", "step", "reason", "method", "headers", "body_digest", "body_bytes", "remote")
_WANTED = [refusals.c[name] for name in ("seq", *_COLUMNS)]
_ADD = Prepared(insert(refusals).values({name: bindparam(f"{name}_") for name in _COLUMNS}), *(f"{name}_" for name in _COLUMNS))
_of_source = (refusals.c.team == bindparam("team_"), refusals.c.source == bindparam("source_"))
_newest = select(refusals.c.seq).where(*_of_source).order_by(refusals.c.seq.desc())
_CAP = Prepared(
    delete(refusals).where(
        *_of_source, refusals.c.seq <= _newest.offset(bindparam("kept", KEPT_PER_SOURCE)).limit(1).scalar_subquery()
    ),
    "team_",
    "source_",
)
_LAST = Prepared(
    select(*_WANTED).where(*_of_source).order_by(refusals.c.seq.desc()).limit(bindparam("limit_")), "team_", "source_", "limit_"
)
_COUNTS = Prepared(
    select(refusals.c.source, func.count())
    .where(refusals.c.team == bindparam("team_"), refusals.c.at_ms >= bindparam("since_"))
    .group_by(refusals.c.source),
    "team_",
    "since_",
)


class Refusal(Protocol):
    """What ingest tells of a request that it did not take (`ingest.ports.Refusal`)."""

    @property
    def team(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def at_ms(self) -> int: ...
    @property
    def code(self) -> str: ...
    @property
    def step(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def headers(self) -> dict[str, str]: ...
    @property
    def body_digest(self) -> str: ...
    @property
    def body_bytes(self) -> int: ...
    @property
    def remote(self) -> str: ...


class _Rate:
    """How many refusals of one source are kept in the present minute."""

    __slots__ = ("count", "minute")

    def __init__(self) -> None:
        self.minute = self.count = 0

    def allows(self, at_ms: int) -> bool:
        minute = at_ms // 60_000
        if minute != self.minute:
            self.minute, self.count = minute, 0
        self.count += 1
        return self.count <= _MOST_PER_MINUTE


@dataclass(frozen=True, slots=True)
class KeptRefusal:
    """A refusal as it is kept."""

    seq: int
    team: str
    source: str
    at_ms: int
    code: str
    step: str
    reason: str
    method: str
    headers: str
    body_digest: str
    body_bytes: int
    remote: str


class Refusals:
    """Keeps refusals, capped in number and rate.  Implements `ingest.ports.RefusalShelf`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rates: dict[tuple[str, str], _Rate] = {}

    async def keep(self, refusals: Sequence[Refusal]) -> None:
        """Keep them; of each source at most so many a minute, and the oldest beyond a cap go."""
        kept = [refusal for refusal in refusals if self._allows(refusal)]
        if kept:
            await self._engine.write(lambda: _keep(kept))

    async def last(self, team: str, source: str, *, limit: int = 20) -> list[KeptRefusal]:
        """The last refusals of a source, newest first."""
        return [KeptRefusal(*row) for row in await fetch(self._engine, _LAST, team, source, limit)]

    async def counts(self, team: str, *, since_ms: int) -> dict[str, int]:
        """How many kept refusals each source of a team has since then."""
        return {row[0]: row[1] for row in await fetch(self._engine, _COUNTS, team, since_ms)}

    def _allows(self, refusal: Refusal) -> bool:
        # The name of a source that is not there comes from outside: what is remembered about names is bounded.
        if len(self._rates) > _MOST_RATES:
            self._rates.clear()
        return self._rates.setdefault((refusal.team, refusal.source), _Rate()).allows(refusal.at_ms)


def _keep(kept: Sequence[Refusal]) -> Script[None]:
    yield Each(_ADD, [_line(refusal) for refusal in kept])
    yield Each(_CAP, sorted({(refusal.team, refusal.source) for refusal in kept}))


def _line(refusal: Refusal) -> tuple[object, ...]:
    shown = {name: value[:_LONGEST_VALUE] for name, value in list(refusal.headers.items())[:_MOST_HEADERS]}
    return tuple(json.dumps(shown) if name == "headers" else getattr(refusal, name) for name in _COLUMNS)
