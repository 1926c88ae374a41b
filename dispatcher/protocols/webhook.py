"""Protocol `webhook`: a signed POST of one JSON document (Standard Webhooks)."""

from __future__ import annotations

from hashlib import sha256

import orjson

from dispatcher.ports import Answered, Curated
from dispatcher.protocols.base import (
    ACCEPTED,
    DELIVERED,
    FAILED,
    GONE,
    MAX_KEPT_ANSWER_BYTES,
    MAX_RETRY_AFTER_CHARS,
    MISCONFIGURED,
    REJECTED,
    THROTTLED,
    Attempt,
    Call,
    Links,
    Outcome,
    Target,
)
from payload.hidden import without_hidden
from schemas.context import Envelope
from schemas.event import Event
from schemas.ledger import Head
from schemas.times import iso

# One word per status; a range below takes the rest.  A redirect is never followed: a signed body and a token do not travel to
# an address that nobody configured.  That the agent has moved is its operator's to mend and no fault of the event, so 3xx
# stands with 404 (hold the lanes, probe) and not with 422 (bury): an http-to-https redirect set up at noon must not bury the
# afternoon.
_WORD_BY_STATUS = {
    202: ACCEPTED,
    401: MISCONFIGURED,
    403: MISCONFIGURED,
    404: MISCONFIGURED,
    405: MISCONFIGURED,
    410: GONE,
    429: THROTTLED,
    503: THROTTLED,
}
_WORD_BY_CLASS = {2: DELIVERED, 3: MISCONFIGURED, 4: REJECTED}
_TEXTS = ("subject", "actor", "url", "summary")
_FRAME = (
    b'{"invocation":{"id":"","attempt":0,"agent":"","subscription":"","ordering_key":"","deadline":""},"event":,"context":,'
    b'"links":{"event":"","complete":"","token":""}}'
)
_VARYING_TOKENS = 32  # the attempt's number and its deadline, a token for every character


class Webhook:
    """The plain signed webhook of INTERFACE.md, "What an agent receives"."""

    def envelope(self, head: Head, links: Links) -> Envelope:
        """The body without the context, and without what only this attempt has."""
        invocation = head.invocation
        same = (
            (invocation.id, invocation.agent, invocation.subscription, invocation.ordering_key),
            _event(head.event, brief=True),
            (links.event, links.complete),
        )
        outside = orjson.dumps(_texts(head.event))
        return Envelope(_FRAME + orjson.dumps(same), _VARYING_TOKENS + len(links.token), outside)

    def build(self, head: Head, curated: Curated, target: Target, links: Links, attempt: Attempt) -> Call:
        """The signed request.  The context's bytes go in as they are, never parsed again."""
        invocation, event = head.invocation, head.event
        body = b"".join((
            b'{"invocation":',
            orjson.dumps({
                "id": invocation.id,
                "attempt": attempt.number,
                "agent": target.name,
                "subscription": invocation.subscription,
                "ordering_key": invocation.ordering_key,
                "deadline": iso(attempt.deadline_ms),
            }),
            b',"event":',
            orjson.dumps(_event(event, brief=curated.brief)),
            b',"context":',
            curated.members,
            b',"checkpoint":' + head.run.checkpoint if head.run is not None and head.run.checkpoint else b"",
            b',"links":',
            orjson.dumps({"event": links.event, "complete": links.complete, "token": links.token}),
            b"}",
        ))  # fmt: skip
        timestamp_s = attempt.started_ms // 1000
        headers = {
            **target.headers,
            "content-type": "application/json",
            "user-agent": target.user_agent,
            "webhook-id": invocation.id,
            "idempotency-key": invocation.id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": target.signer.sign(invocation.id, timestamp_s, body),
            "traceparent": traceparent(event.traceparent, invocation.id, attempt.number),
        }
        return Call("POST", target.url, headers, body)

    def interpret(self, answer: Answered) -> Outcome:
        """The table of answers of INTERFACE.md."""
        status = answer.status
        word = _WORD_BY_STATUS.get(status) or _WORD_BY_CLASS.get(status // 100, FAILED)
        return Outcome(
            word,
            status=status,
            retry_after=answer.headers.get("retry-after", "")[:MAX_RETRY_AFTER_CHARS] if word == THROTTLED else "",
            error="" if status < 300 else f"answered {status}",  # noqa: PLR2004 - HTTP's own border
            answer=answer.body[:MAX_KEPT_ANSWER_BYTES],
        )


def _event(event: Event, *, brief: bool) -> dict[str, str]:
    """The event's attributes; with `brief` only those whose length no outsider chooses."""
    found = {"id": event.id, "source": event.source, "type": without_hidden(event.type)[0], "time": iso(event.time_ms)}
    if event.kind:
        found["kind"] = event.kind
    return found if brief else found | _texts(event)


def _texts(event: Event) -> dict[str, str]:
    """What outsiders wrote, freed of what only a model would read."""
    return {name: without_hidden(value)[0] for name in _TEXTS if (value := getattr(event, name))}


def traceparent(parent: str, invocation_id: str, number: int) -> str:
    """W3C trace context for an attempt: the event's trace, and a span id that only this attempt has.

    The span id comes from the invocation and the attempt's number, so a replayed run gives the same bytes.
    """
    span = sha256(f"{invocation_id}:{number}".encode()).hexdigest()[:16]
    parts = parent.split("-")
    if len(parts) >= 4:  # noqa: PLR2004 - version, trace, parent, flags
        return f"00-{parts[1]}-{span}-{parts[3][:2]}"
    return f"00-{sha256(invocation_id.encode()).hexdigest()[:32]}-{span}-01"
