"""Named secrets of a team, sealed: what the headers of lookups ask for as `${secret.NAME}`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, delete, select

from schemas.errors import NotFound
from store.audit import Act, audited
from store.engine import Call, Change, Engine, Put, Script, fetch
from store.prepared import Bulk, Prepared
from store.tables import credentials
from store.vault import Vault

_ONE = Prepared(
    select(credentials.c.sealed).where(credentials.c.team == bindparam("team_"), credentials.c.name == bindparam("name_")),
    *("team_", "name_"),
)
_OF_TEAM = Prepared(
    select(credentials.c.name, credentials.c.updated_ms)
    .where(credentials.c.team == bindparam("team_"))
    .order_by(credentials.c.name),
    "team_",
)
_ALL = Prepared(select(credentials.c.team, credentials.c.name, credentials.c.sealed, credentials.c.updated_ms))
_KEEP = Bulk(
    credentials,
    *("team", "name", "sealed", "updated_ms"),
    then="ON CONFLICT (team, name) DO UPDATE SET sealed = excluded.sealed, updated_ms = excluded.updated_ms",
)
_DROP = Prepared(
    delete(credentials).where(credentials.c.team == bindparam("team_"), credentials.c.name == bindparam("name_")),
    *("team_", "name_"),
)


@dataclass(frozen=True, slots=True)
class CredentialRow:
    """A named secret, without its value."""

    name: str
    updated_ms: int


class Credentials:
    """The named secrets."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine, self._vault = engine, vault

    async def secret(self, *, team: str, name: str) -> str:
        """The secret's value.  Raises `NotFound`, `SecretsUnavailable`."""
        rows = await fetch(self._engine, _ONE, team, name)
        if not rows:
            raise NotFound(f"there is no secret `{name}`")
        return self._vault.unseal(rows[0][0], context=_place(team, name)).decode()

    async def names(self, team: str) -> list[CredentialRow]:
        """A team's secrets, by name."""
        return [CredentialRow(*row) for row in await fetch(self._engine, _OF_TEAM, team)]

    async def put(self, *, team: str, name: str, value: str, actor: str, now_ms: int) -> None:
        """Keep a secret, in the place of the one of that name."""
        sealed = self._vault.seal(value.encode(), context=_place(team, name))
        await self._engine.write(lambda: _put((team, name, sealed, now_ms), actor))

    async def drop(self, *, team: str, name: str, actor: str, now_ms: int) -> None:
        """Forget a secret.  Raises `NotFound`."""
        await self._engine.write(lambda: _dropped(team, name, actor, now_ms))


def resealed(vault: Vault) -> Script[int]:
    """Seal anew what an older master key sealed; gives how many."""
    count = 0
    for team, name, sealed, updated_ms in (yield Call(_ALL, ())):
        if not vault.is_current(sealed):
            plain = vault.unseal(sealed, context=_place(team, name))
            yield Put(_KEEP, [(team, name, vault.seal(plain, context=_place(team, name)), updated_ms)])
            count += 1
    return count


def _place(team: str, name: str) -> str:
    return f"credential/{team}/{name}"


def _put(row: tuple[str, str, bytes, int], actor: str) -> Script[None]:
    team, name, _, now_ms = row
    yield Put(_KEEP, [row])
    yield from audited(Act(team, actor, "secrets.put", f"secret/{name}"), at_ms=now_ms)


def _dropped(team: str, name: str, actor: str, now_ms: int) -> Script[None]:
    if not (yield Change(_DROP, (team, name))):
        raise NotFound(f"there is no secret `{name}`")
    yield from audited(Act(team, actor, "secrets.delete", f"secret/{name}"), at_ms=now_ms)
