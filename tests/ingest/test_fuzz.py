"""Whatever comes, only declared errors come out, and nothing unproven is taken."""

from __future__ import annotations

import gzip
import hmac
import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.catalogue import Provider, catalogue
from ingest.fileform import Vector
from ingest.inbound import Reply, Request
from ingest.normalize import to_events
from ingest.prepared import PreparedSource
from ingest.receive import receive
from ingest.samples import request_of, source_of, spec_of
from ingest.schemes.base import Proof
from payload.read import view
from schemas.config import SourceConfig
from schemas.errors import MalformedRequest, NightbellError, Refused
from schemas.event import Event, from_headers, to_headers
from tests.fakes.provider_forms import MAC, provider, source
from tests.ingest.drawn import (
    BODIES,
    JSONS,
    TALLY,
    TEXTS,
    TOKENS,
    bent_bodies,
    bent_bytes,
    bent_texts,
    came_to,
    tried,
    with_body,
)

NOW_MS = 1_750_000_000_000
TRACE = "00-t"
NAMED = {name: made for name, made in catalogue().items() if made.file.vector}


def signatures(of: Provider, vector: Vector) -> list[str]:
    """The headers that a delivery of this vector has, and those that the provider's checks read."""
    read = {
        place[8:-1].partition("|")[0].removeprefix("$")
        for one in of.file.verify
        for place in one.signature
        if "{header:" in place
    }
    return sorted({*vector.headers, *read})


@pytest.mark.parametrize("name", NAMED)
@tried(15)
@given(data=st.data())
def test_any_request_to_any_provider_is_answered_or_refused_as_declared(name: str, data: st.DataObject):
    vector = data.draw(st.sampled_from(NAMED[name].file.vector))
    body, kind = data.draw(BODIES)
    coded = data.draw(st.sampled_from(["", "", "gzip", "deflate", "br"]))
    values = TEXTS | TOKENS | TOKENS.map("Bearer {}".format) | st.sampled_from(["", *vector.headers.values()])
    fields = [(header, data.draw(values)) for header in signatures(NAMED[name], vector)]
    fields += [("Content-Type", kind), ("Content-Encoding", coded)]
    query = data.draw(TEXTS | st.dictionaries(st.sampled_from(["token", "sig", "hub.mode", "jwt"]), TEXTS).map(urlencode))
    method = data.draw(st.sampled_from([*[vector.method] * 9, "POST", "GET", "HEAD", "OPTIONS", "PUT"]))
    request = Request(method, f"{vector.url}?{query}", fields, gzip.compress(body) if coded == "gzip" else body)

    try:
        got = receive(request, source_of(NAMED[name], vector), at_ms(vector), traceparent=TRACE)
    except NightbellError as refusal:
        came_to(NAMED[name], refusal)
        return

    came_to(NAMED[name], "answered" if isinstance(got, Reply) else "taken")
    assert isinstance(got, Reply) or all(can_be_kept(event) for event, _ in got)


