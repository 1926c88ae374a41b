"""Work that one process at a time does, though several could: who has the duty does it, the others stand by."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from schemas.errors import Busy
from store.duties import hold_duty, release_duty
from store.engine import Engine

LEASE_S = 15.0
Work = Callable[[], Awaitable[None]]


async def on_duty(engine: Engine, duty: str, owner: str, work: Work, *, lease_s: float = LEASE_S) -> None:
    """Do `work` as long as the duty is ours, until cancelled.  It ends before the lease does, also when the store is away."""
    loop = asyncio.get_running_loop()
    task: asyncio.Future[None] | None = None
    until_s = 0.0
    try:
        while True:
            asked_s = loop.time()
            with suppress(Busy, TimeoutError):
                async with asyncio.timeout(lease_s / 3):
                    is_ours = await hold_duty(engine, duty, owner, lease_ms=int(lease_s * 1000))
                until_s = asked_s + lease_s if is_ours else 0.0
            if task is not None and (task.done() or loop.time() + lease_s / 3 >= until_s):
                await _ended(task)
                task = None
            if task is None and loop.time() + lease_s / 3 < until_s:
                structlog.get_logger().debug("duty_taken", duty=duty)
                task = asyncio.ensure_future(work())
            await asyncio.sleep(lease_s / 4)
    finally:
        if task is not None:
            await _ended(task)
            with suppress(Busy, TimeoutError):
                async with asyncio.timeout(1):
                    await release_duty(engine, duty, owner)


async def _ended(task: asyncio.Future[None]) -> None:
    """End the work; a bug in it goes to the supervisor."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
