"""From a proven request to events: type, subject, key, identity, all from the provider's file; deterministic."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from ingest.catalogue import EventPlan
from ingest.inbound import Request
from ingest.instants import instant_ms
from ingest.prepared import PreparedSource
from ingest.schemes.base import Proof
from ingest.template import Scope
from payload.nested import opened
from payload.pointer import MISSING, Steps, every, pointer_of, reach
from schemas.errors import MalformedRequest, TooLarge
from schemas.event import Event
from schemas.ids import event_id

_IS_TYPE = re.compile(r"\S+")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_LONGEST_TYPE, _LONGEST_TEXT, _LONGEST_URL, _LONGEST_KEY = 200, 500, 2000, 300
_MAX_ITEMS = 5000
Arrived = tuple[Event, Any]


def to_events(
    request: Request, source: PreparedSource, proof: Proof | None, now_ms: int, *, traceparent: str = ""
) -> list[Event]:
    """The events that the request is; without a proof, what an unverified one would become.

    Raises `MalformedRequest` where its body cannot be read at all.

    Attributes hold no control characters (U+0000 among them: not every database takes it) and are cut to length; `body` and the
    data stay as they came.
    """
    return [event for event, _ in arrivals(request, source, proof or Proof(), now_ms, traceparent=traceparent)]


def arrivals(
    request: Request, source: PreparedSource, proof: Proof, now_ms: int, *, traceparent: str, scope: Scope | None = None
) -> list[Arrived]:
    """The events, each with the JSON view of its item."""
    plan = source.provider.event
    base = scope or Scope(request, source.options)
    items = _items(request, source, base)
    digest = _Digest(request.body)
    found: list[Arrived] = []
    identities: set[str] = set()
    for steps, data in items:
        inner = base.over(data, steps)
        inner.signature, inner.claims = proof.signature, proof.claims
        if plan.skip is not None and plan.skip(inner):
            continue
        pointer = pointer_of(steps) if steps else ""
        identity = _identity(plan, inner, proof, digest, pointer)
        if identity in identities:  # two items of one request are two events, whatever the vendor calls them
            identity = f"{identity}#{pointer}"
        identities.add(identity)
        found.append((_event(inner, source, now_ms, identity=identity, pointer=pointer, traceparent=traceparent), data))
    return found


def _items(request: Request, source: PreparedSource, scope: Scope) -> list[tuple[Steps, Any]]:
    document = request.document()
    steps: Steps = ()
    if source.provider.form_steps and isinstance(document, dict):
        inner = reach(document, source.provider.form_steps)
        if isinstance(inner, str) and request.form():
            document, steps = opened(inner), source.provider.form_steps
    found: list[tuple[Steps, Any]] = []
    is_batch = False
    for pointer in source.provider.event.batch if source.provider.event.batches(scope) else ():
        listed = reach(document, pointer[: pointer.index("*")] if "*" in pointer else pointer)
        if listed is MISSING or listed is None:
            continue
        is_batch = True
        found.extend(
            ((*steps, *walked), opened(item) if isinstance(item, str) else item) for walked, item in every(document, pointer)
        )
        if len(found) > _MAX_ITEMS:
            raise TooLarge(f"more than {_MAX_ITEMS} items in one request")
    if not is_batch:
        return [(steps, document)]
    return _innermost(found) if len(source.provider.event.batch) > 1 else found


def _innermost(found: list[tuple[Steps, Any]]) -> list[tuple[Steps, Any]]:
    """The items that hold no other: where a change has its messages, they are the events, else the change itself is."""
    holders = {steps[:length] for steps, _ in found for length in range(len(steps))}
    return [(steps, item) for steps, item in found if steps not in holders]


class _Digest:
    """The body's SHA-256 in hex, made when first asked for."""

    __slots__ = ("_body", "_hex")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._hex = ""

    def text(self) -> str:
        if not self._hex:
            self._hex = hashlib.sha256(self._body).hexdigest()
        return self._hex


def _identity(plan: EventPlan, scope: Scope, proof: Proof, digest: _Digest, pointer: str) -> str:
    """What makes a redelivery the same event; only what the signature covers is in it."""
    if plan.identity_kind == "delivery":
        named = plan.identity.text(scope)
        if named:
            return f"delivery:{named if named.isascii() else _encodable(named)}"
    if plan.identity_kind != "body" and proof.signed_ms:
        return f"signed:{proof.signed_ms}:{digest.text()}:{pointer}"
    return f"body:{digest.text()}:{pointer}"


def _encodable(text: str) -> str:
    """The text with its lone surrogates written out: a header's bytes that are no UTF-8 come as such."""
    return text.encode("utf-8", "backslashreplace").decode()


def _event(scope: Scope, source: PreparedSource, now_ms: int, *, identity: str, pointer: str, traceparent: str) -> Event:
    provider, request = source.provider, scope.request
    plan = provider.event
    named = _type_of(plan, scope)
    scope.type = named
    identifier = event_id(source.team, source.name, identity)
    key = _cut(plan.key.text(scope) or plan.subject.text(scope), _LONGEST_KEY)
    return Event(
        id=identifier,
        team=source.team,
        source=source.name,
        provider=provider.name,
        family=provider.family,
        type=f"{provider.family}.{named}",
        partitionkey=f"{source.team}/{source.name}/{key}" if key else identifier,
        time_ms=_time_of(plan, scope) or now_ms,
        received_ms=now_ms,
        traceparent=traceparent,
        datacontenttype=_clean(request.content_type) or "application/json",
        body=request.content(),
        kind=(plan.kind.text(scope) if plan.kind else "") or plan.kinds.of(named),
        subject=_cut(plan.subject.text(scope), _LONGEST_TEXT),
        actor=_cut(plan.actor.text(scope), _LONGEST_TEXT),
        url=_url_of(plan, scope),
        summary=_cut(plan.summary.text(scope), _LONGEST_TEXT),
        deliveryid=_cut(plan.delivery.text(scope), _LONGEST_TEXT),
        version=_cut(plan.version.text(scope), _LONGEST_TEXT),
        pointer=pointer,
        flags=request.flags(),
        identity_window_ms=plan.window_ms if identity.startswith("body:") else 0,
    )


def _type_of(plan: EventPlan, scope: Scope) -> str:
    named = _clean(plan.type.text(scope))[:_LONGEST_TYPE] or "unknown"
    if not named.isalnum() and not _IS_TYPE.fullmatch(named):
        named = "_".join(named.split())
    for steps in plan.shape_of(named):
        found = reach(scope.data, steps)
        if found is MISSING or found is None:
            raise MalformedRequest("the type that the header names does not fit the body")
    return named


def _time_of(plan: EventPlan, scope: Scope) -> int | None:
    for one in plan.time.fitting(scope.type):
        text = one.text(scope)
        at_ms = instant_ms(text, one.unit) if text else None
        if at_ms is not None:
            return at_ms
    return None


def _url_of(plan: EventPlan, scope: Scope) -> str:
    found = _clean(plan.url.text(scope))
    return found if found.startswith(("https://", "http://")) and len(found) <= _LONGEST_URL else ""


def _clean(text: str) -> str:
    return text.strip() if text.isprintable() else _CONTROL.sub(" ", text).strip()


def _cut(text: str, length: int) -> str:
    clean = _clean(text)
    return clean if len(clean) <= length else _shortened(clean, length)


def _shortened(text: str, length: int) -> str:
    """The text's start and a digest of all of it, so that two long ones stay two."""
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
    return f"{text[: length - 17]}~{digest}"
