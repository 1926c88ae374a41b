"""Whatever comes, only declared errors come out, and nothing unproven is taken."""

from __future__ import annotations

import gzip
import hmac
import json
import os
from base64 import urlsafe_b64encode
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.catalogue import Provider, catalogue
from ingest.fileform import Vector
from ingest.inbound import Reply, Request
from ingest.prepared import PreparedSource
from ingest.receive import receive
from ingest.samples import request_of, source_of, spec_of
from payload.read import view
from schemas.config import SourceConfig
from schemas.errors import MalformedRequest, NightbellError
from schemas.event import from_headers, to_headers
from tests.fakes.provider_forms import MAC, provider, source

NOW_MS = 1_750_000_000_000
# `NBTEST_EXAMPLES=20` looks for twenty times as long (`make fuzz` an hour).
MORE = int(os.environ.get("NBTEST_EXAMPLES", "1"))


def tried(examples: int) -> settings:
    checks = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
    return settings(max_examples=examples * MORE, deadline=None, suppress_health_check=checks)


NAMED = {name: made for name, made in catalogue().items() if made.file.vector}


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["a", "b", "id", "items", "at", "url", "x", "type", "event", "object", "data"]), inner, max_size=4
        )
    ),
    max_leaves=15,
)
TEXTS = st.text(max_size=40) | st.text(alphabet="v1=,. at0fé+/\x00{}[]%&", max_size=60)
TOKENS = st.builds(
    lambda head, claims, code: ".".join(
        [*(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (head, claims)), code]
    ),
    JSONS | st.fixed_dictionaries({"alg": st.sampled_from(["none", "HS256", "RS256", "ES256"]) | JSONS, "kid": JSONS}),
    JSONS,
    st.text(alphabet="AZaz09-_=", max_size=50),
)
MULTIPART = "multipart/form-data; boundary=b"
BODIES = st.one_of(
    st.tuples(
        JSONS.map(lambda document: json.dumps(document).encode()), st.sampled_from(["application/json", "text/plain", ""])
    ),
    st.tuples(
        st.dictionaries(TEXTS, TEXTS, max_size=4).map(lambda pairs: urlencode(pairs).encode()),
        st.just("application/x-www-form-urlencoded"),
    ),
    st.tuples(
        TEXTS.map(lambda text: f'--b\r\nContent-Disposition: form-data; name="json"\r\n\r\n{text}\r\n--b--'.encode()),
        st.sampled_from([MULTIPART, "multipart/form-data", "multipart/mixed; boundary=\x00"]),
    ),
    st.tuples(
        TEXTS.map(lambda text: f"<a b='c'><d>{text}</d>&e;</a>".encode()), st.sampled_from(["text/xml", "application/soap+xml"])
    ),
    st.tuples(
        st.binary(max_size=80) | st.sampled_from([b"[" * 5000, b"{" * 50, b'{"a":1e999}', b'{"a":1,"a":2}', b"\xef\xbb\xbf{}"]),
        st.sampled_from(["application/json", "application/xml", "application/x-ndjson", MULTIPART, "a/b", "\x00"]),
    ),
)


def foreseen(refusal: NightbellError) -> None:
    """`verify` turns whatever breaks inside a check into a refusal; here that is a defect all the same."""
    assert "the check itself failed" not in str(refusal), refusal.__cause__


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
    method = data.draw(st.sampled_from([vector.method, "POST", "GET", "HEAD", "OPTIONS", "PUT"]))
    request = Request(method, f"{vector.url}?{query}", fields, gzip.compress(body) if coded == "gzip" else body)

    try:
        got = receive(request, source_of(NAMED[name], vector), round(vector.now * 1000), traceparent="00-t")
    except NightbellError as refusal:
        foreseen(refusal)
        return

    assert isinstance(got, Reply) or all(from_headers(to_headers(event), event.body) == event for event, _ in got)


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
        receive(request_of(vector), keyless, round(vector.now * 1000), traceparent="00-t")
    foreseen(refusal.value)


@tried(600)
@given(read=BODIES, pointer=st.sampled_from(["", "/a", "/json", "/a/d", "a", "/~2"]) | TEXTS)
def test_reading_a_body_raises_nothing_but_that_it_cannot_be_read(read: tuple[bytes, str], pointer: str):
    body, kind = read
    try:
        document, flags = view(body, kind, pointer)
    except MalformedRequest:
        return

    assert json.loads(json.dumps(document)) == document
    assert all(isinstance(flag, str) for flag in flags)


@pytest.mark.parametrize("name", NAMED)
@tried(12)
@given(data=st.data())
def test_a_scheme_raises_only_what_it_declares(name: str, data: st.DataObject):
    vector = data.draw(st.sampled_from(NAMED[name].file.vector))
    good = request_of(vector)
    headers = [(key, data.draw(st.just(value) | TEXTS)) for key, value in good.fields]
    body = data.draw(st.just(good.body) | st.binary(max_size=100) | st.just(b"[" * 3000) | st.just(b'{"a":NaN}'))
    request = Request(good.method, good.url, headers, body)

    try:
        got = receive(request, source_of(NAMED[name], vector), round(vector.now * 1000), traceparent="00-t")
    except NightbellError as refusal:
        foreseen(refusal)
        return

    if not isinstance(got, Reply):
        for event, _ in got:
            assert from_headers(to_headers(event), event.body) == event


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

    got = receive(request, source(ANY, secrets=["s"]), NOW_MS, traceparent="00-t")

    assert not isinstance(got, Reply)
    for event, _ in got:
        kept = to_headers(event)
        "".join(kept.values()).encode()
        assert "\x00" not in "".join(kept.values())
        assert from_headers(kept, event.body) == event
