"""API keys: all SQL of `api_keys`.  Only a key's SHA-256 and its first characters are kept."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sqlalchemy import bindparam, insert, or_, select, update

from schemas.errors import NotFound
from schemas.ids import random_id
from store.audit import Act, audited
from store.engine import Call, Change, Engine, Script, fetch
from store.prepared import Prepared
from store.tables import api_keys
from store.versions import KEYS, number_of, raised

_COLUMNS = ("id", "team", "name", "role", "hash", "prefix", "agent", "created_ms", "expires_ms", "revoked_ms", "last_used_ms")
_WANTED = [api_keys.c[name] for name in _COLUMNS]
_ADD = Prepared(insert(api_keys).values({name: bindparam(f"{name}_") for name in _COLUMNS}), *(f"{name}_" for name in _COLUMNS))
_LIVE = Prepared(select(*_WANTED).where(api_keys.c.revoked_ms == 0))
_OF_TEAM = Prepared(
    select(*_WANTED).where(api_keys.c.team == bindparam("team_")).order_by(api_keys.c.created_ms, api_keys.c.id), "team_"
)
_REVOKE = Prepared(
    update(api_keys)
    .where(api_keys.c.team == bindparam("team_"), api_keys.c.revoked_ms == 0)
    .where(or_(api_keys.c.id == bindparam("id_"), api_keys.c.name == bindparam("id_")))
    .values(revoked_ms=bindparam("now_")),
    "now_",
    "team_",
    "id_",
)


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it is kept; `hash` is the SHA-256 of the whole key.  `expires_ms` 0 is never, `revoked_ms` 0 not revoked."""

    id: str
    team: str
    name: str
    role: str
    hash: bytes
    prefix: str
    agent: str
    created_ms: int
    expires_ms: int
    revoked_ms: int
    last_used_ms: int


class Keys:
    """The API keys of all teams."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def version(self) -> int:
        """A number that changes with every key that is made or revoked."""
        return await number_of(self._engine, KEYS)

    async def live(self) -> list[KeyRow]:
        """All keys that are not revoked, expired ones included."""
        return [KeyRow(*raw) for raw in await fetch(self._engine, _LIVE)]

    async def of_team(self, team: str) -> list[KeyRow]:
        """A team's keys, oldest first, revoked ones included."""
        return [KeyRow(*raw) for raw in await fetch(self._engine, _OF_TEAM, team)]

    async def add(self, key: KeyRow, *, actor: str) -> None:
        """Keep a new key."""

        def script() -> Script[None]:
            yield Call(_ADD, tuple(getattr(key, name) for name in _COLUMNS))
            yield from raised(KEYS)
            detail = f"{key.role} key {key.prefix}…"
            yield from audited(Act(key.team, actor, "keys.create", f"key/{key.name}", detail), at_ms=key.created_ms)

        await self._engine.write(script)

    async def revoke(self, team: str, key: str, *, actor: str, now_ms: int) -> int:
        """Revoke the live key with that id, or all with that name; gives how many.  Raises `NotFound`."""

        def script() -> Script[int]:
            count: int = yield Change(_REVOKE, (now_ms, team, key))
            if not count:
                raise NotFound(f"there is no live key `{key}`")
            yield from raised(KEYS)
            yield from audited(Act(team, actor, "keys.revoke", f"key/{key}"), at_ms=now_ms)
            return count

        return await self._engine.write(script)


def new_key_id() -> str:
    """A fresh id for a key."""
    return random_id("key_", os.urandom(17))
