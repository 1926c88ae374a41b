"""A captured request, read from a file: a raw HTTP/1.1 message, or an entry of a HAR."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from schemas.errors import Invalid

_REQUEST_LINE = re.compile(rb"^([A-Z]+) (\S+)(?: HTTP/\d(?:\.\d)?)?$")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CHUNK_HEAD = re.compile(rb"^([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_TOKEN = re.compile(rb"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$")


@dataclass(frozen=True, slots=True)
class Captured:
    """A request as it was sent.  `url` is absolute where the capture or the caller said so."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


def read_capture(raw: bytes, *, url: str | None = None) -> Captured:
    """The request in `raw`; `url` says how the sender called us, where the capture does not.  Raises `Invalid`."""
    if raw.lstrip()[:1] == b"{":
        return _from_har(raw, url=url)
    return _from_message(raw, url=url)


def _from_message(raw: bytes, *, url: str | None) -> Captured:
    raw = raw.lstrip(b"\r\n")
    end = _HEAD_END.search(raw)
    head, rest = (raw[: end.start()], raw[end.end() :]) if end else (raw.rstrip(b"\r\n"), b"")
    first, *lines = re.split(rb"\r?\n", head)
    found = _REQUEST_LINE.match(first)
    if not found:
        raise Invalid("the first line is no request line: it reads like POST /in/github-acme HTTP/1.1")
    headers = tuple(_header(line, number) for number, line in enumerate(lines, start=2))
    named = {name.lower(): value for name, value in headers}
    target = found[2].decode("latin-1")
    return Captured(found[1].decode(), url or _absolute(target, named.get("host")), headers, _body(rest, named))


def _header(line: bytes, number: int) -> tuple[str, str]:
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.match(name):
        raise Invalid(
            f"line {number} is no header: it reads like X-Hub-Signature-256: sha256=…; an empty line ends the headers"
        )
    return name.decode(), value.strip(b" \t").decode("latin-1")


def _absolute(target: str, host: str | None) -> str:
    return target if "://" in target else f"https://{host or 'localhost'}{target}"


def _body(rest: bytes, headers: Mapping[str, str]) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return _unchunked(rest)
    length = headers.get("content-length", "").strip()
    if not length:
        return rest
    if not length.isdigit():
        raise Invalid("Content-Length is no number")
    if len(rest) > int(length) and not rest[int(length) :].strip(b"\r\n"):
        return rest[: int(length)]  # an editor ended the file with a line break that the sender did not send
    return rest


def _unchunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    rest = body
    while found := _CHUNK_HEAD.match(rest):
        size = int(found[1], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(rest[found.end() : found.end() + size])
        rest = rest[found.end() + size :].removeprefix(b"\r").removeprefix(b"\n")
    # Many tools save a body unchunked below a header that still says so.
    return body


def _from_har(raw: bytes, *, url: str | None) -> Captured:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise Invalid(f"neither an HTTP/1.1 message nor a HAR: {exc}") from exc
    request = _har_request(document)
    try:
        headers = tuple((str(header["name"]), str(header["value"])) for header in request.get("headers", []))
        return Captured(str(request["method"]).upper(), url or str(request["url"]), headers, _har_body(request))
    except (KeyError, TypeError, AttributeError) as exc:
        raise Invalid("the HAR's request lacks a method, a url or headers of name and value") from exc


def _har_request(document: Any) -> dict[str, Any]:
    """The request of a HAR, of one of its entries, or the request itself."""
    if isinstance(document, dict) and isinstance(document.get("log"), dict):
        entries = document["log"].get("entries") or []
        if len(entries) != 1:
            raise Invalid(f"the HAR has {len(entries)} entries: cut out the one that is meant")
        document = entries[0]
    if isinstance(document, dict):
        document = document.get("request", document)
    if not isinstance(document, dict):
        raise Invalid("the HAR's entry has no request")
    return document


def _har_body(request: Mapping[str, Any]) -> bytes:
    posted = request.get("postData") or {}
    if "text" in posted:
        text = str(posted["text"])
        if str(posted.get("encoding") or posted.get("_encoding") or "").lower() == "base64":
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError) as exc:
                raise Invalid("the HAR's postData says base64, and is not") from exc
        return text.encode()
    if posted.get("params"):
        raise Invalid("the HAR keeps the form's fields, not its bytes: signatures cover bytes, so capture the request raw")
    return b""
