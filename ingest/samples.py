"""The vectors and examples of provider files, as requests and sources."""

from __future__ import annotations

from base64 import b64decode
from urllib.parse import urlencode

from pydantic import SecretStr

from ingest.catalogue import Provider
from ingest.fileform import Sample, Vector
from ingest.inbound import Reply, Request
from ingest.normalize import to_events
from ingest.prepared import PreparedSource
from ingest.receive import receive
from ingest.schemes.base import Proof
from schemas.config import SourceConfig, SourceSpec
from schemas.event import Event

_TRACE = "00-00000000000000000000000000000001-0000000000000001-01"


def request_of(sample: Sample) -> Request:
    """The request that a sample describes."""
    body = (sample.body or "").encode()
    kind = "application/json"
    if sample.body_base64 is not None:
        body = b64decode(sample.body_base64)
    if sample.form is not None:
        body, kind = urlencode(sample.form).encode(), "application/x-www-form-urlencoded"
    headers = list(sample.headers.items())
    if body and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", kind))
    return Request(sample.method, sample.url, headers, body)


def source_of(provider: Provider, vector: Vector | None = None) -> PreparedSource:
    """A source with the vector's credentials."""
    spec = spec_of(provider, vector) if vector else SourceSpec(provider=provider.name)
    fetched = {url: text.encode() for url, text in vector.fetched.items()} if vector else {}
    return PreparedSource(SourceConfig("default", "source", "uid", spec), provider, fetched=fetched.get)


def spec_of(provider: Provider, vector: Vector) -> SourceSpec:
    """The source that an operator would write for a vector."""
    return SourceSpec(
        provider=provider.name,
        secrets=tuple(SecretStr(secret) for secret in vector.secrets),
        public_keys=vector.public_keys,
        username=vector.username,
        password=SecretStr(vector.password) if vector.password is not None else None,
        options=vector.options,
    )


def outcome_of(provider: Provider, vector: Vector) -> Reply | list[Event]:
    """What a vector becomes."""
    got = receive(request_of(vector), source_of(provider, vector), round(vector.now * 1000), traceparent=_TRACE)
    return got if isinstance(got, Reply) else [event for event, _ in got]


def events_of(provider: Provider, sample: Sample, *, now_ms: int = 1_750_000_000_000) -> list[Event]:
    """What an unsigned example becomes."""
    return to_events(request_of(sample), source_of(provider), Proof(), now_ms, traceparent=_TRACE)


def differences(provider: Provider, sample: Sample, got: Reply | list[Event]) -> list[str]:
    """Where `got` is not what the sample expects; empty where all is well."""
    expect = sample.expect
    events = [] if isinstance(got, Reply) else got
    found = [] if len(events) == expect.events else [f"events: {len(events)}, not {expect.events}"]
    if isinstance(got, Reply):
        pairs: list[tuple[str, object, object]] = [
            ("status", got.status, expect.status),
            ("reply", got.body.decode(), expect.reply),
            ("content_type", got.content_type, expect.content_type),
            ("headers", got.headers, expect.headers),
            ("keeps", got.kept_secret, expect.keeps),
            ("calls", got.fetch_url, expect.calls),
        ]
    else:
        pairs = [(name, _field(event, name), getattr(expect, name)) for event in events[:1] for name in _FIELDS]
    found += [f"{name}: {is_!r}, not {wanted!r}" for name, is_, wanted in pairs if wanted is not None and is_ != wanted]
    if not isinstance(got, Reply):
        found += [f"{event.type}: no kind of family {provider.family}" for event in events if event.family != provider.family]
    return found


_FIELDS = ("type", "kind", "subject", "key", "actor", "deliveryid", "time", "url", "summary", "version")


def _field(event: Event, name: str) -> str:
    if name == "key":
        return event.partitionkey.removeprefix(f"{event.team}/{event.source}/")
    return str(event.envelope()["time"] if name == "time" else getattr(event, name))
