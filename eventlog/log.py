"""The event log's contract: what every driver promises, and nothing that one of them cannot keep.

* `append` returns when every record is durable, or raises; after it raised, any of them may or may not be there.  A topic that
  is not there yet is created with the log's default number of partitions.  Cancelling an append does not take it back.
* Records with one key of one topic lie in one partition, in the order of the calls (one caller awaiting each; records of one
  call keep their order).  Positions of a partition rise; they need not be dense.
* A record, once readable, never changes its position, and no record appears later at a smaller position.
* Cursors are the caller's (the store keeps them): a reader starts where its `start` says and never skips.  A start outside
  [oldest, end] raises `CursorLost`; a record that fails its checksum raises `DamagedRecord`, and whoever reads on from the
  position after it finds the rest.  Both name `topic`, `partition` and `position` in their `fields`.
* Retention is by age and bytes; it removes whole records from a partition's old end only.
* A record larger than `max_record_bytes` is refused with `TooLarge`; a full queue with `Saturated`; a log that cannot write
  now with `LogUnavailable`.
* `aclose` refuses new appends, finishes those under way within its grace, and releases everything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from schemas.topics import Draft, Place, Record

Start = Callable[[Sequence[Place]], Awaitable[Mapping[Place, int]]]
"""Asked on assignment: the position of the next record to read, by place; a place left out starts at the oldest record."""


class Bounds(NamedTuple):
    """`oldest` is the first position that can be read, `end` the position after the last record; equal where it is empty."""

    oldest: int
    end: int


class Lag(NamedTuple):
    """How far a cursor is behind: records (at most, where positions are not dense), and the age of the next one in seconds."""

    records: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one place, in order.  `is_owned` is asked before each durable step: false after a revocation.

    `after` is the cursor that stands behind the last record (what to store as the next position).
    """

    place: Place
    records: tuple[Record, ...]
    first: int
    after: int
    is_owned: Callable[[], bool]


class Reader(Protocol):
    """Reads the partitions that it is assigned; with one process, all of them."""

    async def next(self) -> Batch:
        """The next batch of some assigned place; waits for one, without polling where the driver can.  One caller at a time.

        Raises `CursorLost` and `DamagedRecord` once for a place, which then rests until `seek`, while the others go on;
        `LogUnavailable` when the log cannot be read now (call again) or is closed; and whatever `start` raised (call again).
        """
        ...

    def progressed(self, place: Place, after: int) -> None:
        """Note that everything before `after` is dealt with: for lag displays, written in the background, if at all."""
        ...

    def seek(self, place: Place, position: int) -> None:
        """Go on from `position` instead, where the place is still assigned: after a plan that could not be admitted."""
        ...

    def watch(self, topics: Sequence[str]) -> None:
        """Read these topics too, from where `start` says; one that is not there yet is picked up when it is created."""
        ...

    async def aclose(self) -> None:
        """Stop reading and give the assignment back; a waiting `next` raises `LogUnavailable`."""
        ...


class EventLog(Protocol):
    """The log, by whatever driver."""

    @property
    def log_id(self) -> str:
        """The log's own identity: a cursor is meaningful only together with it."""
        ...

    @property
    def max_record_bytes(self) -> int:
        """The largest record (key, value and headers) that `append` takes."""
        ...

    async def start(self) -> None:
        """Open or connect; check what the promises rest on.  Raises `BadSetting`, `LogUnavailable`."""
        ...

    async def ensure(self, topics: Mapping[str, int]) -> None:
        """Create the topics that are missing, each with that many partitions; a different number raises `BadSetting`."""
        ...

    async def append(self, drafts: Sequence[Draft]) -> list[tuple[Place, int]]:
        """Append, and return where each record lies once all are durable, in the order of `drafts`.

        Raises `TooLarge`, `MalformedRequest` (a key or header that is not valid Unicode), `Saturated`, `LogUnavailable`.
        """
        ...

    async def places(self, topic: str) -> list[Place]:
        """The partitions of a topic; empty where there is no such topic."""
        ...

    async def bounds(self, place: Place) -> Bounds:
        """The positions that can be read now.  Raises `CursorLost` where there is no such place."""
        ...

    async def read(self, place: Place, position: int, *, max_records: int = 500, max_bytes: int = 8 << 20) -> list[Record]:
        """Records from `position` on, at least one where there is one; never waits.  Raises `CursorLost`, `DamagedRecord`."""
        ...

    async def position_at(self, place: Place, at_ms: int) -> int:
        """The position of the first record appended at `at_ms` or later; the end where there is none."""
        ...

    async def lag(self, place: Place, position: int) -> Lag:
        """How far a cursor at `position` is behind the end."""
        ...

    def reader(self, *, group: str, topics: Sequence[str], start: Start) -> Reader:
        """A reader of all partitions of `topics` that this process is given among the members of `group`.

        In a log of one process the newest reader of a group is given everything; those before it own nothing until it closes.
        """
        ...

    async def trim(self, *, older_than_ms: int, max_bytes: int | None = None) -> int:
        """Apply retention now; the number of records removed (0 where the broker does it by itself).

        Removed is what was appended before the instant `older_than_ms`; then the oldest, until `max_bytes` hold the rest.
        """
        ...

    async def healthy(self) -> bool:
        """Whether an append would be taken now, by a bounded look."""
        ...

    async def aclose(self, *, grace_s: float = 10.0) -> None:
        """Stop gracefully."""
        ...
