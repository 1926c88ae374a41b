"""Facts about things, as agents and operators wrote them down: each change is a version, with who, when and in which run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, func, select

from schemas.errors import Conflict, Invalid
from store.engine import Call, Change, Engine, Put, Script
from store.prepared import Bulk, Prepared
from store.tables import facts

MOST_NAMES = 200  # of one thing
KEPT_VERSIONS = 20  # of one fact
_TRIES = 3
_NULL = "null"
_COLUMNS = ("name", "version", "value", "actor", "invocation_id", "at_ms", "expires_ms", "pinned")
_WANTED = [facts.c[name] for name in _COLUMNS]
_OF_THING = (facts.c.team == bindparam("team_"), facts.c.thing == bindparam("thing_"))
_OF_NAME = (*_OF_THING, facts.c.name == bindparam("name_"))
_later = facts.alias("later")
_IS_LAST = facts.c.version == (
    select(func.max(_later.c.version))
    .where(_later.c.team == facts.c.team, _later.c.thing == facts.c.thing, _later.c.name == facts.c.name)
    .correlate(facts)
    .scalar_subquery()
)
_CURRENT = Prepared(select(*_WANTED).where(*_OF_THING, _IS_LAST).order_by(facts.c.name), "team_", "thing_")
_VERSIONS = Prepared(
    select(*_WANTED).where(*_OF_NAME).order_by(facts.c.version.desc()).limit(KEPT_VERSIONS), "team_", "thing_", "name_"
)
_LAST_VERSION = Prepared(select(func.coalesce(func.max(facts.c.version), 0)).where(*_OF_NAME), "team_", "thing_", "name_")
_OTHER_NAMES = Prepared(
    select(func.count(facts.c.name.distinct())).where(*_OF_THING, facts.c.name != bindparam("name_")),
    "team_",
    "thing_",
    "name_",
)
_ADD = Bulk(facts, "team", "thing", *_COLUMNS)
_DROP_OLD = Prepared(
    delete(facts).where(*_OF_NAME, facts.c.version <= bindparam("until_")), *("team_", "thing_", "name_", "until_")
)


@dataclass(frozen=True, slots=True)
class FactRow:
    """One version of a fact.  A `value` of None takes the fact back."""

    name: str
    version: int
    value: Any
    by: str
    invocation_id: str
    at_ms: int
    expires_ms: int
    pinned: bool


@dataclass(frozen=True, slots=True)
class NewFact:
    """What somebody writes down.  `after` is the version that it follows; None: whatever is there."""

    team: str
    thing: str
    name: str
    value: Any
    by: str
    invocation_id: str = ""
    expires_ms: int = 0
    pinned: bool = False
    after: int | None = None


class Facts:
    """The facts of all things."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def about(self, *, team: str, thing: str, at_ms: int) -> list[FactRow]:
        """The current version of each fact about one thing that was not taken back and has not expired at `at_ms`."""
        rows = await self._engine.read(_reading(_CURRENT, (team, thing)))
        return [row for row in rows if row.value is not None and (not row.expires_ms or row.expires_ms > at_ms)]

    async def versions(self, *, team: str, thing: str, name: str) -> list[FactRow]:
        """The versions of one fact that are kept, newest first: who said what, when, in which run."""
        return await self._engine.read(_reading(_VERSIONS, (team, thing, name)))

    async def put(self, fact: NewFact, *, now_ms: int) -> FactRow:
        """Write a version.  Raises `Conflict` where `after` is not the last one, `Invalid` where there are too many facts."""
        for rest in range(_TRIES, 0, -1):
            try:
                return await self._engine.write(lambda: _put(fact, now_ms))
            except Conflict:
                if fact.after is not None or rest == 1:
                    raise  # else another one wrote the same version at the same time: this one follows it
        raise AssertionError("the last try returns or raises")


def _reading(prepared: Prepared, params: tuple[Any, ...]) -> Callable[[], Script[list[FactRow]]]:
    def script() -> Script[list[FactRow]]:
        return [_row(row) for row in (yield Call(prepared, params))]

    return script


def _row(row: Any) -> FactRow:
    name, version, value, by, invocation_id, at_ms, expires_ms, pinned = row
    return FactRow(name, version, json.loads(value or _NULL), by, invocation_id, at_ms, expires_ms, bool(pinned))


def _put(fact: NewFact, now_ms: int) -> Script[FactRow]:
    of_name = (fact.team, fact.thing, fact.name)
    last = (yield Call(_LAST_VERSION, of_name))[0][0]
    if fact.after is not None and fact.after != last:
        raise Conflict(f"the fact has version {last} by now, not {fact.after}", version=last)
    if not last and (yield Call(_OTHER_NAMES, of_name))[0][0] >= MOST_NAMES:
        raise Invalid(f"a thing has at most {MOST_NAMES} facts")
    made = FactRow(fact.name, last + 1, fact.value, fact.by, fact.invocation_id, now_ms, fact.expires_ms, fact.pinned)
    text = json.dumps(fact.value)
    row = (*of_name, made.version, text, made.by, made.invocation_id, now_ms, made.expires_ms, int(made.pinned))
    yield Put(_ADD, [row])
    yield Change(_DROP_OLD, (*of_name, made.version - KEPT_VERSIONS))
    return made
