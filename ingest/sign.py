"""A body, signed as its vendor would: for `nightbell send` and for tests."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

import orjson

from ingest.catalogue import CompiledCheck
from ingest.choices import all_of
from ingest.inbound import Request
from ingest.prepared import PreparedSource, prepared
from ingest.schemes.base import Clock
from ingest.template import Scope, Template
from payload.fields import pairs_of
from payload.pointer import every, pointer_of, steps_of
from payload.read import FORM, media_type
from schemas.config import SourceSpec
from schemas.errors import Invalid, Refused, SecretsUnavailable

_IN_BODY = ("{/", "{form:", "{param:")
_UNIQUE = uuid.UUID("b1d3c2a0-6e6a-4f0e-9d63-6e6967687462")


def sign(
    spec: SourceSpec, *, method: str = "POST", url: str, headers: Iterable[tuple[str, str]] = (), body: bytes, now_ms: int
) -> Request:
    """The request that the vendor of `spec` would send with this body at `now_ms`.

    Headers that are given stay, but for times and signatures; what a delivery must have is added: its event headers (as far as
    the body tells them), ids, times, the signature.  Public-key vendors are signed for with the private key that stands first
    among the secrets.  Raises `Invalid` where a part is missing, or where nobody but the vendor can sign.
    """
    return signed(prepared(spec), method=method, url=url, headers=headers, body=body, now_ms=now_ms)


def signed(
    source: PreparedSource, *, method: str = "POST", url: str, headers: Iterable[tuple[str, str]] = (), body: bytes, now_ms: int
) -> Request:
    """As `sign`, for a prepared source."""
    fields = list(headers)
    if not any(name.lower() == "content-type" for name, _ in fields):
        fields.append(("Content-Type", _guessed_type(body)))
    request = Request(method, url, fields, body)
    _add_event_headers(source, request, fields)
    request = Request(method, url, fields, body)
    check = _check_for(source, request)
    try:
        return (
            _signed_items(check, source, request, fields, now_ms)
            if check.each
            else _whole(check, source, request, fields, now_ms)
        )
    except (ValueError, SecretsUnavailable) as exc:
        raise Invalid(f"this cannot be signed as {source.provider.name} would: {exc}") from exc


def _guessed_type(body: bytes) -> str:
    start = body.lstrip()[:1]
    if start in {b"{", b"["}:
        return "application/json"
    if start == b"<":
        return "application/xml"
    return "application/x-www-form-urlencoded" if b"=" in body[:200] else "text/plain"


def _add_event_headers(source: PreparedSource, request: Request, fields: list[tuple[str, str]]) -> None:
    scope = Scope(request, source.options)
    for name, choices in source.provider.send_headers.items():
        if name.lower() not in request.headers and (text := choices.text(scope)):
            fields.append((name, _unique(request.body) if text == "uuid" else text))


def _unique(body: bytes) -> str:
    return str(uuid.uuid5(_UNIQUE, hashlib.sha256(body).hexdigest()))


def _check_for(source: PreparedSource, request: Request) -> CompiledCheck:
    """The check that this source's vendor would sign for: one that its options choose and its credentials fit."""
    scope = Scope(request, source.options)
    given = {
        "secrets": source.credentials.secrets,
        "public_keys": source.credentials.secrets,
        "password": source.credentials.password,
    }
    possible = [check for check in source.provider.checks if check.when_options(scope)]
    has_keys = bool(source.credentials.public_keys)
    possible.sort(key=lambda check: ((check.scheme.needs() == "public_keys") != has_keys, not _fits(check, scope)))
    for check in possible:
        if given.get(check.scheme.needs(), True) and check.check.key != "fixed":
            return check
    raise Invalid(f"{source.provider.name} is signed with {' or '.join(sorted(source.provider.needs(source.options)))}")


def _fits(check: CompiledCheck, scope: Scope) -> bool:
    """Whether the check would decide over this very request; a body that cannot be read fits where nothing asks for it."""
    try:
        return check.applies(scope)
    except Refused:
        return False


def _whole(
    check: CompiledCheck, source: PreparedSource, request: Request, fields: list[tuple[str, str]], now_ms: int
) -> Request:
    """The request with what the check wants of its headers and query."""
    request = urlencoded(request)
    fields = list(request.fields)
    for text in check.check.signed:
        missing = [name for name in _headers_in(text) if name.lower() not in request.headers and not _is_time(check, name)]
        fields.extend((name, f"msg_{_unique(request.body)}") for name in missing)
    request = Request(request.method, request.url, fields, _with_time(check, request, now_ms))
    request = Request(request.method, _with_digests(check, Scope(request, source.options)), fields, request.body)
    placed = check.scheme.sign(Scope(request, source.options), source.credentials, now_ms)
    url, body = request.url, request.body
    for place, text in placed.items():
        if place.startswith("{header:"):
            name = _header_name(place, source)
            fields = [*(field for field in fields if field[0].lower() != name.lower()), (name, text)]
        elif place.startswith("{query:"):
            url += ("&" if "?" in url else "?") + urlencode({_named(place[7:-1], source): text})
        elif place.startswith(_IN_BODY) and place != _time_place(check):
            body = _with_text(request, body, place, text)
        elif not place.startswith(("{sig:", *_IN_BODY)):
            raise ValueError(f"a signature in {place} cannot be placed")
    return _with_required(check, source, Request(request.method, url, fields, body))


