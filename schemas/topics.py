"""Names of topics, and the record that travels on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

DEFAULT_PREFIX = "nightbell"
DEFAULT_PARTITIONS = 6
MAX_RECORD_BYTES = 27 * 1024 * 1024  # ingest's body cap (26 MiB) and its headers


def events_topic(family: str, prefix: str = DEFAULT_PREFIX) -> str:
    """Where a provider family's events travel: `nightbell.events.github`."""
    return f"{prefix}.events.{family}"


def outcomes_topic(prefix: str = DEFAULT_PREFIX) -> str:
    """Where what became of invocations is told."""
    return f"{prefix}.outcomes"


def rejected_topic(prefix: str = DEFAULT_PREFIX) -> str:
    """Where records that could not be routed are set aside."""
    return f"{prefix}.rejected"


class Place(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A record to append.  `note` is not stored: a driver that hands over in memory passes it on, others drop it."""

    topic: str
    key: str
    value: bytes
    headers: Mapping[str, str]
    note: Any = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Record:
    """A stored record.  Positions of one place rise, not always by one; `appended_ms` is the log's own time."""

    topic: str
    partition: int
    position: int
    key: str
    value: bytes
    headers: Mapping[str, str]
    appended_ms: int
    note: Any = field(default=None, compare=False)
