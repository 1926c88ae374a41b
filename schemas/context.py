"""What the curator made for an agent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a protocol sends beside the context, for the budget: a ceiling on the bytes as sent has room for it.

    `text` is the same on every attempt, so the context is too; what varies (times, the token) has at most `spare` tokens.
    """

    text: bytes = b""
    spare: int = 0


NO_ENVELOPE = Envelope()


@dataclass(frozen=True, slots=True)
class Curated:
    """The agent's context as built by the curator: JSON bytes of its value, and what it cost.

    `raw_tokens` is an estimate unless an exact count was asked for.  `left_out` names what was cut (pointers into the context,
    with a word on how much).  `siblings` are further members of what the agent receives, as JSON bytes by name: `history`,
    `facts`, `missing`, `provenance`, `manifest`.  `verdict` is `deliver`, or `park` or `refuse` where a required fact is absent
    or cannot fit; `reason` then says which.
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