@pytest.mark.parametrize("name", [name for name, made in NAMED.items() if any(it.public_keys for it in made.file.vector)])
@tried(25)
@given(
    key=TEXTS | JSONS.map(json.dumps) | st.sampled_from(["-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "MAA="])
)
def test_a_public_key_that_is_none_refuses_and_breaks_nothing(name: str, key: str):
    vector = next(it for it in NAMED[name].file.vector if it.public_keys)
    spec = spec_of(NAMED[name], vector).model_copy(update={"public_keys": (key,)})
    keyless = PreparedSource(SourceConfig("default", "source", "uid", spec), NAMED[name])

    with pytest.raises(NightbellError) as refusal:
        receive(request_of(vector), keyless, at_ms(vector), traceparent=TRACE)
    came_to(NAMED[name], refusal.value)


@tried(600)
@given(read=BODIES, pointer=st.sampled_from(["", "/a", "/json", "/a/d", "a", "/~2"]) | TEXTS)
def test_reading_a_body_raises_nothing_but_that_it_cannot_be_read(read: tuple[bytes, str], pointer: str):
    body, kind = read
    try:
        document, flags = view(body, kind, pointer)
    except MalformedRequest:
        TALLY["any", "MalformedRequest"] += 1
        return

    TALLY["any", "read"] += 1
    assert json.loads(json.dumps(document)) == document
    assert all(isinstance(flag, str) for flag in flags)


@pytest.mark.parametrize("name", NAMED)
@tried(12)
@given(data=st.data())
def test_a_delivery_that_was_bent_on_its_way_raises_only_what_is_declared(name: str, data: st.DataObject):
    vector = data.draw(st.sampled_from(NAMED[name].file.vector))
    good = request_of(vector)
    bent = data.draw(st.sampled_from(["body", "url", *(key for key, _ in good.fields)]))
    headers = [(key, data.draw(bent_texts(value) | TEXTS) if key == bent else value) for key, value in good.fields]
    body = data.draw(bent_bytes(good.body) | st.just(b"[" * 3000) | st.just(b'{"a":NaN}')) if bent == "body" else good.body
    address, _, query = good.url.partition("?")  # the address chose the source before anything was read
    url = f"{address}?{data.draw(bent_texts(query))}" if bent == "url" else good.url

    try:
        got = receive(
            Request(good.method, url, headers, body), source_of(NAMED[name], vector), at_ms(vector), traceparent=TRACE
        )
    except NightbellError as refusal:
        came_to(NAMED[name], refusal)
        return

    came_to(NAMED[name], "answered" if isinstance(got, Reply) else "taken")
    assert isinstance(got, Reply) or all(can_be_kept(event) for event, _ in got)


@pytest.mark.parametrize("name", NAMED)
@tried(12)
@given(data=st.data())
def test_an_authentic_delivery_with_an_odd_body_becomes_events_that_can_be_kept(name: str, data: st.DataObject):
    sample = data.draw(st.sampled_from([*NAMED[name].file.vector, *NAMED[name].file.example]))
    request = with_body(sample, data.draw(bent_bodies(request_of(sample).body)))
    proof = Proof(signed_ms=data.draw(st.sampled_from([0, NOW_MS])))

    try:
        events = to_events(request, source_of(NAMED[name]), proof, NOW_MS, traceparent=TRACE)
    except Refused as refusal:
        came_to(NAMED[name], refusal)
        return

    came_to(NAMED[name], "normalised")
    assert all(can_be_kept(event) for event in events)
    assert len({event.id for event in events}) == len(events)


def at_ms(vector: Vector) -> int:
    return round(vector.now * 1000)


def can_be_kept(event: Event) -> bool:
    kept = to_headers(event)
    "".join(kept.values()).encode()
    return "\x00" not in "".join(kept.values()) and from_headers(kept, event.body) == event


ANY = provider(
    MAC,
    event='type = ["{header:X-T}.{/a}", "{/a/b|snake}"]\nbatch = ["/*", "/items/*"]\nsubject = ["{/*/id|short:20}", "{jmes:a.b}"]\n'
    'key = "{/a|lower}"\ntime = "{/at}"\nurl = "{/url}"\nsummary = "{/a?} {/b|line}"',
)


@tried(200)
@given(document=JSONS, header=st.text(max_size=10))
def test_any_authentic_json_becomes_events_that_can_be_kept(document: object, header: str):
    body = json.dumps(document).encode()
    code = hmac.new(b"s", body, "sha256").hexdigest()
    request = Request("POST", "https://h/in/s", [("X-Sig", code), ("X-T", header), ("Content-Type", "application/json")], body)

    got = receive(request, source(ANY, secrets=["s"]), NOW_MS, traceparent=TRACE)

    TALLY["any", "taken"] += 1
    assert not isinstance(got, Reply)
    assert all(can_be_kept(event) for event, _ in got)
