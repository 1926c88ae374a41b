"""Signed parts that only a few vendors use: each a pure function of the request, by the name that templates call it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from ingest.inbound import Request
from payload.fields import Pairs
from payload.read import media_type

Options = Mapping[str, Any]
PartOf = Callable[[Request, str, Options], "str | bytes | None"]

_HUBSPOT_DECODED = {
    "%3A": ":", "%2F": "/", "%3F": "?", "%40": "@", "%21": "!", "%24": "$", "%27": "'", "%28": "(", "%29": ")",
    "%2A": "*", "%2C": ",", "%3B": ";",
}  # fmt: skip
_HUBSPOT_PATTERN = re.compile("|".join(_HUBSPOT_DECODED), re.IGNORECASE)
_SNS_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_SNS_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")


def form_pairs(request: Request, _argument: str, _options: Options) -> str:
    """Name and value of each form field, sorted; a repeated name with each distinct value once (Twilio's SDKs)."""
    return "".join(name + value for name, value in sorted(set(request.form())))


def php_form(request: Request, left_out: str, _options: Options) -> bytes | None:
    """PHP's `serialize` of the key-sorted form, without one field, all values as strings (Paddle Classic).

    A name that stands twice has no place in it: what is signed would be one of the two, and what is read both.
    """
    given = dict(request.form())
    if len(given) != len(request.form()):
        return None
    fields = sorted((name, value) for name, value in given.items() if name != left_out)
    inner = b"".join(_php_string(name) + _php_string(value) for name, value in fields)
    return b"a:%d:{%s}" % (len(fields), inner)


def _php_string(text: str) -> bytes:
    raw = text.encode()
    return b's:%d:"%s";' % (len(raw), raw)


def sorted_params(request: Request, left_out: str, _options: Options) -> str:
    """`&name=value` of each parameter but one, sorted, with & and = of a value as _ (Vonage SMS)."""
    pairs = sorted((name, value) for name, value in _params(request) if name != left_out)
    return "".join(f"&{name}={value.replace('&', '_').replace('=', '_')}" for name, value in pairs)


def _params(request: Request) -> Pairs:
    if media_type(request.content_type).endswith("json"):
        document = request.document()
        listed = document.items() if isinstance(document, dict) else ()
        return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in listed]
    return request.form() or request.query()


def param(request: Request, name: str, _options: Options) -> str | None:
    """One parameter, of the form, the JSON body or the query."""
    return next((value for key, value in _params(request) if key == name), None)


def url_with_port(request: Request, _argument: str, _options: Options) -> str:
    """The URL with its port written out, the default one too (Twilio signs either form)."""
    split = urlsplit(request.url)
    if split.port:
        return request.url
    host = f"{split.netloc}:{443 if split.scheme == 'https' else 80}"
    return request.url.replace(f"//{split.netloc}", f"//{host}", 1)


def url_without_port(request: Request, _argument: str, _options: Options) -> str:
    """The URL without a port."""
    split = urlsplit(request.url)
    return request.url.replace(f"//{split.netloc}", f"//{split.hostname or ''}", 1) if split.port else request.url


def url_partly_decoded(request: Request, _argument: str, _options: Options) -> str:
    """The URL with the percent-encodings of HubSpot's table decoded, and no others."""
    return _HUBSPOT_PATTERN.sub(lambda found: _HUBSPOT_DECODED[found[0].upper()], request.url)


def escaped_body(request: Request, _argument: str, _options: Options) -> str | None:
    """The body with its non-ASCII characters escaped as JSON does: Box signs that form while the wire carries UTF-8."""
    try:
        text = request.body.decode()
    except UnicodeDecodeError:
        return None
    return "".join(char if char.isascii() else json.dumps(char)[1:-1] for char in text)


def first_element(request: Request, _argument: str, _options: Options) -> bytes | None:
    """The exact bytes of a JSON array's first element, or the body where it is none (Segment signs that much of a batch)."""
    try:
        text = request.body.decode()
        lead = len(text) - len(text.lstrip())
        if text[lead : lead + 1] != "[":
            return request.body
        start = lead + 1 + len(text[lead + 1 :]) - len(text[lead + 1 :].lstrip())
        _, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    return text[start:end].encode()


def signed_headers(request: Request, listing: str, _options: Options) -> str | None:
    """`name:value` of each header that the header `listing` names, sorted, joined by semicolons (Contentful)."""
    listed = request.headers.get(listing.lower())
    if listed is None:
        return None
    names = sorted({name.strip().lower() for name in listed.split(",") if name.strip()})
    if any(name not in request.headers for name in names):
        return None
    return ";".join(f"{name}:{request.headers[name].strip()}" for name in names)


def path_query_encoded(request: Request, _argument: str, _options: Options) -> str:
    """The path, encoded once more, and the query, encoded twice, as Contentful's SDK signs them (`?x=1` as `?x%253D1`)."""
    query = quote(request.query_string, safe="", errors="surrogateescape")
    called = f"{request.path}?{query}" if query else request.path
    return quote(called, safe=";/?:@&=+$,#-_.!~*'()", errors="surrogateescape")


def qsh(request: Request, _argument: str, options: Options) -> str:
    """Atlassian Connect's query string hash: SHA-256 of method, path below the app's base, and sorted parameters."""
    base = urlsplit(str(options.get("base_url", ""))).path.rstrip("/")
    path = request.path.removeprefix(base).rstrip("/") or "/"
    grouped: dict[str, list[str]] = {}
    for name, value in request.query():
        if name != "jwt":
            grouped.setdefault(_rfc3986(name), []).append(_rfc3986(value))
    query = "&".join(f"{name}={','.join(sorted(values))}" for name, values in sorted(grouped.items()))
    canonical = f"{request.method.upper()}&{path.replace('&', '%26')}&{query}"
    return hashlib.sha256(canonical.encode(errors="surrogateescape")).hexdigest()


def _rfc3986(text: str) -> str:
    return quote(text, safe="-_.~", errors="surrogateescape")


def sns_fields(request: Request, _argument: str, _options: Options) -> str | None:
    """What Amazon SNS signs: name and value of the fields of that type, each on a line of its own."""
    document = request.document()
    if not isinstance(document, dict):
        return None
    names = _SNS_NOTIFICATION if document.get("Type") == "Notification" else _SNS_CONFIRMATION
    present = [(name, document[name]) for name in names if document.get(name) is not None]
    if not all(isinstance(value, str) for _, value in present):
        return None
    return "".join(f"{name}\n{value}\n" for name, value in present)


PARTS: dict[str, PartOf] = {
    "form_pairs": form_pairs,
    "php_form": php_form,
    "sorted_params": sorted_params,
    "param": param,
    "url_with_port": url_with_port,
    "url_without_port": url_without_port,
    "url_partly_decoded": url_partly_decoded,
    "escaped_body": escaped_body,
    "first_element": first_element,
    "signed_headers": signed_headers,
    "path_query_encoded": path_query_encoded,
    "qsh": qsh,
    "sns_fields": sns_fields,
}
