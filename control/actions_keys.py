"""Acts on API keys, and the audit."""

from __future__ import annotations

from typing import Any

from control.asked import KeyBody, Page, write_cursor
from control.auth import VISIBLE_CHARACTERS, Caller, Role, key_digest, new_key
from control.desk import Desk
from control.shown import audit_json, key_json, listed, page_by_seq
from schemas.errors import Invalid, NotFound
from schemas.times import iso, ms_of
from store.agents import agents_of
from store.audit import audit_page, verify_audit
from store.keys import KeyRow, Keys, new_key_id


async def create_key(desk: Desk, caller: Caller, *, body: KeyBody) -> dict[str, Any]:
    """Make a key and show it, this once."""
    now_ms = desk.now_ms()
    if body.role is Role.AGENT and body.agent not in await agents_of(desk.engine, caller.team):
        raise NotFound(f"there is no agent `{body.agent}`") if body.agent else Invalid("say whose key it is", place="/agent")
    row, key = made_key(body, team=caller.team, now_ms=now_ms)
    await desk.keys.add(row, actor=caller.name)
    return {**key_json(row), "key": key}


async def keep_first_key(keys: Keys, key: str, *, team: str, name: str, now_ms: int) -> None:
    """Keep the admin key that an installation makes for itself; one that is kept already stays as it is."""
    if any(row.hash == key_digest(key) for row in await keys.of_team(team)):
        return
    row = _row(key, team=team, name=name, role=Role.ADMIN, now_ms=now_ms)
    await keys.add(row, actor="nightbell")


def made_key(body: KeyBody, *, team: str, now_ms: int) -> tuple[KeyRow, str]:
    """A fresh key, and what is kept of it.  Raises `Invalid`."""
    if body.agent is not None and body.role is not Role.AGENT:
        raise Invalid("only a key of the role agent speaks for an agent", place="/agent")
    expires_ms = _expiry(body.expires_at, now_ms=now_ms) if body.expires_at else 0
    key = new_key()
    row = _row(key, team=team, name=body.name, role=body.role, now_ms=now_ms, agent=body.agent or "", expires_ms=expires_ms)
    return row, key


def _row(key: str, *, team: str, name: str, role: Role, now_ms: int, agent: str = "", expires_ms: int = 0) -> KeyRow:
    return KeyRow(
        id=new_key_id(),
        team=team,
        name=name,
        role=role.value,
        hash=key_digest(key),
        prefix=key[:VISIBLE_CHARACTERS],
        agent=agent,
        created_ms=now_ms,
        expires_ms=expires_ms,
        revoked_ms=0,
        last_used_ms=0,
    )


def _expiry(text: str, *, now_ms: int) -> int:
    try:
        expires_ms = ms_of(text)
    except ValueError as exc:
        raise Invalid("write the end of the key as 2026-12-31T00:00:00Z", place="/expires_at") from exc
    if expires_ms <= now_ms:
        raise Invalid("the key would have ended already", place="/expires_at")
    return expires_ms


async def list_keys(desk: Desk, caller: Caller, *, query: Page) -> dict[str, Any]:
    """A team's keys, oldest first, without what only their owners know."""
    rows = await desk.keys.of_team(caller.team)
    first = query.skipped("keys")
    shown = rows[first : first + query.limit]
    more = write_cursor("keys", first + query.limit) if len(rows) > first + query.limit else None
    return listed([key_json(row) for row in shown], more)


async def revoke_key(desk: Desk, caller: Caller, *, key_id: str) -> dict[str, Any]:
    """End a key, by its id or its name, within a second."""
    now_ms = desk.now_ms()
    count = await desk.keys.revoke(caller.team, key_id, actor=caller.name, now_ms=now_ms)
    return {"id": key_id, "revoked": count, "revoked_at": iso(now_ms)}


async def list_audit(desk: Desk, caller: Caller, *, query: Page) -> dict[str, Any]:
    """What operators and agents did, newest first."""
    lines = await audit_page(desk.engine, caller.team, before=query.before("audit"), limit=query.limit + 1)
    shown, more = page_by_seq(lines, query, "audit")
    return listed([audit_json(line) for line in shown], more)


async def check_audit(desk: Desk, caller: Caller) -> dict[str, Any]:
    """Whether the audit's chain is whole; keep `head` elsewhere to see that its tail was not cut."""
    verdict = await verify_audit(desk.engine, caller.team)
    return {
        "whole": not verdict.broken_at,
        "lines": verdict.lines,
        "head": verdict.head,
        "broken_at": verdict.broken_at or None,
    }
