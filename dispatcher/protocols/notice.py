"""A notice to a person: a signed POST that says what could not be done, why, and how to answer; no agent works on it."""

from __future__ import annotations

from dataclasses import replace

import orjson

from dispatcher.ports import Answered, Curated
from dispatcher.protocols.base import ACCEPTED, DELIVERED, GONE, REJECTED, Attempt, Call, Links, Outcome, Target
from dispatcher.protocols.webhook import Webhook
from schemas.context import Envelope
from schemas.ledger import Head
from schemas.times import iso

TYPE = "nightbell.invocation.needs_human"
_WORDS = {ACCEPTED: DELIVERED, GONE: REJECTED}
_HEADROOM_TOKENS = 256


class Notice:
    """Tells of an invocation; what is answered says only whether the notice arrived.

    It carries no token: its receiver may pass it on to a chat.  `text` is what incoming webhooks of chats show.
    """

    def __init__(self, *, answer_until_ms: int = 0) -> None:
        """`answer_until_ms`: until when a redrive or a cancel is waited for; 0: it is not."""
        self._answer_until_ms = answer_until_ms

    def envelope(self, head: Head, links: Links) -> Envelope:
        """What stands beside the context."""
        return Envelope(orjson.dumps(self._told(head, links)), _HEADROOM_TOKENS)

    def build(self, head: Head, curated: Curated, target: Target, links: Links, attempt: Attempt) -> Call:
        """The signed request.  Its id is not the invocation's: who gets both must not take one for a repeat of the other."""
        told = orjson.dumps(self._told(head, links))
        body = b"".join((told[:-1], b',"context":', curated.context, b"}"))
        ident = f"{head.invocation.id}.notice{head.step}"
        timestamp_s = attempt.started_ms // 1000
        headers = {
            **target.headers,
            "content-type": "application/json",
            "user-agent": target.user_agent,
            "webhook-id": ident,
            "idempotency-key": ident,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": target.signer.sign(ident, timestamp_s, body),
        }
        return Call("POST", target.url, headers, body)

    def interpret(self, answer: Answered) -> Outcome:
        """As of any webhook, but that it is taken by a 202 too, and that a 410 says nothing about the subscription."""
        outcome = Webhook().interpret(answer)
        return replace(outcome, word=_WORDS.get(outcome.word, outcome.word))

    def _told(self, head: Head, links: Links) -> dict[str, object]:
        invocation, event = head.invocation, head.event
        about = event.summary or event.type
        url = links.complete.removesuffix("/complete")
        found: dict[str, object] = {
            "type": TYPE,
            "text": f"{invocation.subscription}: {about}. It could not be done: {head.fell_for}. {url}",
            "why": head.fell_for,
            "invocation": {
                "id": invocation.id,
                "subscription": invocation.subscription,
                "ordering_key": invocation.ordering_key,
                "attempts": head.attempts,
                "created": iso(invocation.created_ms),
            },
            "event": {
                name: value
                for name in ("id", "source", "type", "kind", "subject", "actor", "url", "summary")
                if (value := getattr(event, name))
            },
            "links": {"event": links.event, "invocation": url, "redrive": f"{url}/redrive", "cancel": f"{url}/cancel"},
        }
        if self._answer_until_ms:
            found["answer_until"] = iso(self._answer_until_ms)
        return found
