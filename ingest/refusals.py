"""Requests that were not taken, on their way to the operator: bounded, rate-capped, without credentials."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from contextlib import suppress

from ingest.inbound import Request
from ingest.limits import Bucket
from ingest.metrics import IngestMetrics
from ingest.ports import Refusal, RefusalShelf
from ingest.prepared import PreparedSource
from schemas.errors import Busy, NightbellError, Throttled

_MOST_WAITING = 1000
_MOST_BUCKETS = 1000
_PER_S = 2.0
_LONGEST_VALUE = 200
_HIDDEN = "…"
# Values that say what was sent, and never who may send it; every other header is kept by its name alone.
_SHOWN = {"content-type", "content-length", "content-encoding", "user-agent", "accept", "date"}


class Refusals:
    """A queue of refusals before their shelf.  What it cannot take is counted, and dropped."""

    def __init__(self, shelf: RefusalShelf | None, metrics: IngestMetrics, *, every_s: float = 0.5) -> None:
        self._shelf = shelf
        self._metrics = metrics
        self._every_s = every_s
        self._waiting: deque[Refusal] = deque()
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._some = asyncio.Event()

    def note(
        self, error: NightbellError, request: Request, source: PreparedSource | None, *, team: str, name: str, now_ms: int
    ) -> None:
        """Remember why a request was not taken; returns at once."""
        if self._shelf is None or not self._allows((team, name), now_ms / 1000):
            self._metrics.refusals_dropped.inc()
            return
        self._waiting.append(_refusal(error, request, source, team=team, name=name, now_ms=now_ms))
        self._some.set()

    def _allows(self, key: tuple[str, str], now_s: float) -> bool:
        if len(self._waiting) >= _MOST_WAITING:
            return False
        if len(self._buckets) >= _MOST_BUCKETS:  # names come from outside
            self._buckets.clear()
        try:
            self._buckets.setdefault(key, Bucket(_PER_S, now_s)).take(now_s)
        except Throttled:
            return False
        return True

    async def flush(self) -> None:
        """Hand over what waits; what the shelf does not take now is dropped and counted."""
        if self._shelf is None or not self._waiting:
            return
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            await self._shelf.keep(batch)
        except Busy:
            self._metrics.refusals_dropped.inc(len(batch))

    async def run(self) -> None:
        """Hand over as they come, until cancelled."""
        while True:
            await self._some.wait()
            with suppress(TimeoutError):
                await asyncio.sleep(self._every_s)
            self._some.clear()
            await self.flush()


def _refusal(
    error: NightbellError, request: Request, source: PreparedSource | None, *, team: str, name: str, now_ms: int
) -> Refusal:
    shown = _SHOWN | (source.provider.shown_headers if source else frozenset())
    return Refusal(
        team=team,
        source=name,
        at_ms=now_ms,
        code=error.code,
        step=str(error.fields.get("step", error.code)),
        reason=str(error.fields.get("reason", error.detail)),
        method=request.method,
        headers={key: value[:_LONGEST_VALUE] if key in shown else _HIDDEN for key, value in request.headers.items()},
        body_digest=hashlib.sha256(request.body).hexdigest() if request.body else "",
        body_bytes=len(request.body),
        remote=request.remote,
    )
