"""The leaves of a JSON document as the matcher compares them: typed keys, exact numbers, addresses."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Hashable
from decimal import Decimal, InvalidOperation
from typing import Any, Final

# In Python True == 1, in JSON not: booleans get keys of their own, equal to no JSON string or number.
TRUE: Final = ("true",)
FALSE: Final = ("false",)
MISSING: Final = object()

EXACT_INT: Final = 2**53  # every integer up to here has a double of its own


def key_of(value: Any) -> Hashable:
    """The hashable key of a JSON leaf: equal keys mean values that a pattern cannot tell apart.

    Strings are their own key.  A number that its double holds exactly is keyed by the double's value, so 300, 300.0 and 3e2 are
    one.  Any other number (2^53+1, a literal of forty digits, 1e400) keeps its decimal value and equals only itself.
    """
    cls = value.__class__
    if cls is str or value is None:
        return value  # type: ignore[no-any-return]  # str and None are hashable; mypy cannot see the narrowing through __class__
    if cls is bool:
        return TRUE if value else FALSE
    if cls is int:
        return value if -EXACT_INT <= value <= EXACT_INT else _wide_key(Decimal(value))
    if cls is float:
        return value if math.isfinite(value) else ("number", str(value))
    if cls is Decimal:
        return _wide_key(value)
    raise TypeError(f"not a JSON leaf: {cls.__name__}")


def _wide_key(value: Decimal) -> Hashable:
    nearest = float(value)
    return nearest if holds_exactly(nearest, value) else ("number", value)


def holds_exactly(nearest: float, value: Decimal) -> bool:
    """Whether the double's shortest decimal form is `value`: event-ruler's measure of a number that it can compare."""
    return math.isfinite(nearest) and Decimal(repr(nearest)) == value


def is_number_key(key: Hashable) -> bool:
    """Whether `key` is a number that ranges can compare (booleans and inexact numbers are tuples, so they are not)."""
    return key.__class__ is int or key.__class__ is float


def parse_exact(raw: bytes | str) -> Any:
    """JSON with no digit lost: integers of any size, and a `Decimal` for a fraction or exponent that no double holds exactly.

    Ten times slower than the usual reader, so called only where a pattern asks.  Raises ValueError.
    """
    try:
        return json.loads(raw, parse_float=_exact_float, parse_int=_exact_int)
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc


def _exact_float(text: str) -> float | Decimal:
    nearest = float(text)
    try:
        value = Decimal(text)
    except InvalidOperation:  # an exponent beyond all bounds
        return nearest
    return nearest if holds_exactly(nearest, value) else value


def _exact_int(text: str) -> int | Decimal:
    return int(text) if len(text) < 4000 else Decimal(text)  # noqa: PLR2004  # int() refuses more digits than 4,300


_IPV4 = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,10}){3}", re.ASCII)
_IPV6 = re.compile(r"[0-9a-fA-F:]*:[0-9a-fA-F:]*")
BITS: Final = {4: 32, 6: 128}


def address_of(text: str) -> tuple[int, int] | None:
    """(version, number) of an IP address in text, or None.  Leading zeros are decimal, as in event-ruler; no v4-in-v6 form."""
    if _IPV4.fullmatch(text):
        parts = [int(part) for part in text.split(".")]
        if max(parts) > 255:  # noqa: PLR2004  # the largest byte
            return None
        return 4, (parts[0] << 24) | (parts[1] << 16) | (parts[2] << 8) | parts[3]
    if 2 < len(text) <= 45 and _IPV6.fullmatch(text):  # noqa: PLR2004  # "::1" to the longest form
        try:
            return 6, int(ipaddress.IPv6Address(text))
        except ValueError:
            return None
    return (6, 0) if text == "::" else None
