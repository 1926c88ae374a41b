"""What the curator made for an agent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a protocol sends beside the context, for the budget: a ceiling on the bytes as sent has room for it.

    `text` is the same on every attempt, so the context is too; what varies (times, the token) has at most `spare` tokens.
    `outside` is what outsiders wrote, where the protocol can leave it out when it is too long.
    """

    text: bytes = b""
    spare: int = 0
    outside: bytes = b""


NO_ENVELOPE = Envelope()


@dataclass(frozen=True, slots=True)
class Curated:
    """The agent's context as built by the curator: JSON bytes of its value, and what it cost.

    `raw_tokens` is an estimate unless an exact count was asked for.  `left_out` names what was cut (pointers into the context,
    with a word on how much).  `siblings` are further members of what the agent receives, as JSON bytes by name: `history`,
    `facts`, `missing`, `provenance`, `manifest`.  `verdict` is `deliver`, or `park` or `refuse` where a required fact is absent
    or cannot fit; `reason` then says which.  `brief` asks the protocol to leave out what of its envelope is `outside`.
    """

    context: bytes
    tokens: int
    raw_tokens: int
    digest: str
    left_out: tuple[str, ...] = ()
    siblings: tuple[tuple[str, bytes], ...] = ()
    missing: tuple[str, ...] = ()
    verdict: str = "deliver"
    reason: str = ""
    brief: bool = False

    @property
    def members(self) -> bytes:
        """The context and what stands beside it, as these bytes stand in the body."""
        return self.context + b"".join([b',"%b":%b' % (name.encode(), value) for name, value in self.siblings])


@dataclass(frozen=True, slots=True)
class Sent:
    """The body of one attempt as it was sent, but for its token, which is masked.

    `size` bytes from `at` on are the context with its siblings: they are the same on every attempt that has the same digest.
    `size` 0: they do not stand in the body as they are.
    """

    body: bytes
    at: int = 0
    size: int = 0

    @property
    def context(self) -> bytes:
        """The context with its siblings."""
        return self.body[self.at : self.at + self.size]
