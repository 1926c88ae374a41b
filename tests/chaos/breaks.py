"""What each broken build leaves out; patched from outside, so that no line of it is in the product."""

from __future__ import annotations

import asyncio
from dataclasses import replace


def acknowledge_before_durable() -> None:
    """The append answers at once and writes half a second later."""
    from eventlog.sql import SqlLog

    append = SqlLog.append
    waiting: list = []

    async def early(self, drafts):
        async def later():
            await asyncio.sleep(0.5)
            await append(self, drafts)

        task = asyncio.get_running_loop().create_task(later())
        waiting.append(task)
        task.add_done_callback(waiting.remove)
        return []

    SqlLog.append = early


def cursor_before_rows() -> None:
    """The router's cursor is durable before what it stands for."""
    from schemas.errors import FencedOut
    from store.admission import Admission

    admit = Admission.admit

    async def split(self, log_id, place, *, first, after, plans, now_ms):
        if (await self.cursors(log_id, [place])).get(place, first) != first:
            raise FencedOut
        await admit(self, log_id, place, first=first, after=after, plans=[], now_ms=now_ms)
        await asyncio.sleep(0.3)
        return await self._engine.write(lambda: self._keep(place, plans, now_ms))

    Admission.admit = split


def retries_in_memory() -> None:
    """An invocation that must be tried again is called done in the ledger, and lives on in a timer."""
    from schemas.invocation import State
    from store.ledger import Ledger

    settle = Ledger.settle
    timers: list = []

    async def forgetful(self, settlement):
        if settlement.state is not State.WAITING:
            return await settle(self, settlement)

        async def later():
            await asyncio.sleep(1.0)

        timers.append(asyncio.get_running_loop().create_task(later()))
        return await settle(self, replace(settlement, state=State.DONE, reason="a timer has it"))

    Ledger.settle = forgetful


BREAKS = {
    "acknowledge_before_durable": acknowledge_before_durable,
    "cursor_before_rows": cursor_before_rows,
    "retries_in_memory": retries_in_memory,
}
