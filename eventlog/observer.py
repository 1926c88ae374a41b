"""What a log tells about itself while it works: plain callables, so that no driver knows how metrics are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from schemas.topics import Place


def _silent(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Observer:
    """Called on the event loop's thread, each with little to do; the default hears nothing.

    `appended(elapsed_s)` for each append that became durable.  `refused(reason)` for each that did not: the error's code.
    `committed(records, elapsed_s)` for each group commit, with the time that making it durable took.
    `queued(records, size_bytes)` when the queue's depth was looked at, once per group commit.
    `replaced(reason)` when a producer was retired, `rebalanced()` when an assignment changed, `commit_failed(reason)` when a
    background commit of a group's progress failed, `stalled(place)` when a reader had to be opened anew.
    `progressed(group, place, after)` when a reader noted its progress; `ended(place, end)` when a place's end was learnt.
    """

    appended: Callable[[float], None] = _silent
    refused: Callable[[str], None] = _silent
    committed: Callable[[int, float], None] = _silent
    queued: Callable[[int, int], None] = _silent
    replaced: Callable[[str], None] = _silent
    rebalanced: Callable[[], None] = _silent
    commit_failed: Callable[[str], None] = _silent
    stalled: Callable[[Place], None] = _silent
    progressed: Callable[[str, Place, int], None] = _silent
    ended: Callable[[Place, int], None] = _silent


SILENT = Observer()
