"""A virtual clock, and an event loop whose timers live by it: hours pass in milliseconds, in the same order every time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

START_MS = 1_795_000_000_000


class VirtualClock:
    """Wall time and boot time; `step_ms` moves only the wall, as an operator or NTP would."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self.step_ms = 0

    def now_ms(self) -> int:
        return START_MS + self.step_ms + int(self.elapsed_s * 1000)

    def boot_s(self) -> float:
        return 1000.0 + self.elapsed_s


class _Selector(selectors.SelectSelector):
    """Never waits: where nothing is ready, time moves on to the next timer."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self.clock = clock

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("every task waits for something that never comes")
        if not ready and timeout:
            self.clock.elapsed_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_Selector(clock))
        self.clock = clock
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self.clock.elapsed_s


def run_virtually(scenario: Coroutine[Any, Any, Any], clock: VirtualClock) -> Any:
    """The result of `scenario`, run in virtual time."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(scenario)
