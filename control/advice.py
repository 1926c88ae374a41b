"""What is probably not meant in a team's subscriptions, by what is kept of its other ones and its events."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from control.actions_events import document_of
from control.desk import Desk
from schemas.config import SubscriptionSpec
from store.events import EventFilter, event_page, types_kept
from store.subscriptions import subscriptions_of

SAMPLES = 25  # kept events that rules are held against
MOST_OTHERS = 2000


async def advice_on(desk: Desk, team: str, rules: Mapping[str, SubscriptionSpec]) -> list[dict[str, Any]]:
    """Findings on these subscriptions, beside the team's other ones; none where there are no rules."""
    if not rules:
        return []
    kept = await subscriptions_of(desk.engine, team)
    others = {name: row.config.spec for name, row in kept.items() if name not in rules}
    types = await types_kept(desk.engine, team)
    rows = await event_page(desk.engine, team, EventFilter(), before=1 << 62, limit=SAMPLES)
    samples = [await document_of(desk, row) for row in rows]
    findings = await asyncio.to_thread(  # rules are compared in pairs: not on the loop
        desk.tools.lint, rules, others if len(others) <= MOST_OTHERS else {}, types or None, samples
    )
    return [{"subscription": found["rule"], **{k: v for k, v in found.items() if k != "rule"}} for found in findings]
