"""CESQL's three types: casts, comparison, Int32 arithmetic, LIKE, and the built-in functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Value = str | int | bool
Outcome = tuple[Any, str | None]

INT_MIN: Final = -(2**31)
INT_MAX: Final = 2**31 - 1
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)


class CesqlError(Exception):
    """An expression that cannot be read."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


def zero_of(kind: type) -> Value:
    """The value of a type that an error leaves behind."""
    zeros: Mapping[type, Value] = {str: "", int: 0}
    return zeros.get(kind, False)


def cast(value: Any, kind: type) -> Outcome:
    """The value as another type, as operators cast implicitly; (zero, "cast") where that cannot be."""
    if type(value) is kind:
        return value, None
    if kind is str:
        return (str(value).lower() if isinstance(value, bool) else str(value)), None
    if kind is int:
        if isinstance(value, bool):
            return int(value), None
        number = int(value) if isinstance(value, str) and len(value) < 12 and _INTEGER.fullmatch(value) else None  # noqa: PLR2004
        return (number, None) if number is not None and INT_MIN <= number <= INT_MAX else (0, "cast")
    truth = {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else None
    return (truth, None) if truth is not None else (False, "cast")


def compare(sign: str, left: Any, right: Any) -> Outcome:
    """`left sign right`: equality casts the left to the right's type, order compares integers."""
    if sign in {"=", "!=", "<>"}:
        value, error = cast(left, type(right))
        return ((value == right) is (sign == "=")) and not error, error
    first, error = cast(left, int)
    second, later = cast(right, int)
    held = {"<": first < second, "<=": first <= second, ">": first > second, ">=": first >= second}[sign]
    return held and not (error or later), error or later


def compute(sign: str, left: int, right: int, error: str | None) -> Outcome:
    """Int32 arithmetic; division cuts toward zero; overflow and division by zero are math errors."""
    if sign in {"/", "%"} and right == 0:
        return 0, error or "math"
    if sign == "+":
        found = left + right
    elif sign == "-":
        found = left - right
    elif sign == "*":
        found = left * right
    else:
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        found = quotient if sign == "/" else left - quotient * right
    return (found, error) if INT_MIN <= found <= INT_MAX else (0, error or "math")


LikeForm = tuple[str | None, ...]


def like_form(text: str) -> LikeForm:
    """A LIKE pattern in pieces: literal text, None for `%`, the empty string for `_`."""
    pieces: list[str | None] = []
    at = 0
    while at < len(text):
        letter = text[at]
        if letter == "\\" and text[at + 1 : at + 2] in {"%", "_"}:
            at += 1
            pieces.append(text[at])
        elif letter == "%":
            if not pieces or pieces[-1] is not None:
                pieces.append(None)
        else:
            pieces.append("" if letter == "_" else letter)
        at += 1
    return tuple(pieces)


def like(text: str, form: LikeForm) -> bool:
    """Whether the text has this form.  Keeps only the last `%` to go back to, so the work is at most text times form."""
    at = piece = 0
    back: tuple[int, int] | None = None
    while at < len(text):
        if piece < len(form) and form[piece] is None:
            piece += 1
            back = (piece, at)
        elif piece < len(form) and form[piece] in {"", text[at]}:
            piece += 1
            at += 1
        elif back is not None:
            piece, tried = back
            at = tried + 1
            back = (piece, at)
        else:
            return False
    return all(left is None for left in form[piece:])


@dataclass(frozen=True, slots=True)
class Function:
    """A built-in: the types its arguments are cast to (the last one for all further; None: as it is), and what it gives."""

    run: Callable[..., Outcome]
    types: tuple[type | None, ...]
    gives: type
    least: int = 0


def _side(text: str, count: int, *, left: bool) -> Outcome:
    if count < 0:
        return text, "functionEvaluation"
    return (text[:count] if left else text[max(len(text) - count, 0) :]), None


def _substring(text: str, position: int, length: int | None = None) -> Outcome:
    if abs(position) > len(text) or (length is not None and length < 0):
        return "", "functionEvaluation"
    if position == 0:
        return "", None
    start = position - 1 if position > 0 else len(text) + position
    return (text[start:] if length is None else text[start : start + length]), None


def _absolute(number: int) -> Outcome:
    return (INT_MAX, "math") if number == INT_MIN else (abs(number), None)


def _to_bool(value: Value) -> Outcome:
    return (value != 0, None) if type(value) is int else cast(value, bool)


FUNCTIONS: Final[Mapping[tuple[str, int | None], Function]] = {
    ("LENGTH", 1): Function(lambda text: (len(text), None), (str,), int),
    ("CONCAT", None): Function(lambda *texts: ("".join(texts), None), (str,), str),
    ("CONCAT_WS", None): Function(lambda by, *texts: (by.join(texts), None), (str,), str, least=1),
    ("LOWER", 1): Function(lambda text: (text.lower(), None), (str,), str),
    ("UPPER", 1): Function(lambda text: (text.upper(), None), (str,), str),
    ("TRIM", 1): Function(lambda text: (text.strip(), None), (str,), str),
    ("LEFT", 2): Function(lambda text, count: _side(text, count, left=True), (str, int), str),
    ("RIGHT", 2): Function(lambda text, count: _side(text, count, left=False), (str, int), str),
    ("SUBSTRING", 2): Function(_substring, (str, int), str),
    ("SUBSTRING", 3): Function(_substring, (str, int, int), str),
    ("ABS", 1): Function(_absolute, (int,), int),
    ("INT", 1): Function(lambda value: cast(value, int), (None,), int),
    ("BOOL", 1): Function(_to_bool, (None,), bool),
    ("STRING", 1): Function(lambda value: cast(value, str), (None,), str),
}
