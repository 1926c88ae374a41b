"""Decides what an apply does to each object: the kept rows and the wanted specs in, changes and the writes for them out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from schemas.config import AgentSpec, QuotaSpec, SourceSpec, SubscriptionSpec, SubscriptionState
from schemas.errors import Conflict, NotFound, SecretsUnavailable
from schemas.ids import random_id, shard_of
from store import agents as agent_store
from store import sources as source_store
from store.agents import AgentRow, AgentSecrets, SigningSecret, new_signing_secret
from store.changes import CHANGED_SECRET_MARK, SECRET_MARK, Action, FieldChange, ObjectChange, differences
from store.engine import Script
from store.sources import SourceRow
from store.subscriptions import SubscriptionRow, add_subscription, mend_subscription, raises_generation
from store.tables import API, FILE
from store.vault import Vault

SOURCE, AGENT, SUBSCRIPTION = "source", "agent", "subscription"
_Row = SourceRow | AgentRow | SubscriptionRow


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted: the objects named, those to be dropped, and in whose name."""

    team: str
    managed_by: str
    sources: Mapping[str, SourceSpec] = field(default_factory=dict)
    agents: Mapping[str, AgentSpec] = field(default_factory=dict)
    subscriptions: Mapping[str, SubscriptionSpec] = field(default_factory=dict)
    drop: frozenset[tuple[str, str]] = frozenset()  # (kind, name)
    quota: QuotaSpec | None = None  # of the team; None: as it is
    prune: bool = False
    force: bool = False
    cancel: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """One object's change, and the part of a script that makes it (None: nothing is written).

    `canceled` is the uid of the subscription whose queue is to be cleared afterwards.
    """

    change: ObjectChange
    write: Callable[[], Script[None]] | None = None
    canceled: str = ""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What decisions need beside the rows."""

    vault: Vault
    now_ms: int


def decide_sources(wish: Wish, rows: Mapping[str, SourceRow], at: Circumstances) -> Iterator[Decision]:
    """What becomes of the sources."""
    for name, spec in wish.sources.items():
        row = rows.get(name)
        yield _new_source(wish, name, spec, at) if row is None else _changed_source(wish, row, spec, at)
    for row in _to_drop(wish, SOURCE, rows, wish.sources):
        yield Decision(_gone(SOURCE, row.name), lambda uid=row.uid: source_store.drop_source(uid))  # type: ignore[misc]  # mypy cannot infer a lambda with a default


def _new_source(wish: Wish, name: str, spec: SourceSpec, at: Circumstances) -> Decision:
    uid = _uid("src_")
    public = source_store.public_spec(spec)
    secrets = source_store.secrets_of(spec)
    row = SourceRow(
        uid=uid,
        team=wish.team,
        name=name,
        provider=spec.provider,
        spec=json.dumps(public),
        sealed=source_store.sealed_secrets(at.vault, uid, secrets),
        managed_by=wish.managed_by,
        created_ms=at.now_ms,
        updated_ms=at.now_ms,
    )
    fields = (*differences({}, _said(spec, public)), *_secret_changes({}, secrets))
    return Decision(ObjectChange(SOURCE, name, Action.CREATE, fields), lambda: source_store.add_source(row))


def _changed_source(wish: Wish, row: SourceRow, spec: SourceSpec, at: Circumstances) -> Decision:
    _own(wish, SOURCE, row)
    public = source_store.public_spec(spec)
    secrets = source_store.secrets_of(spec)
    fields = (
        *differences(row.public, public),
        *_secret_changes(_opened_source(row, at.vault), secrets),
        *_owner_change(wish, row),
    )
    if not fields:
        return Decision(ObjectChange(SOURCE, row.name, Action.UNCHANGED))
    mended = replace(
        row,
        provider=spec.provider,
        spec=json.dumps(public),
        sealed=source_store.sealed_secrets(at.vault, row.uid, secrets),
        managed_by=_owner(wish, row),
        updated_ms=at.now_ms,
    )
    return Decision(ObjectChange(SOURCE, row.name, Action.UPDATE, fields), lambda: source_store.mend_source(mended))


def _opened_source(row: SourceRow, vault: Vault) -> dict[str, Any]:
    try:
        return source_store.unsealed_secrets(vault, row)
    except SecretsUnavailable:
        return {}  # sealed under a lost key: whatever is written now is a change


def decide_agents(
    wish: Wish, rows: Mapping[str, AgentRow], at: Circumstances, *, needed_by: Mapping[str, str], busy: set[str]
) -> Iterator[Decision]:
    """What becomes of the agents.  `needed_by` names, by agent, a subscription that stays; `busy` have a queue."""
    for name, spec in wish.agents.items():
        row = rows.get(name)
        yield _new_agent(wish, name, spec, at) if row is None else _changed_agent(wish, row, spec, at)
    for row in _to_drop(wish, AGENT, rows, wish.agents):
        yield _dropped_agent(wish, row, needed_by=needed_by.get(row.name), is_busy=row.name in busy)


def _new_agent(wish: Wish, name: str, spec: AgentSpec, at: Circumstances) -> Decision:
    uid = _uid("agt_")
    made = None if spec.secret else new_signing_secret()
    value = spec.secret.get_secret_value() if spec.secret else made or ""
    public = agent_store.public_spec(spec)
    row = AgentRow(
        uid=uid,
        team=wish.team,
        name=name,
        shard=shard_of(wish.team, name),
        spec=json.dumps(public),
        sealed=agent_store.sealed_secrets(at.vault, uid, AgentSecrets((SigningSecret(value, 0),), dict(spec.headers))),
        managed_by=wish.managed_by,
        created_ms=at.now_ms,
        updated_ms=at.now_ms,
    )
    secret = FieldChange("secret", None, "(made)" if made else SECRET_MARK)
    is_shown = not spec.is_pull  # nobody signs to who is never called: it has one, for the day when that changes
    fields = (*differences({}, _said(spec, public)), *([secret] if is_shown else []))
    change = ObjectChange(AGENT, name, Action.CREATE, fields, made_secret=made if is_shown else None)
    return Decision(change, lambda: agent_store.add_agent(row))


def _changed_agent(wish: Wish, row: AgentRow, spec: AgentSpec, at: Circumstances) -> Decision:
    _own(wish, AGENT, row)
    kept = _opened_agent(row, at.vault)
    made = new_signing_secret() if kept is None and spec.secret is None else None
    secrets = _next_secrets(kept, spec, made, now_ms=at.now_ms)
    public = agent_store.public_spec(spec)
    fields = (*differences(row.public, public), *_agent_secret_changes(kept, secrets), *_owner_change(wish, row))
    if not fields:
        return Decision(ObjectChange(AGENT, row.name, Action.UNCHANGED))
    mended = replace(
        row,
        spec=json.dumps(public),
        sealed=agent_store.sealed_secrets(at.vault, row.uid, secrets),
        managed_by=_owner(wish, row),
        updated_ms=at.now_ms,
    )
    change = ObjectChange(AGENT, row.name, Action.UPDATE, fields, made_secret=made)
    return Decision(change, lambda: agent_store.mend_agent(mended))


def _opened_agent(row: AgentRow, vault: Vault) -> AgentSecrets | None:
    try:
        return agent_store.unsealed_secrets(vault, row)
    except SecretsUnavailable:
        return None  # sealed under a lost key: another secret takes its place


def _next_secrets(kept: AgentSecrets | None, spec: AgentSpec, made: str | None, *, now_ms: int) -> AgentSecrets:
    wanted = spec.secret.get_secret_value() if spec.secret else made
    headers = dict(spec.headers)
    if kept is None:
        return AgentSecrets((SigningSecret(wanted or "", 0),), headers)
    if wanted is None or wanted == kept.present:
        return replace(kept, headers=headers)
    return replace(kept.followed_by(wanted, now_ms=now_ms), headers=headers)


def _agent_secret_changes(kept: AgentSecrets | None, secrets: AgentSecrets) -> Iterator[FieldChange]:
    if kept is None or kept.present != secrets.present:
        yield FieldChange("secret", SECRET_MARK, CHANGED_SECRET_MARK)
    before = kept.headers if kept else {}
    for name in sorted(before.keys() & secrets.headers.keys()):
        if before[name] != secrets.headers[name]:
            yield FieldChange(f"headers.{name}", SECRET_MARK, CHANGED_SECRET_MARK)


def _dropped_agent(wish: Wish, row: AgentRow, *, needed_by: str | None, is_busy: bool) -> Decision:
    reason = f"subscription {needed_by} needs it" if needed_by else "its queue is not empty"
    if needed_by or is_busy:
        if (AGENT, row.name) in wish.drop:
            raise Conflict(f"agent {row.name} cannot go yet: {reason}", agent=row.name)
        return Decision(ObjectChange(AGENT, row.name, Action.KEEP, notes=(f"{reason}; apply again once that is over",)))
    return Decision(_gone(AGENT, row.name), lambda: agent_store.drop_agent(row.uid))


def decide_subscriptions(wish: Wish, rows: Mapping[str, SubscriptionRow], at: Circumstances) -> Iterator[Decision]:
    """What becomes of the subscriptions; `rows` are those not deleted yet."""
    for name, spec in wish.subscriptions.items():
        row = rows.get(name)
        yield _new_subscription(wish, name, spec, at) if row is None else _changed_subscription(wish, row, spec, at)
    for row in _to_drop(wish, SUBSCRIPTION, rows, wish.subscriptions):
        yield _dropped_subscription(wish, row, at)


def _new_subscription(wish: Wish, name: str, spec: SubscriptionSpec, at: Circumstances) -> Decision:
    public = spec.model_dump(mode="json")
    row = SubscriptionRow(
        uid=_uid("sub_"),
        team=wish.team,
        name=name,
        agent=spec.agent,
        spec=json.dumps(public),
        generation=1,
        state=spec.state.value,
        disabled_reason="",
        managed_by=wish.managed_by,
        draining=0,
        created_ms=at.now_ms,
        updated_ms=at.now_ms,
    )
    change = ObjectChange(SUBSCRIPTION, name, Action.CREATE, tuple(differences({}, _said(spec, public))))
    return Decision(change, lambda: add_subscription(row))


def _changed_subscription(wish: Wish, row: SubscriptionRow, spec: SubscriptionSpec, at: Circumstances) -> Decision:
    _own(wish, SUBSCRIPTION, row)
    public = spec.model_dump(mode="json")
    stays_disabled = row.state == SubscriptionState.DISABLED and bool(row.disabled_reason)
    state = row.state if stays_disabled else spec.state.value
    notes = (f"stays disabled ({row.disabled_reason}): enable it once the agent is back",) if stays_disabled else ()
    drift = () if state == row.state or row.public["state"] != public["state"] else (FieldChange("state", row.state, state),)
    fields = (*differences(row.public, public), *drift, *_owner_change(wish, row))
    if not fields:
        return Decision(ObjectChange(SUBSCRIPTION, row.name, Action.UNCHANGED, notes=notes))
    mended = replace(
        row,
        agent=spec.agent,
        spec=json.dumps(public),
        generation=row.generation + raises_generation(row.public, public),
        state=state,
        managed_by=_owner(wish, row),
        updated_ms=at.now_ms,
    )
    change = ObjectChange(SUBSCRIPTION, row.name, Action.UPDATE, fields, notes)
    return Decision(change, lambda: mend_subscription(mended))


def _dropped_subscription(wish: Wish, row: SubscriptionRow, at: Circumstances) -> Decision:
    # The row stays until its queue is empty and every router has seen that it drains: `sweep` drops it.
    drained = replace(row, draining=1, updated_ms=at.now_ms)
    action = Action.DELETE if wish.cancel else Action.DRAIN
    canceled = row.uid if wish.cancel else ""
    change = ObjectChange(SUBSCRIPTION, row.name, action)
    return Decision(change, lambda: mend_subscription(drained), canceled=canceled)


def _to_drop(wish: Wish, kind: str, rows: Mapping[str, Any], wanted: Mapping[str, object]) -> Iterator[Any]:
    for name in sorted(name for of, name in wish.drop if of == kind):
        if name not in rows:
            raise NotFound(f"there is no {kind} `{name}`")
        _own(wish, kind, rows[name])
        yield rows[name]
    if wish.prune:
        yield from (row for name, row in sorted(rows.items()) if row.managed_by == FILE and name not in wanted)


def _own(wish: Wish, kind: str, row: _Row) -> None:
    if wish.managed_by == API and row.managed_by == FILE and not wish.force:
        raise Conflict(
            f"{kind} {row.name} is managed by a file, whose next apply would undo this: change the file, or force it",
            managed_by=FILE,
        )


def _owner(wish: Wish, row: _Row) -> str:
    # What is forced on a file's object stays the file's: its next apply shows and undoes it.
    return FILE if wish.managed_by == FILE else row.managed_by


def _owner_change(wish: Wish, row: _Row) -> Iterator[FieldChange]:
    if _owner(wish, row) != row.managed_by:
        yield FieldChange("managed_by", row.managed_by, _owner(wish, row))


def _gone(kind: str, name: str) -> ObjectChange:
    return ObjectChange(kind, name, Action.DELETE)


def _said(spec: SourceSpec | AgentSpec | SubscriptionSpec, public: Mapping[str, Any]) -> dict[str, Any]:
    """Of the public spec, what was written rather than left to its default."""
    return {name: value for name, value in public.items() if name in spec.model_fields_set}


def _secret_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[FieldChange]:
    for name in ("secrets", "password"):
        old, new = before.get(name) or None, after.get(name) or None
        if old == new:
            continue
        changed = CHANGED_SECRET_MARK if old else SECRET_MARK
        yield FieldChange(name, _marked(old, SECRET_MARK), _marked(new, changed))


def _marked(value: list[str] | str | None, mark: str) -> Any:
    if value is None:
        return None
    return [mark] * len(value) if isinstance(value, list) else mark


def _uid(prefix: str) -> str:
    return random_id(prefix, os.urandom(17))
