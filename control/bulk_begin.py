"""How an act by query begins: counted, noted, and worked off in the background."""

from __future__ import annotations

import json
import os
from typing import Any

from pydantic import BaseModel

from control.auth import Caller
from control.desk import Desk
from control.shown import progress_json
from schemas.errors import NotFound
from schemas.ids import random_id
from store.progress import PURGE, REDRIVE, REPLAY, RUNNING, Progress, begin, progress_of

_PREFIXES = {REPLAY: "rpl_", REDRIVE: "rdv_", PURGE: "prg_"}


async def begun(desk: Desk, caller: Caller, kind: str, body: BaseModel, *, total: int) -> dict[str, Any]:
    """Begin it, or with the body's `dry_run` only count; the progress that follows it."""
    now_ms = desk.now_ms()
    query = body.model_dump(mode="json", exclude={"dry_run"}, exclude_none=True)
    is_dry = bool(getattr(body, "dry_run", False))
    found = Progress(
        id="" if is_dry else random_id(_PREFIXES[kind], os.urandom(17)),
        team=caller.team,
        kind=kind,
        query=json.dumps(query),
        state="dry_run" if is_dry else RUNNING,
        reason="",
        actor=caller.name,
        total=total,
        done=0,
        position="0",
        created_ms=now_ms,
        updated_ms=now_ms,
    )
    if not is_dry:
        await begin(desk.engine, found)
        desk.nudge()
    return {**progress_json(found), "dry_run": is_dry}


async def progress_shown(desk: Desk, caller: Caller, kind: str, progress_id: str) -> dict[str, Any]:
    """How far it is.  Raises `NotFound`."""
    found = await progress_of(desk.engine, caller.team, progress_id)
    if found is None or found.kind != kind:
        raise NotFound(f"there is no such {kind}")
    return progress_json(found)
