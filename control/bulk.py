"""Runs redrives and replays by query in the background, page by page; after a restart they go on where they were."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from control.actions_dead import dead_filter
from control.actions_events import event_and_data
from control.actions_work import redrive_filter, replay_filter
from control.asked import PurgesBody, RedrivesBody, ReplaysBody
from control.desk import Desk
from schemas.errors import Busy, NightbellError, NotFound
from store.deadletters import dead_after, purge
from store.events import events_after
from store.progress import DONE, FAILED, PURGE, REPLAY, RUNNING, Progress, advance, unfinished
from store.work import invocations_after

PAGE = 100
PAUSE_S = 5.0


class BulkRunner:
    """Works off what is unfinished.  Several may run: what they do twice changes nothing."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._wake = asyncio.Event()

    def nudge(self) -> None:
        """There is something new."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; look again after a nudge, or after a pause."""
        while True:
            self._wake.clear()
            await self.work_off()
            try:
                async with asyncio.timeout(PAUSE_S):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def work_off(self) -> None:
        """Bring everything that is unfinished to its end; what the store or the ledger cannot take now stays unfinished."""
        try:
            for begun in await unfinished(self._desk.engine):
                await self._finish(begun)
        except Busy:
            return  # the next look goes on where this one stopped

    async def _finish(self, begun: Progress) -> None:
        page = {REPLAY: self._replay, PURGE: self._purge}.get(begun.kind, self._redrive)
        now = begun
        try:
            while (dealt := await page(now)) is not None:
                now = replace(now, done=now.done + dealt[0], position=str(dealt[1]))
                await self._advance(now, RUNNING, "")
        except Busy:
            raise
        except NightbellError as exc:
            await self._advance(now, FAILED, exc.detail)
        else:
            await self._advance(now, DONE, "")

    async def _advance(self, now: Progress, state: str, reason: str) -> None:
        await advance(
            self._desk.engine,
            now.id,
            done=now.done,
            position=now.position,
            now_ms=self._desk.now_ms(),
            state=state,
            reason=reason,
        )

    async def _redrive(self, now: Progress) -> tuple[int, int] | None:
        wanted = redrive_filter(RedrivesBody.model_validate_json(now.query), now_ms=now.created_ms)
        rows = await invocations_after(self._desk.engine, now.team, wanted, after=int(now.position), limit=PAGE)
        if not rows:
            return None
        done = await self._desk.redress.redrive(now.team, [row.id for row in rows], now_ms=self._desk.now_ms())
        return len(done), rows[-1].seq

    async def _purge(self, now: Progress) -> tuple[int, int] | None:
        wanted = dead_filter(PurgesBody.model_validate_json(now.query), now.created_ms)
        if wanted.until_ms is None:
            wanted = replace(wanted, until_ms=now.created_ms)  # what is buried while it runs was not meant
        rows = await dead_after(self._desk.engine, now.team, wanted, after=int(now.position), limit=PAGE)
        if not rows:
            return None
        gone = await purge(self._desk.engine, now.team, [ident for _, ident in rows])
        return len(gone), rows[-1][0]

    async def _replay(self, now: Progress) -> tuple[int, int] | None:
        query = ReplaysBody.model_validate_json(now.query)
        wanted = replace(replay_filter(query, now_ms=now.created_ms), admitted_until_ms=now.created_ms)
        rows = await events_after(self._desk.engine, now.team, wanted, after=int(now.position), limit=PAGE)
        if not rows:
            return None
        found = []
        for row in rows:
            try:
                found.append(await event_and_data(self._desk, row))
            except NotFound:
                continue  # its body is no longer kept: it cannot be planned
        await self._desk.tools.replay(found, replay_id=now.id, subscription=query.subscription or "")
        return len(found), rows[-1].seq
