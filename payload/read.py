"""The JSON view of a vendor's body: what patterns, views and people see as `data`."""

from __future__ import annotations

import re
from typing import Any

from payload.fields import gathered, pairs_of, parts_of
from payload.jsontext import parse
from payload.markup import tree_of
from payload.nested import opened
from payload.pointer import MISSING, reach, steps_of
from schemas.errors import MalformedRequest
from schemas.event import Flag

FORM = "application/x-www-form-urlencoded"
_LINES = {"application/x-ndjson", "application/jsonl", "application/x-jsonlines", "application/json-lines"}
_NEXT_LINE = re.compile(rb"\}[ \t\r]*\n\s*\{")
_NO_FLAGS: tuple[str, ...] = ()
_AMBIGUOUS: tuple[str, ...] = (Flag.AMBIGUOUS_JSON.value,)
_UNREADABLE: tuple[str, ...] = (Flag.UNREADABLE.value,)


def view(body: bytes, content_type: str, pointer: str = "") -> tuple[Any, tuple[str, ...]]:
    """The JSON view of `body`, at `pointer`, with the flags that the reading earned.

    JSON is read leniently (see `payload.jsontext`), a form or multipart body is its fields by name, XML its tree, JSON lines
    an array (also where they are called JSON), other text itself; an empty body is null.  A pointer may step into a string that
    holds JSON, XML or base64 of them (a form's `payload`, an envelope's `Message`); a string that it ends at is opened too.
    What has no view is null with the flag `unreadable`.  Raises `MalformedRequest`, and nothing else.
    """
    document, flags = _document(body, content_type)
    if not pointer:
        return document, flags
    try:
        found = reach(document, steps_of(pointer))
    except ValueError as exc:
        raise MalformedRequest("that is no JSON pointer") from exc
    if found is MISSING:
        return None, (*flags, *_UNREADABLE)
    return (opened(found) if isinstance(found, str) else found), flags


def media_type(content_type: str) -> str:
    """The media type alone, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def _document(body: bytes, content_type: str) -> tuple[Any, tuple[str, ...]]:
    if not body:
        return None, _NO_FLAGS
    kind = media_type(content_type)
    if kind == "application/json" or kind.endswith("+json") or kind == "text/json":
        return _json(body)
    if kind.endswith(("/xml", "+xml")):
        return tree_of(body), _NO_FLAGS
    if kind == FORM or kind.startswith("multipart/"):
        return gathered(list(pairs_of(body)) if kind == FORM else parts_of(body, content_type)), _NO_FLAGS
    return _lines(body) if kind in _LINES else _guessed(body)


def _json(body: bytes) -> tuple[Any, tuple[str, ...]]:
    try:
        document, is_ambiguous = parse(body)
    except MalformedRequest:
        if _NEXT_LINE.search(body):  # JSON lines under the name of JSON (Auth0's log streams)
            return _lines(body)
        raise
    return document, _AMBIGUOUS if is_ambiguous else _NO_FLAGS


def _lines(body: bytes) -> tuple[Any, tuple[str, ...]]:
    read = [parse(line) for line in body.split(b"\n") if line.strip()]
    return [document for document, _ in read], _AMBIGUOUS if any(odd for _, odd in read) else _NO_FLAGS


def _guessed(body: bytes) -> tuple[Any, tuple[str, ...]]:
    """What the media type does not tell (SNS sends JSON as text/plain): JSON or XML where it starts like one, else text."""
    start = body.lstrip()[:1]
    try:
        if start in {b"{", b"["}:
            return _json(body)
        if start == b"<":
            return tree_of(body), _NO_FLAGS
    except MalformedRequest:
        pass
    try:
        return body.decode(), _NO_FLAGS
    except UnicodeDecodeError:
        return None, _UNREADABLE
