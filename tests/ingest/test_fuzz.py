"""Whatever comes, only declared errors come out, and nothing unproven is taken."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.catalogue import catalogue
from ingest.inbound import Reply, Request
from ingest.receive import receive
from ingest.samples import request_of, source_of
from schemas.errors import NightbellError
from schemas.event import from_headers, to_headers
from tests.fakes.provider_forms import MAC, provider, source

NOW_MS = 1_750_000_000_000
NAMED = {name: made for name, made in catalogue().items() if made.file.vector}


@pytest.mark.parametrize("name", NAMED)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_scheme_raises_only_what_it_declares(name: str, data: st.DataObject):
    vector = data.draw(st.sampled_from(NAMED[name].file.vector))
    good = request_of(vector)
    texts = st.text(max_size=80) | st.text(alphabet="v1=,. at0fé+/\x00", max_size=80)
    headers = [(key, data.draw(st.just(value) | texts)) for key, value in good.fields]
    body = data.draw(st.just(good.body) | st.binary(max_size=100) | st.just(b"[" * 3000) | st.just(b'{"a":NaN}'))
    request = Request(good.method, good.url, headers, body)

    try:
        got = receive(request, source_of(NAMED[name], vector), round(vector.now * 1000), traceparent="00-t")
    except NightbellError:
        return

    if not isinstance(got, Reply):
        for event, _ in got:
            assert from_headers(to_headers(event), event.body) == event


ANY = provider(
    MAC,
    event='type = ["{header:X-T}.{/a}", "{/a/b|snake}"]\nbatch = ["/*", "/items/*"]\nsubject = ["{/*/id|short:20}", "{jmes:a.b}"]\n'
    'key = "{/a|lower}"\ntime = "{/at}"\nurl = "{/url}"\nsummary = "{/a?} {/b|line}"',
)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b", "id", "items", "at", "url", "x"]), inner, max_size=4)
    ),
    max_leaves=15,
)


@settings(max_examples=300, deadline=None)
@given(document=JSONS, header=st.text(max_size=10))
def test_any_authentic_json_becomes_events_that_can_be_kept(document: object, header: str):
    import json

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
