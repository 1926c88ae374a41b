"""What ingest needs from others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from schemas.config import SourceConfig
from schemas.topics import Draft, Place


class Log(Protocol):
    """Where events become durable."""

    async def append(self, drafts: Sequence[Draft]) -> list[tuple[Place, int]]:
        """Return when all are durable."""
        ...


class SourceShelf(Protocol):
    """The store's sources, as the book reads them."""

    async def version(self) -> int:
        """A number that changes with every change of a source."""
        ...

    async def sources(self) -> list[SourceConfig]:
        """All sources of all teams, secrets in the clear."""
        ...


class Seal(Protocol):
    """Authenticated encryption under the master key."""

    def seal(self, plain: bytes, *, context: str) -> bytes:
        """Encrypt; `context` is bound to the result."""
        ...

    def unseal(self, sealed: bytes, *, context: str) -> bytes:
        """Decrypt.  Raises `SecretsUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was not taken: kept for the operator, without credentials and without its body."""

    team: str
    source: str
    at_ms: int
    code: str
    step: str
    reason: str
    method: str
    headers: dict[str, str] = field(default_factory=dict)
    body_digest: str = ""
    body_bytes: int = 0
    remote: str = ""


class RefusalShelf(Protocol):
    """Where refusals are kept."""

    async def keep(self, refusals: Sequence[Refusal]) -> None:
        """Keep them; the oldest beyond a cap per source go."""
        ...


class SecretShelf(Protocol):
    """Where a secret goes that a vendor brings in a handshake (Asana, Notion)."""

    async def keep_secret(self, team: str, source: str, secret: str) -> bool:
        """Keep it, sealed, and say True; False where the stored source has a secret, also one that cannot be opened now."""
        ...


class Fetch(Protocol):
    """The guarded client, as ingest needs it: vendors' public keys, and confirmations that they ask for."""

    async def __call__(self, url: str, posted: bytes = b"") -> bytes:
        """The body of a 200 answer over https, `posted` being JSON to post there instead of a GET.

        Raises `Busy`, `AgentFailed` or `Misconfigured`.
        """
        ...
