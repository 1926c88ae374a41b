"""Protocol `pull`: the agent is never called; the same document waits until it fetches it."""

from __future__ import annotations

from dispatcher.ports import Curated
from dispatcher.protocols.base import Attempt, Call, Links, Target
from dispatcher.protocols.webhook import Webhook
from schemas.ledger import Head


class Pull(Webhook):
    """The webhook's document and headers without a signature: who fetches it has proven itself by its API key.

    Its deadline and its links stand for the offer; whoever fetches it gets those of the run.
    """

    def build(self, head: Head, curated: Curated, target: Target, links: Links, attempt: Attempt) -> Call:
        """The call as a webhook agent would get it, to no address."""
        call = super().build(head, curated, target, links, attempt)
        unsigned = {name: value for name, value in call.headers.items() if not name.startswith("webhook-")}
        return Call("", "", unsigned, call.body)
