"""A request as it came in, before anything is believed; a reply as it will go out."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from payload.fields import Pairs, pairs_of
from payload.pointer import MISSING, reach, steps_of
from payload.read import FORM, media_type, view
from schemas.errors import MalformedRequest, TooLarge, UnsupportedMedia

MAX_BODY_BYTES = 26 * 1024 * 1024
_MAX_RATIO = 100
_RATIO_FREE_BYTES = 1024 * 1024
_JSON_TYPE = "application/json"


class Request:
    """One HTTP request: exact bytes and header values, with its readings made once, when first asked for.

    `url` is the public address as the sender called it (our setting and the path and query of the request line; no forwarded
    header is believed).  `headers` has the last value of each name in lower case; names that came more than once are in
    `repeated`, with all their values in `fields`.
    """

    __slots__ = ("_document", "_flags", "_form", "_query", "body", "fields", "headers", "method", "remote", "repeated", "url")

    def __init__(self, method: str, url: str, fields: Iterable[tuple[str, str]], body: bytes, *, remote: str = "") -> None:
        self.method = method
        self.url = url
        self.body = body
        self.remote = remote
        self.fields = tuple(fields)
        headers: dict[str, str] = {}
        repeated: set[str] | None = None
        for name, value in self.fields:
            low = name.lower()
            if low in headers:
                repeated = repeated or set()
                repeated.add(low)
            headers[low] = value
        self.headers = headers
        self.repeated = frozenset(repeated) if repeated else _NONE
        self._document: Any = MISSING
        self._flags: tuple[str, ...] = ()
        self._form: Pairs | None = None
        self._query: Pairs | None = None

    def with_body(self, body: bytes) -> Request:
        """The same request with another body, which has no content coding."""
        fields = [(name, value) for name, value in self.fields if name.lower() != "content-encoding"]
        return Request(self.method, self.url, fields, body, remote=self.remote)

    def values(self, name: str) -> list[str]:
        """Every value that the header came with."""
        return [value for key, value in self.fields if key.lower() == name]

    @property
    def content_type(self) -> str:
        """The vendor's content type; JSON is guessed by the reader where there is none."""
        return self.headers.get("content-type", "")

    @property
    def path(self) -> str:
        """The public path, as called."""
        return urlsplit(self.url).path

    @property
    def query_string(self) -> str:
        """What stands behind the question mark, undecoded."""
        return self.url.partition("#")[0].partition("?")[2]

    def query(self) -> Pairs:
        """The query's parameters, decoded, in order."""
        if self._query is None:
            self._query = pairs_of(self.query_string)
        return self._query

    def form(self) -> Pairs:
        """The fields of a form or multipart body (text fields only), in order; none for another body."""
        if self._form is None:
            self._form = self._fields_of_body()
        return self._form

    def _fields_of_body(self) -> Pairs:
        kind = media_type(self.content_type)
        if kind == FORM:
            return pairs_of(self.content())
        if not kind.startswith("multipart/"):
            return []
        found = self.document()
        listed = found.items() if isinstance(found, dict) else ()
        return [
            (name, one)
            for name, value in listed
            for one in (value if isinstance(value, list) else [value])
            if isinstance(one, str)
        ]

    def content(self) -> bytes:
        """The body without its content coding.  Raises `UnsupportedMedia`, `TooLarge`, `MalformedRequest`."""
        coding = self.headers.get("content-encoding", "").strip().lower()
        return self.body if coding in {"", "identity"} else decoded(self.body, coding)

    def document(self) -> Any:
        """The JSON view of the whole body.  Raises `MalformedRequest`."""
        if self._document is MISSING:
            self._document, self._flags = view(self.content(), self.content_type)
        return self._document

    def flags(self) -> tuple[str, ...]:
        """What was odd about the document."""
        self.document()
        return self._flags

    def at(self, pointer: str) -> Any:
        """What lies at `pointer` in the document, or MISSING."""
        return reach(self.document(), steps_of(pointer))


_NONE: frozenset[str] = frozenset()


def decoded(body: bytes, coding: str, *, limit: int = MAX_BODY_BYTES) -> bytes:
    """`body` without its gzip or deflate coding, up to `limit` bytes and a hundredfold growth; another coding is refused."""
    if coding not in {"gzip", "x-gzip", "deflate"}:
        raise UnsupportedMedia
    bound = min(limit, max(_RATIO_FREE_BYTES, len(body) * _MAX_RATIO))
    # 32 more than the window's bits: zlib and gzip headers are both recognised.
    machine = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = machine.decompress(body, bound + 1)
    except zlib.error as exc:
        raise MalformedRequest("the body's coding is broken") from exc
    if len(plain) > bound:
        raise TooLarge("the body grows too large when its coding is undone")
    if not machine.eof or machine.unused_data:
        raise MalformedRequest("the body's coding is cut short, or followed by other bytes")
    return plain


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered without an event: a handshake's answer, or what the vendor wants to hear.

    `kept_secret` is one that arrived in the handshake, to be stored for this source; `fetch_url` an address that the vendor
    wants called as confirmation, already checked against the provider's hosts.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: dict[str, str] = field(default_factory=dict)
    kept_secret: str = ""
    fetch_url: str = ""
    name: str = ""
