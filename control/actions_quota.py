"""Acts on a team's quota."""

from __future__ import annotations

from typing import Any

from control.actions_objects import wished
from control.asked import ApplyQuery
from control.auth import Caller
from control.desk import Desk
from control.documents import read_quota
from store.decide import Wish
from store.quotas import QUOTA, TEAM, standing_of
from store.tables import API


async def show_quota(desk: Desk, caller: Caller) -> dict[str, Any]:
    """The team's quota, and how much of the present span is given out to dispatchers."""
    found = await standing_of(desk.engine, caller.team)
    if found is None:
        return {"attempts": None, "per": None, "taken": None, "span_ends_in_s": None}
    return {
        "attempts": found.spec.attempts,
        "per": found.spec.per,
        "taken": found.taken,
        "span_ends_in_s": round(found.ends_in_ms / 1000, 3),
    }


async def put_quota(desk: Desk, caller: Caller, *, query: ApplyQuery, body: Any) -> dict[str, Any]:
    """Set the team's quota."""
    wish = Wish(team=caller.team, managed_by=API, quota=read_quota(body))
    return (await wished(desk, caller, wish, act="quota.put", dry_run=query.dry_run)).as_json()


async def delete_quota(desk: Desk, caller: Caller, *, query: ApplyQuery) -> dict[str, Any]:
    """Let the team make as many attempts as its agents take."""
    wish = Wish(team=caller.team, managed_by=API, drop=frozenset({(QUOTA, TEAM)}))
    return (await wished(desk, caller, wish, act="quota.delete", dry_run=query.dry_run)).as_json()