def _with_required(check: CompiledCheck, source: PreparedSource, request: Request) -> Request:
    """The request with the headers that must equal something besides the signature (Dropbox Sign's Content-MD5)."""
    scope = Scope(request, source.options)
    scope.key = source.credentials.keys(check.check.key)[0] if check.scheme.needs() == "secrets" else b""
    fields = list(request.fields)
    for rule in check.check.require:
        name = rule.value.removeprefix("{header:").removesuffix("}")
        if rule.value.startswith("{header:") and name.lower() not in request.headers and all_of(rule.when)(scope):
            fields.append((name, Template(rule.equals).text(scope) or ""))
    return Request(request.method, request.url, fields, request.body)


def _with_digests(check: CompiledCheck, scope: Scope) -> str:
    """The URL, with the parameters that must equal something of the request (Twilio's bodySHA256)."""
    url, there = scope.request.url, {name for name, _ in scope.request.query()}
    for rule in check.check.require:
        name = rule.value.removeprefix("{query:").removesuffix("}")
        if rule.value.startswith("{query:") and name not in there and (text := Template(rule.equals).text(scope)):
            url += ("&" if "?" in url else "?") + urlencode({name: text})
    return url


def _time_place(check: CompiledCheck) -> str:
    return check.check.time.value if check.check.time else ""


def _with_time(check: CompiledCheck, request: Request, now_ms: int) -> bytes:
    """The body, with the signed time in it where that is its place: as a number where one stood there."""
    place = _time_place(check)
    if check.check.time is None or not place.startswith(_IN_BODY):
        return request.body
    stamp = Clock(check.check.time).written(now_ms)
    if place.startswith("{/") and isinstance(request.at(place[1:-1]), int):
        return with_value(request, request.body, place[1:-1], int(stamp))
    return _with_text(request, request.body, place, stamp)


def _with_text(request: Request, body: bytes, place: str, text: str) -> bytes:
    """`body` with `text` at a place in it: a pointer, a form field, or a parameter of either."""
    if place.startswith("{/"):
        return with_value(request, body, place[1:-1], text)
    name = place.partition(":")[2].removesuffix("}")
    if media_type(request.content_type).endswith("json"):
        return with_value(request, body, pointer_of((name,)), text)
    return urlencode([*((key, value) for key, value in pairs_of(body) if key != name), (name, text)]).encode()


def urlencoded(request: Request) -> Request:
    """The request, a multipart form urlencoded instead: readers take both alike, and only one can be written plainly."""
    if media_type(request.content_type) == FORM or not request.form():
        return request
    fields = [(name, FORM if name.lower() == "content-type" else value) for name, value in request.fields]
    return Request(request.method, request.url, fields, urlencode(request.form()).encode())


def with_value(request: Request, body: bytes, pointer: str, value: Any) -> bytes:
    """`body` with `value` at `pointer`; a form's JSON field is written anew, the form urlencoded."""
    if not request.form():
        return orjson.dumps(put(orjson.loads(body), pointer, value))
    fields = dict(request.form())
    name, *inner = steps_of(pointer)
    fields[name] = orjson.dumps(put(orjson.loads(fields[name]), pointer_of(tuple(inner)), value)).decode()
    return urlencode(fields).encode()


def _headers_in(text: str) -> list[str]:
    return [] if text.startswith("$") else Template(text).headers


def _is_time(check: CompiledCheck, name: str) -> bool:
    return check.check.time is not None and check.check.time.value.lower() == f"{{header:{name}}}".lower()


def _header_name(place: str, source: PreparedSource) -> str:
    return _named(place.removeprefix("{header:").partition("|")[0].removesuffix("}"), source)


def _named(name: str, source: PreparedSource) -> str:
    return str(source.options.get(name[1:], "")) if name.startswith("$") else name


def _signed_items(
    check: CompiledCheck, source: PreparedSource, request: Request, fields: list[tuple[str, str]], now_ms: int
) -> Request:
    """The request with a signature inside each of its items."""
    document: Any = request.document()
    for _, item in every(document, check.each):
        scope = Scope(request, source.options).over(item)
        for place, text in check.scheme.sign(scope, source.credentials, now_ms).items():
            put(item, place[1:-1], text)
    return Request(request.method, request.url, fields, orjson.dumps(document))


def put(document: Any, pointer: str, value: Any) -> Any:
    """`document` with `value` at `pointer`; objects on the way are made."""
    *way, last = steps_of(pointer)
    at = document
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
    at[last] = value
    return document
