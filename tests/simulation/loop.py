"""An event loop that one seed decides: virtual time, and sets of tasks in the same order every time.

Between processes two more things differ: the hashes of strings and `os.urandom`.  `python -m tests.simulation` pins the first
(PYTHONHASHSEED=0), `pinned` the second.
"""

from __future__ import annotations

import asyncio
import os
import random
import selectors
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from unittest import mock

from tests.fakes.clock import VirtualClock


class _Task(asyncio.Task):
    """A task that has its number for a hash: a TaskGroup cancels its tasks in the order of a set."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, number: int, **more: Any) -> None:
        self._number = number
        super().__init__(coro, **more)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class _Selector(selectors.SelectSelector):
    """Nothing outside the loop ever happens: where nothing is ready, time moves on to the next timer."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self.clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("every task waits for something that never comes")
        if timeout > 0:
            self.clock.elapsed_s += timeout
        return []


class Loop(asyncio.SelectorEventLoop):
    """A loop of one schedule."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_Selector(clock))
        self.clock = clock
        self._clock_resolution = 1e-6
        numbers = count(1)
        self.set_task_factory(lambda loop, coro, **more: _Task(coro, number=next(numbers), loop=loop, **more))

    def time(self) -> float:
        return self.clock.elapsed_s

    def run_in_executor(self, *_: Any) -> Any:
        raise AssertionError("a thread has its own order of things: nothing in a schedule may use one")


@contextmanager
def pinned(seed: int, clock: VirtualClock) -> Iterator[None]:
    """Whatever draws lots or reads a clock, beside what is handed in, follows the seed too."""
    lots = random.Random(seed)
    state = random.getstate()
    random.seed(seed)
    with (
        mock.patch.object(os, "urandom", lots.randbytes),
        mock.patch("router.service.perf_counter", clock.boot_s),
        mock.patch("dispatcher.attempt.perf_counter", clock.boot_s),
    ):
        try:
            yield
        finally:
            random.setstate(state)
