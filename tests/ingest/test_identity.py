"""What makes a redelivery the same event is nothing that a stranger on the way could change."""

from __future__ import annotations

import pytest

from ingest.catalogue import Provider, catalogue
from ingest.fileform import Vector
from ingest.inbound import Reply, Request
from ingest.receive import receive
from ingest.samples import outcome_of, request_of, source_of
from schemas.errors import NightbellError
from schemas.event import Event

TRACE = "00-t"
CASES = [
    pytest.param(provider, vector, id=f"{name}-{vector.name or number}")
    for name, provider in catalogue().items()
    for number, vector in enumerate(provider.file.vector)
    if vector.expect.refused is None and vector.expect.events and provider.file.verify[0].scheme != "shared_secret"
]  # where a secret alone is shown nothing is covered, and all of it is TLS's to keep
LATER_MS = 1000


def taken(provider: Provider, vector: Vector, request: Request, *, later_ms: int = 0) -> list[Event] | None:
    """The events, or None where the request is refused or answered."""
    try:
        got = receive(request, source_of(provider, vector), round(vector.now * 1000) + later_ms, traceparent=TRACE)
    except NightbellError:
        return None
    return None if isinstance(got, Reply) else [event for event, _ in got]


def changed(request: Request) -> list[tuple[str, Request]]:
    """The request with one header or the query changed: each header altered, dropped, and some that vendors use for ids added."""
    found = []
    for at, (name, value) in enumerate(request.fields):
        others = [*request.fields[:at], *request.fields[at + 1 :]]
        found.append((f"{name} dropped", others))
        if name.lower() != "content-type":
            found.append((f"{name} altered", [*others, (name, value + "0")]))
            found.append((f"{name} another", [*others, (name, "00000000-0000-0000-0000-000000000000")]))
    for name in ("Idempotency-Key", "X-Request-Id", "X-GitHub-Delivery", "X-Webhook-Id", "webhook-id", "svix-id", "Request-ID"):
        if name.lower() not in request.headers:
            found.append((f"{name} added", [*request.fields, (name, "made-up")]))
    made = [(what, Request(request.method, request.url, fields, request.body)) for what, fields in found]
    joined = "&" if "?" in request.url else "?"
    return [*made, ("query", Request(request.method, f"{request.url}{joined}id=made-up", request.fields, request.body))]


@pytest.mark.parametrize(("provider", "vector"), CASES)
def test_what_the_signature_does_not_cover_is_no_part_of_the_identity(provider: Provider, vector: Vector):
    ids = [event.id for event in outcome_of(provider, vector)]

    others = {
        what: events
        for what, request in changed(request_of(vector))
        if (events := taken(provider, vector, request)) is not None
    }

    wrong = {what: [event.id for event in events] for what, events in others.items() if [event.id for event in events] != ids}
    assert wrong == {}


@pytest.mark.parametrize(("provider", "vector"), CASES)
def test_the_same_request_a_second_later_is_the_same_events(provider: Provider, vector: Vector):
    later = taken(provider, vector, request_of(vector), later_ms=LATER_MS)

    assert later is None or [event.id for event in later] == [event.id for event in outcome_of(provider, vector)]
