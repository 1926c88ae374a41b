"""JSON as vendors send it: lenient where the standard library is, and honest about what is ambiguous."""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import Any

import orjson

from schemas.errors import MalformedRequest

_LONG_NUMBER = re.compile(rb"[0-9][0-9.]{16}")  # may not fit a double, or 64 bits
_WHITESPACE = b" \t\r\n"
_MAX_INT = 2**64
_MIN_INT = -(2**63)
_LONGEST_INT = 4300  # Python's own limit on digits of an int


def parse(body: bytes) -> tuple[Any, bool]:
    """The document in `body`, and whether it is ambiguous: a key stands twice, or a number has no exact value here.

    The last of equal keys wins.  NaN and infinities become null, lone surrogates U+FFFD, integers beyond 64 bits the nearest
    float.  Raises `MalformedRequest` for anything else that is no JSON, and for a nesting that could not be written again.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        return _lenient(body, exc)
    try:
        again = orjson.dumps(found)
    except TypeError as exc:
        raise MalformedRequest("the JSON is nested too deeply") from exc
    # Most senders write JSON exactly as orjson does: then nothing can have been lost.
    return found, again != body and _is_ambiguous(body, again)


def _is_ambiguous(body: bytes, again: bytes) -> bool:
    if body.translate(None, _WHITESPACE) == again.translate(None, _WHITESPACE):
        return False  # only spread over lines
    is_spaced = b'" :' in body or b'"\n' in body or b'"\t' in body or b'"\r' in body or b"\\u0022" in body
    if not is_spaced and body.count(b'":') == again.count(b'":') and not _LONG_NUMBER.search(body):
        return False
    try:
        return _read_exactly(body.decode())[1]
    except (ValueError, RecursionError):
        return True


def _lenient(body: bytes, first: orjson.JSONDecodeError) -> tuple[Any, bool]:
    if body.startswith(codecs.BOM_UTF8):
        return parse(body[len(codecs.BOM_UTF8) :])
    try:
        found, is_ambiguous = _read_exactly(body.decode(json.detect_encoding(body)))
        found = _cleaned(found)
        orjson.dumps(found)
    except RecursionError as exc:
        raise MalformedRequest("the JSON is nested too deeply") from exc
    except (ValueError, TypeError) as exc:
        raise MalformedRequest(f"the body is no JSON: {_where(first)}") from exc
    return found, is_ambiguous


def _where(exc: orjson.JSONDecodeError) -> str:
    """The parser's words without the text around them: a body is never echoed."""
    return f"{exc.msg.split(':')[0]} at character {exc.pos}" if exc.pos else exc.msg.split(":")[0]


def _read_exactly(text: str) -> tuple[Any, bool]:
    odd: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) != len(found):
            odd.append("key")
        return made

    def integer(digits: str) -> int | float | None:
        if len(digits) > _LONGEST_INT:
            odd.append("integer")
            return None
        value = int(digits)
        if _MIN_INT <= value < _MAX_INT:
            return value
        odd.append("integer")
        return _finite(digits)

    def fraction(digits: str) -> float | None:
        value = _finite(digits)
        if value is None or _significant(digits) != _significant(repr(value)):
            odd.append("fraction")
        return value

    def constant(_: str) -> None:
        odd.append("constant")

    read = json.loads(text, object_pairs_hook=pairs, parse_int=integer, parse_float=fraction, parse_constant=constant)
    return read, bool(odd)


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _significant(digits: str) -> str:
    mantissa = digits.lower().lstrip("-").partition("e")[0]
    return mantissa.replace(".", "").strip("0")


def _cleaned(value: Any) -> Any:
    """`value` without lone surrogates; only the lenient path walks the document."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    return value
