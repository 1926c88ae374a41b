"""What the curator needs from others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class TokenCounter(Protocol):
    """Counts tokens as a model would, or above, never below."""

    name: str

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        ...

    def count_within(self, text: str, limit: int) -> int | None:
        """Tokens of `text`, or None where there are more than `limit`."""
        ...


@dataclass(frozen=True, slots=True)
class PastEvent:
    """An earlier event of the same thing, and what came of it (`done`, `buried`, …; empty while it is open)."""

    event_id: str
    type: str
    at_ms: int
    actor: str = ""
    summary: str = ""
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class KnownFact:
    """Something that an agent or operator wrote down about a thing.  A pinned one is never cut."""

    name: str
    value: Any
    by: str
    at_ms: int
    version: int = 1
    pinned: bool = False
    expires_ms: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What a lookup gave, and when that was fetched; `failure` is the reason where it gave nothing."""

    value: Any = None
    fetched_ms: int = 0
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What agents' reports taught about a model family: its factor (None: its default), and the version of that."""

    factor: float | None = None
    version: int = 0


NOTHING_LEARNT = Learnt()


class Calibrations(Protocol):
    """The store's factors of model families."""

    async def of(self, *, team: str, family: str) -> Learnt:
        """What a team's agents taught about one family."""
        ...


class Histories(Protocol):
    """The store's earlier events."""

    async def last(self, *, team: str, thing: str, before_ms: int, after_ms: int, limit: int) -> Sequence[PastEvent]:
        """The newest events of one ordering key that came before `before_ms`, newest first."""
        ...


class Facts(Protocol):
    """The store's facts about things."""

    async def about(self, *, team: str, thing: str, at_ms: int) -> Sequence[KnownFact]:
        """The current version of each fact about one ordering key that has not expired at `at_ms`."""
        ...


class Reply(Protocol):
    """The part of an HTTP answer that lookups look at."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def body(self) -> bytes:
        """The body, capped."""
        ...

    @property
    def truncated(self) -> bool:
        """Whether the body went on beyond the cap."""
        ...


class Fetch(Protocol):
    """The guarded HTTP client's `request`."""

    async def __call__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None,
        timeout_s: float,
        allow_private: bool,
        max_answer_bytes: int,
    ) -> Reply:
        """One answer, whatever its status; raises NightbellError where there is none."""
        ...


class Credentials(Protocol):
    """The vault, by name."""

    async def secret(self, *, team: str, name: str) -> str:
        """The secret's value.  Raises NotFound."""
        ...
