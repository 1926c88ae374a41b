"""The two clocks of the dispatcher: one that people set, one that never jumps."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What time it is."""

    def now_ms(self) -> int:
        """Milliseconds since 1970, for what is written down; may step."""
        ...

    def boot_s(self) -> float:
        """Seconds that only rise, and rise while the machine is suspended: leases are judged by it."""
        ...


# Linux's CLOCK_MONOTONIC stands still during suspension, and a lease does not.
_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def boot_s(self) -> float:
        """Seconds since the machine started, suspension included where the system can tell."""
        return time.clock_gettime(_BOOT_CLOCK)
