"""What is kept of a call: its body as it was sent, the token masked."""

from __future__ import annotations

from typing import Literal

from dispatcher.protocols.base import Call, Links, Outcome, is_success
from schemas.context import Curated, Sent

KeepSent = Literal["all", "failed", "none"]
MASK = b"(token)"


def sent_to_keep(keep: KeepSent, call: Call, curated: Curated, links: Links, outcome: Outcome) -> Sent | None:
    """The body of `call` as it is kept; None where nothing was sent or it is not to be kept (`failed`: an agent took it)."""
    went_out = outcome.sent or outcome.offer is not None
    if keep == "none" or not went_out or (keep == "failed" and is_success(outcome)):
        return None
    body = call.body.replace(links.token.encode(), MASK) if links.token else call.body
    context = curated.members
    at = body.find(context)
    return Sent(body, at, len(context)) if at >= 0 else Sent(body)
