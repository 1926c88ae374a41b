"""Earlier events of the same thing, one line each."""

from __future__ import annotations

from collections.abc import Sequence

from curator.ports import PastEvent

_STEPS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"))


def age(at_ms: int, now_ms: int) -> str:
    """How long ago, in the largest whole unit: `3d`, `2h`, `5m`, `10s`; `0s` for what lies ahead."""
    elapsed = max(0, now_ms - at_ms)
    for size, unit in _STEPS:
        if elapsed >= size:
            return f"{elapsed // size}{unit}"
    return f"{elapsed // 1000}s"


def lines(past: Sequence[PastEvent], *, now_ms: int, most: int, max_age_ms: int) -> list[str]:
    """The last `most` events, newest first: `2h ago github.issues.labeled by nora: Issue 42 labeled (done)`.

    `now_ms` is the event's own time, not a clock's: the same event gives the same lines whenever it is curated.
    """
    kept = [each for each in past if each.at_ms <= now_ms and now_ms - each.at_ms <= max_age_ms]
    kept.sort(key=lambda each: (-each.at_ms, each.event_id))
    return [_line(each, now_ms) for each in kept[:most]]


def _line(each: PastEvent, now_ms: int) -> str:
    by = f" by {each.actor}" if each.actor else ""
    summary = f": {' '.join(each.summary.split())[:200]}" if each.summary else ""
    outcome = f" ({each.outcome})" if each.outcome else ""
    return f"{age(each.at_ms, now_ms)} ago {each.type}{by}{summary}{outcome}"
