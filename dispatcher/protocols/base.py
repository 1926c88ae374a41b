"""What a protocol is: it says how an agent is called, and what its answer means, without doing either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from dispatcher.ports import Answered, Curated
from dispatcher.signing import Signer
from schemas.context import Envelope
from schemas.errors import AddressRefused, NightbellError
from schemas.ledger import Head

# The closed set of words for how an attempt ended (schemas.ledger.Settlement).
DELIVERED, ACCEPTED = "delivered", "accepted"
THROTTLED, REJECTED, GONE, MISCONFIGURED, FAILED = "throttled", "rejected", "gone", "misconfigured", "failed"
TIMEOUT, UNREACHABLE, UNKNOWN = "timeout", "unreachable", "unknown"
OUTCOMES = frozenset({
    DELIVERED, ACCEPTED, THROTTLED, REJECTED, GONE, MISCONFIGURED, FAILED, TIMEOUT, UNREACHABLE, UNKNOWN,
})  # fmt: skip

MAX_KEPT_ANSWER_BYTES = 4096
MAX_RETRY_AFTER_CHARS = 64
# What only an operator can mend: the name, the certificate, the address itself.
_MISCONFIGURED_KINDS = frozenset({"dns", "tls", "url", "address"})


@dataclass(frozen=True, slots=True)
class Target:
    """An agent, made ready for many calls.  `headers` are the operator's own, their names in lower case."""

    name: str
    url: str
    signer: Signer
    headers: Mapping[str, str]
    user_agent: str


@dataclass(frozen=True, slots=True)
class Links:
    """Where the agent reads more, and reports; `token` opens these two and nothing else."""

    event: str
    complete: str
    token: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try: its number (from 1), when it starts and when it must have ended."""

    number: int
    started_ms: int
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Call:
    """A request, ready to be sent."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: a word of the closed set, and what is kept of the answer for people.

    `is_ours` says that the agent was not asked at all, for a reason of this invocation: it tells nothing about the agent.
    `exchange` is the frame of a failed call, as `dispatcher.exchange` keeps it.
    """

    word: str
    status: int = 0
    retry_after: str = ""
    error: str = ""
    answer: bytes = b""
    sent: bool = True
    is_ours: bool = False
    offer: bytes | None = None  # what a pull agent is to fetch
    exchange: bytes = b""


class AgentProtocol(Protocol):
    """One way of waking an agent."""

    def envelope(self, head: Head, links: Links) -> Envelope:
        """What goes into the body beside the context, for its budget."""
        ...

    def build(self, head: Head, curated: Curated, target: Target, links: Links, attempt: Attempt) -> Call:
        """The request of this attempt; the same arguments give the same bytes."""
        ...

    def interpret(self, answer: Answered) -> Outcome:
        """What the answer means."""
        ...


def unanswered(exc: NightbellError) -> Outcome:
    """The outcome of a call that egress could not bring to an answer.

    Where the request may have reached the agent it is `unknown`, whatever cut the answer off: the agent may have acted.
    """
    kind = str(exc.fields.get("kind", ""))
    sent = bool(exc.fields.get("sent", False))
    error = f"{kind or exc.code}: {exc.detail}"
    if isinstance(exc, AddressRefused) or kind in _MISCONFIGURED_KINDS:
        return Outcome(MISCONFIGURED, error=error, sent=False)
    if sent:
        return Outcome(UNKNOWN, error=error, sent=True)
    return Outcome(TIMEOUT if exc.code == "agent_timed_out" else UNREACHABLE, error=error, sent=False)


def is_success(outcome: Outcome) -> bool:
    """Whether the agent took it."""
    return outcome.word in {DELIVERED, ACCEPTED}
