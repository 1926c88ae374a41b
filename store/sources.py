"""Sources: all SQL of `sources`, and ingest's view of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import SecretStr
from sqlalchemy import bindparam, delete, insert, select, update

from schemas.config import SourceConfig, SourceSpec
from schemas.errors import SecretsUnavailable
from store.engine import Call, Engine, Script
from store.prepared import Prepared
from store.tables import SOURCES, sources
from store.vault import Vault
from store.versions import number_of, raised

_COLUMNS = ("uid", "team", "name", "provider", "spec", "sealed", "managed_by", "created_ms", "updated_ms")
_WANTED = [sources.c[name] for name in _COLUMNS]
_ALL = Prepared(select(*_WANTED).order_by(sources.c.team, sources.c.name))
_OF_TEAM = Prepared(select(*_WANTED).where(sources.c.team == bindparam("team_")).order_by(sources.c.name), "team_")
_ADD = Prepared(insert(sources).values({name: bindparam(f"{name}_") for name in _COLUMNS}), *(f"{name}_" for name in _COLUMNS))
_MENDED = ("provider", "spec", "sealed", "managed_by", "updated_ms")
_MEND = Prepared(
    update(sources).where(sources.c.uid == bindparam("uid_")).values({name: bindparam(f"{name}_") for name in _MENDED}),
    *(f"{name}_" for name in _MENDED),
    "uid_",
)
_DROP = Prepared(delete(sources).where(sources.c.uid == bindparam("uid_")), "uid_")


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A source as it is kept: `spec` is JSON without secrets, `sealed` holds them."""

    uid: str
    team: str
    name: str
    provider: str
    spec: str
    sealed: bytes
    managed_by: str
    created_ms: int
    updated_ms: int

    @property
    def public(self) -> dict[str, Any]:
        """What was written, without secrets, with today's defaults for what was left out."""
        return public_spec(SourceSpec.model_validate_json(self.spec))


def public_spec(spec: SourceSpec) -> dict[str, Any]:
    """The spec as JSON, without secrets."""
    return spec.model_dump(mode="json", exclude={"secrets", "password"})


def secrets_of(spec: SourceSpec) -> dict[str, Any]:
    """The spec's secrets in the clear."""
    password = spec.password.get_secret_value() if spec.password else None
    return {"secrets": [secret.get_secret_value() for secret in spec.secrets], "password": password}


def sealed_secrets(vault: Vault, uid: str, secrets: Mapping[str, Any]) -> bytes:
    """`secrets_of` a spec, sealed for the source `uid`."""
    return vault.seal(json.dumps(secrets).encode(), context=f"source/{uid}")


def unsealed_secrets(vault: Vault, row: SourceRow) -> dict[str, Any]:
    """What was sealed.  Raises `SecretsUnavailable`."""
    found: dict[str, Any] = json.loads(vault.unseal(row.sealed, context=f"source/{row.uid}"))
    return found


def source_rows(team: str) -> Script[dict[str, SourceRow]]:
    """Part of a script: a team's sources, by name."""
    rows = yield Call(_OF_TEAM, (team,))
    return {row.name: row for row in (SourceRow(*raw) for raw in rows)}


def add_source(row: SourceRow) -> Script[None]:
    """Part of a script: a new source."""
    yield Call(_ADD, tuple(getattr(row, name) for name in _COLUMNS))


def mend_source(row: SourceRow) -> Script[None]:
    """Part of a script: write what may change of a source."""
    yield Call(_MEND, (*(getattr(row, name) for name in _MENDED), row.uid))


def drop_source(uid: str) -> Script[None]:
    """Part of a script: a source is gone."""
    yield Call(_DROP, (uid,))


class Sources:
    """The sources as the book reads them.  Implements `ingest.ports.SourceShelf`."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine, self._vault = engine, vault

    async def version(self) -> int:
        """A number that changes with every change of a source."""
        return await number_of(self._engine, SOURCES)

    async def sources(self) -> list[SourceConfig]:
        """All sources of all teams, secrets in the clear; one whose secrets do not open has none, so it accepts nothing."""
        return [self._config(row) for row in await self._engine.read(all_source_rows)]

    async def of_team(self, team: str) -> dict[str, SourceRow]:
        """A team's sources, by name."""
        return await self._engine.read(lambda: source_rows(team))

    async def keep_secret(self, team: str, source: str, secret: str, *, now_ms: int) -> bool:
        """Keep, sealed, the secret that a vendor brought in a handshake; False where the source has one already."""

        def script() -> Script[bool]:
            row = (yield from source_rows(team)).get(source)
            if row is None:
                return False
            try:
                secrets = unsealed_secrets(self._vault, row)
            except SecretsUnavailable:
                return False
            if secrets["secrets"]:
                return False
            sealed = sealed_secrets(self._vault, row.uid, {**secrets, "secrets": [secret]})
            yield from mend_source(replace(row, sealed=sealed, updated_ms=now_ms))
            yield from raised(SOURCES)
            return True

        return await self._engine.write(script)

    def _config(self, row: SourceRow) -> SourceConfig:
        spec = SourceSpec.model_validate_json(row.spec)
        try:
            secrets = unsealed_secrets(self._vault, row)
        except SecretsUnavailable:
            return SourceConfig(row.team, row.name, row.uid, spec)
        password = SecretStr(secrets["password"]) if secrets["password"] is not None else None
        opened = {"secrets": tuple(SecretStr(secret) for secret in secrets["secrets"]), "password": password}
        return SourceConfig(row.team, row.name, row.uid, spec.model_copy(update=opened))


def all_source_rows() -> Script[list[SourceRow]]:
    """Part of a script: the sources of all teams."""
    rows = yield Call(_ALL)
    return [SourceRow(*raw) for raw in rows]
