"""Small acts on one object, each one transaction with its line in the audit."""

from __future__ import annotations

from dataclasses import dataclass, replace

from schemas.config import SubscriptionState
from schemas.errors import Conflict, NotFound
from store.agents import OVERLAP_MS, agent_rows, mend_agent, new_signing_secret, sealed_secrets, unsealed_secrets
from store.audit import Act, audited
from store.engine import Engine, Script
from store.subscriptions import mend_subscription, subscription_rows
from store.tables import ROSTER
from store.vault import Vault
from store.versions import raised


@dataclass(frozen=True, slots=True)
class Rotated:
    """A new signing secret, to be shown once, and when the one before it ends."""

    secret: str
    old_until_ms: int


async def rotate_secret(engine: Engine, vault: Vault, *, team: str, agent: str, actor: str, now_ms: int) -> Rotated:
    """Give an agent a new signing secret; calls are signed with both until the old one ends.  Raises `NotFound`."""
    return await engine.write(lambda: _rotated(vault, team, agent, actor, now_ms))


def _rotated(vault: Vault, team: str, agent: str, actor: str, now_ms: int) -> Script[Rotated]:
    row = (yield from agent_rows(team)).get(agent)
    if row is None:
        raise NotFound(f"there is no agent `{agent}`")
    made = new_signing_secret()
    secrets = unsealed_secrets(vault, row).followed_by(made, now_ms=now_ms)
    yield from mend_agent(replace(row, sealed=sealed_secrets(vault, row.uid, secrets), updated_ms=now_ms))
    yield from raised(ROSTER)
    yield from audited(Act(team, actor, "agents.rotate_secret", f"agent/{agent}"), at_ms=now_ms)
    return Rotated(made, now_ms + OVERLAP_MS)


async def enable_subscription(engine: Engine, *, team: str, name: str, actor: str, now_ms: int) -> str:
    """Put a disabled subscription back to the state that was asked for, and give that state.  Raises `NotFound`, `Conflict`."""
    return await engine.write(lambda: _enabled(team, name, actor, now_ms))


def _enabled(team: str, name: str, actor: str, now_ms: int) -> Script[str]:
    rows = yield from subscription_rows(team)
    row = next((row for row in rows if row.name == name and not row.draining), None)
    if row is None:
        raise NotFound(f"there is no subscription `{name}`")
    if row.state != SubscriptionState.DISABLED:
        raise Conflict(f"subscription {name} is {row.state}, not disabled", state=row.state)
    state = str(row.public["state"])
    if state == SubscriptionState.DISABLED:
        raise Conflict(f"subscription {name} is disabled by its own definition: write `state: live` there")
    yield from mend_subscription(replace(row, state=state, disabled_reason="", updated_ms=now_ms))
    yield from raised(ROSTER)
    yield from audited(Act(team, actor, "subscriptions.enable", f"subscription/{name}", row.disabled_reason), at_ms=now_ms)
    return state
