"""Lookups, the pure part: which URL an event makes, and what is taken of the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import orjson

from curator.ports import Found, Reply
from curator.view import ViewFailed, check_view, compile_view
from egress.guard import check_headers, check_url
from schemas.config import LookupSpec
from schemas.errors import AddressRefused, BadSetting, Invalid

_HOLE = re.compile(r"\{([^{}]*)\}")
_SECRET = re.compile(r"\$\{secret\.([a-z0-9][a-z0-9_-]{0,62})\}")
MAX_VALUE_CHARS = 256
OK_STATUS = range(200, 300)


class NoUrl(ValueError):
    """The event has no single value for a part of the URL."""


def check_lookup(name: str, spec: LookupSpec) -> None:
    """Raise Invalid where a URL lets an event choose more than a piece of its path or query, or a view is wrong."""
    parts = urlsplit(spec.url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Invalid(
            f"context.enrich.{name}.url: write a whole URL such as https://crm.example/customers/{{data.customer.id}}"
        )
    if "{" in parts.netloc or "@" in parts.netloc:
        raise Invalid(f"context.enrich.{name}.url: the host is fixed by you, never taken from an event")
    for hole in _HOLE.findall(spec.url):
        check_view(hole)
    try:
        check_url(_HOLE.sub("x", spec.url), allow_private=spec.allow_private, allow_http=spec.allow_private)
        check_headers(spec.headers)
    except (AddressRefused, BadSetting) as exc:
        raise Invalid(f"context.enrich.{name}: {exc.detail}") from exc
    if spec.view is not None:
        check_view(spec.view)
    for header, value in spec.headers.items():
        if _HOLE.search(_SECRET.sub("", value)):
            raise Invalid(f"context.enrich.{name}.headers.{header}: nothing of an event goes into a header")


def url_for(spec: LookupSpec, document: dict[str, Any]) -> str:
    """The lookup's URL for one event; every value is percent-encoded whole.  Raises NoUrl."""

    def filled(match: re.Match[str]) -> str:
        try:
            value = compile_view(match[1]).of(document)
        except ViewFailed as exc:
            raise NoUrl(f"{match[1]} fails on this event") from exc
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise NoUrl(f"{match[1]} is not one value in this event")
        text = str(value)
        if len(text) > MAX_VALUE_CHARS:
            raise NoUrl(f"{match[1]} is longer than {MAX_VALUE_CHARS} characters")
        # A value that is only dots would climb the path: quote leaves dots alone.
        return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")

    return _HOLE.sub(filled, spec.url)


def secrets_in(spec: LookupSpec) -> Iterator[str]:
    """Names of the vault's secrets that the headers ask for."""
    for value in spec.headers.values():
        yield from _SECRET.findall(value)


def headers_with(spec: LookupSpec, secrets: dict[str, str]) -> dict[str, str]:
    """The headers with their secrets in them; never logged."""
    return {name: _SECRET.sub(lambda match: secrets[match[1]], value) for name, value in spec.headers.items()}


def found_in(reply: Reply, spec: LookupSpec, *, fetched_ms: int) -> Found:
    """What a lookup's answer gives: its view, or all of it.  Anything but one JSON document with a 2xx is a failure."""
    if reply.status not in OK_STATUS:
        return Found(fetched_ms=fetched_ms, failure=f"status {reply.status}")
    if reply.truncated:
        return Found(fetched_ms=fetched_ms, failure="too large")
    try:
        value = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return Found(fetched_ms=fetched_ms, failure="no JSON")
    if spec.view is not None:
        try:
            value = compile_view(spec.view).of(value)
        except ViewFailed:
            return Found(fetched_ms=fetched_ms, failure="the view failed")
    try:
        orjson.dumps([[[value]]])  # as deep as it will stand in what is sent
    except TypeError:
        return Found(fetched_ms=fetched_ms, failure="nested too deeply")
    return Found(value, fetched_ms) if value not in (None, "", [], {}) else Found(fetched_ms=fetched_ms, failure="empty")
