"""What a captured request proves, and what it would become: for trying out, away from any running server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from control.capture import Captured
from ingest.catalogue import check_source
from ingest.normalize import arrivals
from ingest.prepared import PreparedSource, prepared
from ingest.receive import Reply, Request, receive
from ingest.schemes.base import Proof
from ingest.steps import KeyNeeded, Step, Unproven
from schemas.config import SourceSpec
from schemas.errors import Busy, Invalid, NightbellError, NotFound, Refused

Fetch = Callable[[str], bytes | None]
"""Gives the key that a vendor publishes at an address; None where it cannot be had."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check said.  A refusal names its step; what is proven has the first event's type and delivery id."""

    ok: bool
    type: str = ""
    deliveryid: str = ""
    step: str = ""
    error: str = ""
    hints: tuple[str, ...] = field(default=())
    handshake: str = ""

    def as_json(self) -> dict[str, Any]:
        """As INTERFACE has it: `{"ok": true, "type", "deliveryid"}` or `{"ok": false, "step", "error"}`."""
        if not self.ok:
            return {"ok": False, "step": self.step, "error": self.error, **({"hints": list(self.hints)} if self.hints else {})}
        found: dict[str, Any] = {"ok": True, "type": self.type, "deliveryid": self.deliveryid}
        return {**found, "handshake": self.handshake} if self.handshake else found


def verdict_on(captured: Captured, spec: SourceSpec, *, now_ms: int, fetch: Fetch) -> Verdict:
    """Whether `captured` proves that it comes from the vendor of `spec`; nothing in it is a secret."""
    try:
        check_source(spec)
    except (Invalid, NotFound) as exc:
        return Verdict(ok=False, step="source", error=exc.detail)
    try:
        return _taken(captured, spec, now_ms=now_ms, fetch=fetch)
    except Unproven as exc:
        hints = tuple(_hints(captured, spec, now_ms=now_ms, fetch=fetch)) if exc.step is Step.SIGNATURE_MISMATCH else ()
        return Verdict(ok=False, step=exc.step.value, error=exc.reason, hints=hints)
    except KeyNeeded as exc:
        return Verdict(
            ok=False, step="key_needed", error=f"the vendor's key at {exc.url} could not be fetched: give it as a public key"
        )
    except Busy as exc:
        return Verdict(ok=False, step="check", error=exc.detail)
    except Refused as exc:
        return Verdict(ok=False, step=exc.code, error=exc.detail)


def events_in(captured: Captured, spec: SourceSpec, *, now_ms: int) -> list[dict[str, Any]]:
    """The documents of the events that `captured` would become, unverified.  Raises `Refused`."""
    source = prepared(spec, name=spec.provider)
    found = arrivals(_request(captured), source, Proof(), now_ms, traceparent="")
    documents = [event.document(data) for event, data in found]
    for document in documents:
        del document["traceparent"]  # no request was received, so there is no trace of it
    return documents


def _request(captured: Captured) -> Request:
    return Request(captured.method, captured.url, captured.headers, captured.body)


def _taken(captured: Captured, spec: SourceSpec, *, now_ms: int, fetch: Fetch) -> Verdict:
    source = prepared(spec, name=spec.provider)
    try:
        found = receive(_request(captured), source, now_ms, traceparent="")
    except KeyNeeded as exc:
        if exc.posted:
            raise  # only the server asks with a source's secret
        found = receive(_request(captured), _with_key(spec, exc.url, fetch), now_ms, traceparent="")
    if isinstance(found, Reply):
        return Verdict(ok=True, handshake=found.name or "handshake")
    if not found:
        return Verdict(ok=True)
    first = found[0][0]
    return Verdict(ok=True, type=first.type, deliveryid=first.deliveryid)


def _with_key(spec: SourceSpec, url: str, fetch: Fetch) -> PreparedSource:
    key = fetch(url)
    return prepared(spec, name=spec.provider, fetched=lambda wanted: key if wanted == url else None)


def _hints(captured: Captured, spec: SourceSpec, *, now_ms: int, fetch: Fetch) -> Iterator[str]:
    """What a change of the body or URL on the way would explain: the signature fits once it is undone."""
    tries = [
        *(
            ("the body was changed on its way: the signature fits it " + how, _other(captured, body=body))
            for how, body in _bodies(captured.body)
        ),
        *(
            (f"the vendor called another URL: the signature fits {url}", _other(captured, url=url))
            for url in _urls(captured.url)
        ),
    ]
    for hint, other in tries:
        try:
            verdict = _taken(other, spec, now_ms=now_ms, fetch=fetch)
        except NightbellError:
            continue
        if verdict.ok and not verdict.handshake:
            yield hint
            return
    yield "most often another secret: compare it with the one that the vendor shows"


def _other(captured: Captured, *, body: bytes | None = None, url: str | None = None) -> Captured:
    return Captured(captured.method, url or captured.url, captured.headers, captured.body if body is None else body)


def _bodies(body: bytes) -> Iterator[tuple[str, bytes]]:
    variants = {
        "without the line break at its end": body.rstrip(b"\r\n"),
        "with a line break at its end": body + b"\n",
        "with CR LF line ends": body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
        "with LF line ends": body.replace(b"\r\n", b"\n"),
    }
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if document is not None:
        variants["as compact JSON: it was parsed and written anew"] = orjson.dumps(document)
        variants["as JSON with spaces: it was parsed and written anew"] = json.dumps(document).encode()
        variants["as compact JSON in ASCII: it was parsed and written anew"] = json.dumps(
            document, separators=(",", ":")
        ).encode()
        variants["as indented JSON: it was parsed and written anew"] = json.dumps(
            document, indent=2, ensure_ascii=False
        ).encode()
    for how, variant in variants.items():
        if variant != body:
            yield how, variant
        if variant + b"\n" != body and how.startswith("as "):
            yield f"{how}, with a line break at its end", variant + b"\n"


def _urls(url: str) -> Iterator[str]:
    scheme, separator, rest = url.partition("://")
    if separator:
        yield f"{'http' if scheme == 'https' else 'https'}://{rest}"
    path, question, query = url.partition("?")
    yield (path.rstrip("/") if path.endswith("/") else path + "/") + question + query
