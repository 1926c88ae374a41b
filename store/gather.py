"""Coalesces what many callers want at once into one script: natural group commit, without a timer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from schemas.errors import NightbellError, Saturated

Item = TypeVar("Item")
Result = TypeVar("Result")


class Gathering(Generic[Item, Result]):
    """Hands items to `run`, all that came while its previous call was under way together, and each caller its own result.

    An idle gathering runs an item at once.  Where a batch fails by a bug rather than by a foreseen error, its items are run one
    by one, so that one bad item costs only its caller.  A cancelled caller's item may still be run.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        max_items: int = 256,
        max_waiting: int = 20_000,
    ) -> None:
        self._run = run
        self._max_items = max_items
        self._max_waiting = max_waiting
        self._queue: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def add(self, item: Item) -> Result:
        """The result of `item`, once its batch is done.  Raises `Saturated` where too many wait, and what `run` raised."""
        if len(self._queue) >= self._max_waiting:
            raise Saturated("too much of one kind waits for the store")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        if self._task is None:
            # One task for as long as there is something to do; it ends by itself, so no TaskGroup need hold it.
            self._task = asyncio.get_running_loop().create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        queue = self._queue
        try:
            while queue:
                batch = [queue.popleft() for _ in range(min(len(queue), self._max_items))]
                await self._run_batch(batch)
        finally:
            self._task = None
            while queue:  # only where the task itself was cancelled, at the end of the loop
                queue.popleft()[1].cancel()

    async def _run_batch(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._run([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it is belongs to the callers
            if len(batch) > 1 and not isinstance(exc, NightbellError):
                for one in batch:
                    await self._run_batch([one])
                return
            for _, future in batch:
                if not future.done():
                    future.set_exception(exc)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
