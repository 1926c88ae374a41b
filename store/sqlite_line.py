"""What waits for SQLite's one writer: what ends or frees something goes before what begins something new."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from store.engine import Script


class Ask(NamedTuple):
    """A script, its caller's future, and whether it lets others go before it."""

    script: Callable[[], Script[Any]]
    future: asyncio.Future[Any]
    is_patient: bool = False


class Line:
    """Filled by the loop, emptied by the writer's thread.

    Patient scripts stand behind all others, so that a flood of new work does not hold up the end of what was begun; yet every
    group takes at least one of them, so that they never wait for ever.
    """

    def __init__(self) -> None:
        self._arriving: SimpleQueue[Ask | None] = SimpleQueue()
        self._prompt: deque[Ask] = deque()
        self._patient: deque[Ask] = deque()
        self._is_ended = False

    def put(self, ask: Ask) -> None:
        """Join; from the loop."""
        self._arriving.put(ask)

    def end(self) -> None:
        """Nothing comes after what waits now; from the loop."""
        self._arriving.put(None)

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not self._prompt and not self._patient and self._arriving.empty()

    def first(self, timeout_s: float | None) -> Ask | None:
        """Whoever begins a group, waited for; None at the end.  Raises `Empty` after `timeout_s`."""
        self._look()
        if not self._prompt and not self._patient:
            if self._is_ended:
                return None
            self._file(self._arriving.get(timeout=timeout_s))
            self._look()
        return self._popped(self._prompt) or self._popped(self._patient)

    def further(self, *, is_late: bool, has_patient: bool) -> Ask | None:
        """Whoever joins the group; once it `is_late`, only a patient one where it has none yet."""
        self._look()
        if not is_late:
            return self._popped(self._prompt) or self._popped(self._patient)
        return None if has_patient else self._popped(self._patient)

    def _look(self) -> None:
        try:
            while True:
                self._file(self._arriving.get_nowait())
        except Empty:
            return

    def _file(self, ask: Ask | None) -> None:
        if ask is None:
            self._is_ended = True
        else:
            (self._patient if ask.is_patient else self._prompt).append(ask)

    @staticmethod
    def _popped(waiting: deque[Ask]) -> Ask | None:
        return waiting.popleft() if waiting else None
