"""What the fuzzers of ingest draw from, and the tally of what became of it."""

from __future__ import annotations

import copy
import json
import os
from base64 import urlsafe_b64encode
from collections import Counter
from typing import Any
from urllib.parse import urlencode

import orjson
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ingest.catalogue import Provider
from ingest.fileform import Sample
from ingest.inbound import Request
from ingest.samples import request_of
from schemas.errors import NightbellError

# `NBTEST_EXAMPLES=20` looks for twenty times as long; `make fuzz` goes by the clock (tests/fuzz/schemes.py).
MORE = int(os.environ.get("NBTEST_EXAMPLES", "1"))
TALLY: Counter[tuple[str, str]] = Counter()  # (scheme, what became of the example)


def tried(examples: int) -> settings:
    checks = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
    return settings(max_examples=examples * MORE, deadline=None, suppress_health_check=checks)


def came_to(provider: Provider, outcome: NightbellError | str) -> None:
    """Count one example under the scheme that decided (the provider's first), and see that a refusal was foreseen.

    `verify` turns whatever breaks inside a check into a refusal; here that is a defect all the same.
    """
    named = outcome if isinstance(outcome, str) else str(getattr(outcome, "step", "") or type(outcome).__name__)
    TALLY[provider.file.verify[0].scheme, named] += 1
    if isinstance(outcome, NightbellError):
        assert "the check itself failed" not in str(outcome), outcome.__cause__


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

ODD = st.sampled_from(
    [None, True, False, 0, -1, 2**63, 2**64, -(2**70), 1e308, 5e-324, "", " ", "\x00", "\ud800", "é" * 600, "9" * 400, [], {}, [[]],
     [None], {"": None}, "2025-06-15T00:00:00Z", "0000-00-00", "9999-99-99T99:99:99Z", "1e400", '{"a":1}', "<a>", "AAAA", "%", "\u2028"]
)  # fmt: skip


def _places(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    return [at, *(place for step, value in inner for place in _places(value, (*at, step)))]


def _put(document: Any, place: tuple[Any, ...], value: Any, *, how: str) -> Any:
    if not place:
        return value
    *way, last = place
    holder = document
    for step in way:
        holder = holder[step]
    if how == "drop":
        del holder[last]
    elif how == "wrap":
        holder[last] = [holder[last]] if isinstance(holder, dict) else {"a": holder[last]}
    elif how == "twice" and isinstance(holder, list):
        holder.append(holder[last])
    else:
        holder[last] = value
    return document


@st.composite
def bent_bodies(draw: st.DrawFn, body: bytes) -> bytes:
    """A vendor's body with a few of its values turned into something else, or its bytes bent where it is no JSON."""
    try:
        document = orjson.loads(body)
    except ValueError:
        return draw(bent_bytes(body))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(_places(document)))
        how = draw(st.sampled_from(["value", "value", "drop", "wrap", "twice"]))
        document = _put(document, place, copy.deepcopy(draw(ODD | JSONS)), how=how)
    return json.dumps(document).encode()


@st.composite
def bent_bytes(draw: st.DrawFn, raw: bytes) -> bytes:
    """Bytes with one place cut, doubled, flipped or filled."""
    start = draw(st.integers(0, len(raw)))
    end = min(len(raw), start + draw(st.sampled_from([0, 1, 1, 2, 8, 64, 100_000])))
    filling = draw(
        st.sampled_from(
            [b"", b"\x00", b"=", b",", b".", b"&", b"%", b"%zz", b"\xff", b" ", b"{}", b"A" * 3000, raw[start:end] * 2]
        )
        | st.binary(max_size=6)
    )
    return raw[:start] + filling + raw[end:]


def bent_texts(text: str) -> st.SearchStrategy[str]:
    """As `bent_bytes`, over a header's text."""
    return bent_bytes(text.encode()).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


def with_body(sample: Sample, body: bytes) -> Request:
    """The sample's request with another body."""
    request = request_of(sample)
    return Request(request.method, request.url, request.fields, body)
