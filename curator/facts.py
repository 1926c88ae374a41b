"""Facts about a thing, as they are written down and as they are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curator.history import age
from curator.ports import KnownFact


def chosen(facts: Sequence[KnownFact], names: Sequence[str], *, now_ms: int) -> list[KnownFact]:
    """The facts that a context asks for (`*`: all), pinned first, then the newest; expired ones and old versions are gone."""
    newest: dict[str, KnownFact] = {}
    for fact in facts:
        has_expired = bool(fact.expires_ms) and fact.expires_ms <= now_ms
        is_wanted = fact.pinned or "*" in names or fact.name in names
        known = newest.get(fact.name)
        if is_wanted and not has_expired and (known is None or fact.version > known.version):
            newest[fact.name] = fact
    return sorted(newest.values(), key=lambda fact: (not fact.pinned, -fact.at_ms, fact.name))


def told(fact: KnownFact, *, now_ms: int) -> dict[str, Any]:
    """A fact with who said it, and how long ago."""
    return {"value": fact.value, "by": fact.by, "age": age(fact.at_ms, now_ms)}
