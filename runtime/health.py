"""Whether this process lives, is ready, and keeps up: named checks, the event loop's lag, what was built."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Gauge, Histogram, Info

from schemas.errors import NightbellError

Probe = Callable[[], Awaitable[bool]]
Clock = Callable[[], float]

LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
PROBE_TIMEOUT_S = 2.0
FRESH_S = 0.5  # how long an answer stands, so that a storm of health checks does not become a load of its own


@dataclass(frozen=True, slots=True)
class Report:
    """What a health check answers: `checks` says `ok` or what is wrong, by name."""

    is_ok: bool
    checks: dict[str, str]

    def document(self) -> dict[str, Any]:
        """For people and probes."""
        return {"status": "ok" if self.is_ok else "unavailable", "checks": self.checks}


@dataclass
class Health:
    """The process's own view of itself.  Liveness never asks the log or the store; readiness does."""

    clock: Clock = time.monotonic
    _probes: dict[str, Probe] = field(default_factory=dict)
    _troubles: dict[str, str] = field(default_factory=dict)
    _is_draining: bool = False
    _fatal: str = ""
    _last: tuple[float, Report] | None = None

    def watch(self, name: str, probe: Probe) -> None:
        """Make readiness depend on `probe`: it is asked with a deadline, and an error of ours counts as no."""
        self._probes[name] = probe
        self._last = None

    def note(self, name: str, trouble: str = "") -> None:
        """Note that the worker `name` is in trouble (not ready), or, with none, well again."""
        if trouble:
            self._troubles[name] = trouble
        else:
            self._troubles.pop(name, None)
        self._last = None

    def drain(self) -> None:
        """Be not ready from now on: what balances load shall look elsewhere."""
        self._is_draining = True
        self._last = None

    def fail(self, reason: str) -> None:
        """Be dead: a restart is the only way on."""
        self._fatal = reason
        self._last = None

    def live(self) -> Report:
        """Whether the process should go on; that it answers at all says that its loop turns."""
        return Report(not self._fatal, {"process": self._fatal or "ok"})

    async def ready(self) -> Report:
        """Whether the process can do its work now, by check."""
        now = self.clock()
        if self._last is not None and now - self._last[0] < FRESH_S:
            return self._last[1]
        names = list(self._probes)
        verdicts = await asyncio.gather(*(_verdict(self._probes[name]) for name in names))
        checks = {**dict(zip(names, verdicts, strict=True)), **self._troubles}
        if self._fatal or self._is_draining:
            checks["process"] = self._fatal or "draining"
        report = Report(all(verdict == "ok" for verdict in checks.values()), checks)
        self._last = (now, report)
        return report


async def _verdict(probe: Probe) -> str:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return "ok" if await probe() else "unavailable"
    except TimeoutError:
        return f"no answer within {PROBE_TIMEOUT_S:g} s"
    except NightbellError as exc:
        return exc.code


class LoopLag:
    """Measures how late the event loop wakes a sleeper: what every request waits on top of its own work."""

    def __init__(self, *, registry: CollectorRegistry = REGISTRY, period_s: float = 0.25) -> None:
        self._period_s = period_s
        self._lag = Histogram(
            "nightbell_event_loop_lag_seconds",
            "How late the event loop wakes a sleeper.",
            buckets=LAG_BUCKETS,
            registry=registry,
        )
        self._worst = Gauge(
            "nightbell_event_loop_lag_max_seconds", "The latest that the event loop ever woke a sleeper.", registry=registry
        )
        self.max_s = 0.0

    def observe(self, lag_s: float) -> None:
        """Count one wake-up that came `lag_s` late."""
        self._lag.observe(max(0.0, lag_s))
        if lag_s > self.max_s:
            self.max_s = lag_s
            self._worst.set(lag_s)

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._period_s
            await asyncio.sleep(self._period_s)
            self.observe(loop.time() - due)


def nightbell_version() -> str:
    """The version of this build."""
    return version("nightbell")


def publish_build_info(*, registry: CollectorRegistry = REGISTRY) -> None:
    """Publish `nightbell_build_info`: which version runs on which Python."""
    info = Info("nightbell_build", "What is running.", registry=registry)
    info.info({"version": nightbell_version(), "python": platform.python_version()})
