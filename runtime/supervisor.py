"""Keeps the parts of a process running, and stops them in order.

    running ──SIGTERM/SIGINT──▶ draining ──all parts stopped──▶ 0
       │                            └─second signal─▶ stopped at once ──▶ 1
       └─too many crashes─▶ draining ──▶ 1

A bug ends its worker, not the process: the worker starts again after a growing pause.  What is only busy or misconfigured
starts again too and is never counted; `crash_limit` bugs within `crash_window_s` end the process, since a restart of it is then
the better medicine.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from runtime.health import Health
from schemas.errors import Busy, Misconfigured

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a process.

    `stop` asks for the end of what is under way, and `run` returns when that is reached; a part without `stop` is cancelled
    when its turn comes, one without `run` (a listener, a log) is only stopped.
    """

    name: str
    run: Callable[[], Awaitable[None]] | None = None
    stop: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """How the supervisor deals with crashes and stops."""

    first_pause_s: float = 0.25
    max_pause_s: float = 30.0
    calm_after_s: float = 60.0
    crash_limit: int = 10
    crash_window_s: float = 60.0
    drain_timeout_s: float = 25.0


class Supervisor:
    """Runs `parts`; on the end, stops them in the order given: those that take work in come first, the store last."""

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        health: Health | None = None,
        patience: Patience = Patience(),
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._parts = parts
        self._health = health or Health()
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._log = structlog.get_logger()
        self._crashes: deque[float] = deque(maxlen=patience.crash_limit)
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._code = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._pausing: set[str] = set()

    def request_stop(self) -> None:
        """Drain; asked a second time, stop at once."""
        if self._stop.is_set():
            self._at_once.set()
        self._stop.set()

    async def run(self) -> int:
        """Run until asked to stop, or until too much crashed; the process's exit code."""
        with _signals(self.request_stop):
            async with asyncio.TaskGroup() as group:
                self._tasks = {
                    part.name: group.create_task(self._keep(part), name=part.name) for part in self._parts if part.run
                }
                try:
                    await self._stop.wait()
                    self._health.drain()
                    await self._drain()
                finally:
                    for task in self._tasks.values():
                        task.cancel()
        self._log.info("stopped", code=self._code)
        return self._code

    async def _drain(self) -> None:
        self._log.info("draining", timeout_s=self._patience.drain_timeout_s)
        stopping = asyncio.ensure_future(self._stop_in_order())
        hurry = asyncio.ensure_future(self._at_once.wait())
        try:
            await asyncio.wait({stopping, hurry}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurry.cancel()
        if stopping.done():
            stopping.result()
            return
        self._log.warning("stopped_at_once")
        self._code = 1
        stopping.cancel()
        with suppress(asyncio.CancelledError):
            await stopping

    async def _stop_in_order(self) -> None:
        deadline = self._clock() + self._patience.drain_timeout_s
        for part in self._parts:
            await self._stop_part(part, left_s=max(0.05, deadline - self._clock()))

    async def _stop_part(self, part: Part, *, left_s: float) -> None:
        task = self._tasks.get(part.name)
        if task is not None and (part.stop is None or part.name in self._pausing):
            task.cancel()  # nothing is under way that it could finish
        try:
            async with asyncio.timeout(left_s):
                if part.stop is not None:
                    await part.stop()
                if task is not None:
                    await asyncio.wait({task})
        except TimeoutError:
            self._log.warning("part_stop_timed_out", part=part.name)
        except Exception:  # noqa: BLE001 - one part that cannot stop must not keep the next (the store) from closing
            self._log.exception("part_stop_failed", part=part.name)
            self._code = 1
        finally:
            if task is not None:
                task.cancel()

    async def _keep(self, part: Part) -> None:
        assert part.run is not None
        pause_s = self._patience.first_pause_s
        while True:
            began = self._clock()
            try:
                await part.run()
                if self._stop.is_set():
                    return
                raise RuntimeError(f"{part.name} ended by itself")  # noqa: TRY301 - an early end is a crash like any other
            except Exception as exc:  # noqa: BLE001 - this is the one place where a bug ends: its worker starts again
                if self._clock() - began >= self._patience.calm_after_s:
                    pause_s = self._patience.first_pause_s
                self._tell(part.name, exc, pause_s)
            if self._stop.is_set():
                return
            self._pausing.add(part.name)
            await self._sleep(pause_s)
            self._pausing.discard(part.name)
            self._health.note(part.name)
            pause_s = min(pause_s * 2, self._patience.max_pause_s)

    def _tell(self, name: str, exc: Exception, pause_s: float) -> None:
        if isinstance(exc, Busy):
            self._log.warning("worker_waits", worker=name, code=exc.code, detail=exc.detail, pause_s=pause_s)
            self._health.note(name, exc.code)
        elif isinstance(exc, Misconfigured):
            self._log.error("worker_held", worker=name, code=exc.code, detail=exc.detail, pause_s=pause_s)
            self._health.note(name, exc.code)
        else:
            self._log.error("worker_crashed", worker=name, pause_s=pause_s, exc_info=exc)
            self._health.note(name, "crashed")
            self._count_crash()

    def _count_crash(self) -> None:
        now = self._clock()
        self._crashes.append(now)
        full = len(self._crashes) == self._patience.crash_limit
        if full and now - self._crashes[0] <= self._patience.crash_window_s and not self._stop.is_set():
            self._log.error("crash_limit", crashes=len(self._crashes), window_s=self._patience.crash_window_s)
            self._health.fail("too many crashes")
            self._code = 1
            self._stop.set()


class _signals:  # noqa: N801 - reads as the statement that it is
    """While entered, SIGTERM and SIGINT call `notify` instead of ending the process."""

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._taken: list[signal.Signals] = []

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            # Only the main thread may take signals; elsewhere (tests, an embedded run) the owner calls `request_stop`.
            with suppress(ValueError, RuntimeError, NotImplementedError):
                loop.add_signal_handler(number, self._notify)
                self._taken.append(number)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in self._taken:
            loop.remove_signal_handler(number)
