"""The desk: everything that an operator's act needs, handed in once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from control.auth import Caller
from control.documents import Checks
from control.metrics import RunMetrics
from schemas.config import AgentConfig, SubscriptionConfig, SubscriptionSpec
from schemas.event import Event
from store.apply import Applier
from store.audit import Act, keep_act
from store.engine import Engine
from store.keys import Keys
from store.redress import Redress
from store.refusals import Refusals
from store.sources import Sources
from store.vault import Vault


class Curation(Protocol):
    """What curating gave."""

    @property
    def context(self) -> bytes:
        """JSON, as the agent gets it."""
        ...

    @property
    def tokens(self) -> int:
        """The context's tokens."""
        ...

    @property
    def raw_tokens(self) -> int:
        """The body's tokens."""
        ...

    @property
    def digest(self) -> str:
        """The context's digest."""
        ...

    @property
    def left_out(self) -> tuple[str, ...]:
        """What did not fit."""
        ...


class Curate(Protocol):
    """Builds a context (`curator.curate`)."""

    def __call__(self, event: Event, data: Any, *, view: str | None, max_tokens: int | None) -> Curation:
        """The context of one event, under a budget."""
        ...


class Full(Curation, Protocol):
    """A context as its subscription's contract makes it."""

    @property
    def siblings(self) -> tuple[tuple[str, bytes], ...]:
        """What stands beside it: history, facts, what is missing, the manifest."""
        ...

    @property
    def missing(self) -> tuple[str, ...]:
        """What was asked for and is not there."""
        ...

    @property
    def verdict(self) -> str:
        """`deliver`, `park` or `refuse`."""
        ...

    @property
    def reason(self) -> str:
        """Why it is not delivered."""
        ...


class Contexts(Protocol):
    """Makes the context that a subscription's agent gets, history, facts and lookups included."""

    def __call__(self, subscription: SubscriptionConfig, event: Event, data: Any) -> Awaitable[Full]:
        """The context of one event."""
        ...


class Replay(Protocol):
    """Plans events anew, with today's rules, and admits them."""

    def __call__(self, events: Sequence[tuple[Event, Any]], *, replay_id: str, subscription: str) -> Awaitable[int]:
        """How many invocations were queued; those of this replay that are there already are not queued again.

        `subscription` restricts it to one by name; "" is all.
        """
        ...


class Explain(Protocol):
    """Says why a subscription matches a document, or not (`router.explain`)."""

    def __call__(
        self, subscription: SubscriptionConfig, document: Mapping[str, Any], *, later: Sequence[tuple[str, str]] = ()
    ) -> Mapping[str, Any]:
        """{"matched", "fields", …}; `later` is what the steps after matching decided."""
        ...


class Lint(Protocol):
    """Finds what is probably not meant in rules (`router.lint`)."""

    def __call__(
        self,
        rules: Mapping[str, SubscriptionSpec],
        among: Mapping[str, SubscriptionSpec],
        types: Collection[str] | None,
        samples: Sequence[Mapping[str, Any]],
        /,
    ) -> list[dict[str, str]]:
        """Findings {"rule", "code", "text", …} on `rules`; `among` are the others of the team, `samples` kept events."""
        ...


class Mint(Protocol):
    """Makes an invocation's own token."""

    def __call__(self, *, team: str, invocation_id: str, event_id: str, expires_ms: int, attempt: int = 0) -> str:
        """A token that opens this event and, for this attempt, this invocation's calls until `expires_ms`."""
        ...


@dataclass(frozen=True, slots=True)
class Tools:
    """Faces of other rooms, each the room's own function or a thin wrapper that wiring makes."""

    view: Callable[[bytes, str, str], tuple[Any, Sequence[str]]]  # body, content type, pointer -> data, flags
    explain: Explain
    match: Callable[[SubscriptionSpec, Mapping[str, Any]], Mapping[str, Any]]  # rule, document -> {"matched", …}
    lint: Lint
    curate: Curate
    ping: Callable[[AgentConfig], Awaitable[Mapping[str, Any]]]  # a signed synthetic event -> {"ok", "steps"}
    replay: Replay
    contexts: Contexts | None = None


@dataclass(frozen=True, slots=True)
class Desk:
    """What acts work with."""

    engine: Engine
    vault: Vault
    applier: Applier
    sources: Sources
    keys: Keys
    refusals: Refusals
    redress: Redress
    checks: Checks
    tools: Tools
    ingest_url: str
    api_url: str
    now_ms: Callable[[], int]
    nudge: Callable[[], None] = field(default=lambda: None)  # wakes who runs replays and redrives by query
    mint: Mint | None = None
    runs: RunMetrics | None = None

    async def noted(self, caller: Caller, act: str, on: str, detail: str = "") -> None:
        """Add a line to the audit about an act whose own transaction has none."""
        await keep_act(self.engine, Act(caller.team, caller.name, act, on, detail), at_ms=self.now_ms())
