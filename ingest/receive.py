"""One request for one source: a reply, or events.  Pure."""

from __future__ import annotations

from ingest.handshake import answer
from ingest.inbound import Reply, Request
from ingest.normalize import Arrived, arrivals
from ingest.prepared import PreparedSource, prepared
from ingest.template import Scope
from ingest.verify import verify
from schemas.errors import WrongMethod

__all__ = ["PreparedSource", "Reply", "Request", "prepared", "receive"]


def receive(request: Request, source: PreparedSource, now_ms: int, *, traceparent: str) -> Reply | list[Arrived]:
    """What the request is: a handshake's reply, or its events with the views of their items.

    Raises `WrongMethod`, `Unproven`, another `Refused`, or `SecretsUnavailable`.  The same input gives the same output.
    """
    provider = source.provider
    if request.method not in provider.methods:
        raise WrongMethod
    if provider.unsigned_handshakes:
        reply = answer(provider.unsigned_handshakes, Scope(request, source.options), source)
        if reply is not None:
            return reply
    if request.method not in provider.deliveries and not provider.signed_handshakes:
        raise WrongMethod
    proof, scope = verify(request, source, now_ms)
    if provider.signed_handshakes:
        reply = answer(provider.signed_handshakes, scope, source)
        if reply is not None:
            return reply
    if request.method not in provider.deliveries:
        raise WrongMethod
    if proof.opened:
        return arrivals(request.with_body(proof.opened), source, proof, now_ms, traceparent=traceparent)
    return arrivals(request, source, proof, now_ms, traceparent=traceparent, scope=scope)
