"""Who says what in a context: where it came from, whether that was proven, and how its author stands."""

from __future__ import annotations

from typing import Any

from payload.hidden import without_hidden
from schemas.event import Event

# GitHub says how the author stands to the repository, under the thing that was written.
_STANDING_HOLDERS = ("comment", "review", "issue", "pull_request", "discussion", "release")
STANDINGS = frozenset(
    {"OWNER", "MEMBER", "COLLABORATOR", "CONTRIBUTOR", "FIRST_TIME_CONTRIBUTOR", "FIRST_TIMER", "MANNEQUIN", "NONE"}
)
UNTRUSTED = ("context", "event.subject", "event.actor", "event.summary", "event.url", "provenance.actor")


def standing_of(data: Any) -> str:
    """The author's standing where the vendor says it, as one of a closed set; else empty."""
    if not isinstance(data, dict):
        return ""
    for holder in _STANDING_HOLDERS:
        inner = data.get(holder)
        said = inner.get("author_association") if isinstance(inner, dict) else None
        if isinstance(said, str) and said in STANDINGS:
            return said
    return ""


def provenance(event: Event, data: Any, *, verified: bool) -> dict[str, Any]:
    """Trusted words about the event: everything here is ours or of a closed set, apart from the actor's name."""
    found: dict[str, Any] = {"source": event.source, "provider": event.provider, "verified": verified}
    if event.actor:
        found["actor"] = without_hidden(event.actor)[0][:100]
    if standing := standing_of(data):
        found["standing"] = standing
    if event.flags:
        found["flags"] = list(event.flags)
    found["untrusted"] = list(UNTRUSTED)
    return found
