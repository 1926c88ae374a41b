"""Documents inside strings: JSON or XML as text, or as base64 of it."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from typing import Any

from payload.jsontext import parse
from payload.markup import tree_of
from schemas.errors import MalformedRequest

_BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]{8,}={0,2}\s*")
_MAX_TEXT = 32 * 1024 * 1024


def opened(text: str) -> Any:
    """The document that `text` holds: JSON, XML, or base64 of one of them; `text` itself where it holds none."""
    start = text.lstrip()[:1]
    try:
        if start in {"{", "["}:
            return parse(text.encode("utf-8", "replace"))[0]
        if start == "<":
            return tree_of(text.encode("utf-8", "replace"))
        if len(text) <= _MAX_TEXT and _BASE64.fullmatch(text):
            return _decoded(text)
    except MalformedRequest:
        pass
    return text


def _decoded(text: str) -> Any:
    squeezed = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        inner = b64decode(squeezed + "=" * (-len(squeezed) % 4), validate=True)
    except (binascii.Error, ValueError):
        return text
    start = inner.lstrip()[:1]
    if start in {b"{", b"["}:
        return parse(inner)[0]
    return tree_of(inner) if start == b"<" else text
