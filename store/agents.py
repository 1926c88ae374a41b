"""Agents: all SQL of `agents`, and the secrets that calls to them are signed with."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, exists, func, insert, select, update

from schemas.config import AgentConfig, AgentSpec
from schemas.errors import SecretsUnavailable
from store.engine import Call, Engine, Script, fetch
from store.prepared import Prepared
from store.tables import agents, lanes
from store.vault import Vault

OVERLAP_MS = 24 * 3_600_000
_SECRET_BYTES = 32
_COLUMNS = ("uid", "team", "name", "shard", "spec", "sealed", "managed_by", "created_ms", "updated_ms")
_WANTED = [agents.c[name] for name in (*_COLUMNS, "hold", "hold_until_ms")]
_ALL = Prepared(select(*_WANTED).order_by(agents.c.team, agents.c.name))
_OF_TEAM = Prepared(select(*_WANTED).where(agents.c.team == bindparam("team_")).order_by(agents.c.name), "team_")
_ADD = Prepared(insert(agents).values({name: bindparam(f"{name}_") for name in _COLUMNS}), *(f"{name}_" for name in _COLUMNS))
_MENDED = ("spec", "sealed", "managed_by", "updated_ms")
_MEND = Prepared(
    update(agents).where(agents.c.uid == bindparam("uid_")).values({name: bindparam(f"{name}_") for name in _MENDED}),
    *(f"{name}_" for name in _MENDED),
    "uid_",
)
_BUSY = Prepared(
    select(agents.c.name).where(
        agents.c.team == bindparam("team_"), exists().where(lanes.c.team == agents.c.team, lanes.c.agent == agents.c.name)
    ),
    "team_",
)
_QUEUE = Prepared(
    select(func.count(), func.coalesce(func.sum(lanes.c.queued), 0)).where(
        lanes.c.team == bindparam("team_"), lanes.c.agent == bindparam("agent_")
    ),
    "team_",
    "agent_",
)
_DROP = Prepared(delete(agents).where(agents.c.uid == bindparam("uid_")), "uid_")


@dataclass(frozen=True, slots=True)
class AgentRow:
    """An agent as it is kept: `spec` is JSON without secrets and without its headers' values, `sealed` holds them."""

    uid: str
    team: str
    name: str
    shard: int
    spec: str
    sealed: bytes
    managed_by: str
    created_ms: int
    updated_ms: int
    hold: str = ""
    hold_until_ms: int = 0

    @property
    def public(self) -> dict[str, Any]:
        """What was written, without secrets, with today's defaults for what was left out."""
        return public_spec(AgentSpec.model_validate_json(self.spec))


class SigningSecret(NamedTuple):
    """One live secret.  `until_ms` is when it ends: 0 for the present one."""

    value: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class AgentSecrets:
    """What is sealed of an agent: its signing secrets, newest first, and the values of its headers."""

    signing: tuple[SigningSecret, ...]
    headers: dict[str, str]

    @property
    def present(self) -> str:
        """The newest signing secret."""
        return self.signing[0].value

    def live(self, now_ms: int) -> tuple[str, ...]:
        """The secrets to sign with now."""
        return tuple(secret.value for secret in self.signing if not secret.until_ms or secret.until_ms > now_ms)

    def followed_by(self, value: str, *, now_ms: int) -> AgentSecrets:
        """The secrets with a new present one; the one before lives on for the overlap, older ones end."""
        before = SigningSecret(self.present, now_ms + OVERLAP_MS)
        return replace(self, signing=(SigningSecret(value, 0), before))


def public_spec(spec: AgentSpec) -> dict[str, Any]:
    """The spec as JSON, without secrets: a header's value may be a credential, so its name alone is shown."""
    found = spec.model_dump(mode="json", exclude={"secret", "headers"})
    return {**found, "headers": dict.fromkeys(sorted(spec.headers), "")}


def new_signing_secret() -> str:
    """A fresh secret in the form of Standard Webhooks."""
    return "whsec_" + base64.b64encode(os.urandom(_SECRET_BYTES)).decode()


def sealed_secrets(vault: Vault, uid: str, secrets: AgentSecrets) -> bytes:
    """The secrets, sealed for the agent `uid`."""
    text = json.dumps({"signing": secrets.signing, "headers": secrets.headers})
    return vault.seal(text.encode(), context=f"agent/{uid}")


def unsealed_secrets(vault: Vault, row: AgentRow) -> AgentSecrets:
    """What was sealed.  Raises `SecretsUnavailable`."""
    found = json.loads(vault.unseal(row.sealed, context=f"agent/{row.uid}"))
    return AgentSecrets(tuple(SigningSecret(*secret) for secret in found["signing"]), found["headers"])


def agent_rows(team: str) -> Script[dict[str, AgentRow]]:
    """Part of a script: a team's agents, by name."""
    rows = yield Call(_OF_TEAM, (team,))
    return {row.name: row for row in (AgentRow(*raw) for raw in rows)}


def busy_agents(team: str) -> Script[set[str]]:
    """Part of a script: the team's agents with unfinished work."""
    rows = yield Call(_BUSY, (team,))
    return {row[0] for row in rows}


def all_agent_rows() -> Script[list[AgentRow]]:
    """Part of a script: the agents of all teams."""
    rows = yield Call(_ALL)
    return [AgentRow(*raw) for raw in rows]


def add_agent(row: AgentRow) -> Script[None]:
    """Part of a script: a new agent."""
    yield Call(_ADD, tuple(getattr(row, name) for name in _COLUMNS))


def mend_agent(row: AgentRow) -> Script[None]:
    """Part of a script: write what may change of an agent."""
    yield Call(_MEND, (*(getattr(row, name) for name in _MENDED), row.uid))


def drop_agent(uid: str) -> Script[None]:
    """Part of a script: an agent is gone."""
    yield Call(_DROP, (uid,))


def agent_configs(rows: Sequence[AgentRow], vault: Vault, *, now_ms: int) -> list[AgentConfig]:
    """The agents as the dispatcher uses them; one whose secrets do not open has none, so that nothing is sent unsigned."""
    return [_config(row, vault, now_ms=now_ms) for row in rows]


def _config(row: AgentRow, vault: Vault, *, now_ms: int) -> AgentConfig:
    spec = AgentSpec.model_validate_json(row.spec)
    try:
        secrets = unsealed_secrets(vault, row)
    except SecretsUnavailable:
        return AgentConfig(row.team, row.name, row.uid, row.shard, spec, ())
    spec = spec.model_copy(update={"headers": secrets.headers})
    return AgentConfig(row.team, row.name, row.uid, row.shard, spec, secrets.live(now_ms))


async def agents_of(engine: Engine, team: str) -> dict[str, AgentRow]:
    """A team's agents, by name."""
    return await engine.read(lambda: agent_rows(team))


async def queue_of(engine: Engine, team: str, agent: str) -> tuple[int, int]:
    """How many lanes of an agent have unfinished work, and how much work that is."""
    found, queued = (await fetch(engine, _QUEUE, team, agent))[0]
    return int(found), int(queued)
