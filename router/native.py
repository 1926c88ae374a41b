"""The compiled engine: one team's rules in the extension `nightbell_native` (folder native/), where it is installed.

    Pattern ──▶ described(field): tests and accesses in bytes ──▶ nightbell_native.Field ──▶ nightbell_native.Rules

It is optional: without it `router/team_index.py` does the same.  What a pattern means is decided in `router/operators.py`
alone: here its tests are only written down in a form that the extension knows, and what has none is called back.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final, Protocol

from router.field import Field
from router.operators import PRESENT, Access, Test
from router.pattern import Document, Pattern
from router.texts import wildcard_parts
from router.values import BITS, FALSE, TRUE, is_number_key, key_of

Described = tuple[Any, ...]


class _Rules(Protocol):
    """`nightbell_native.Rules`: an immutable set of rules."""

    def __len__(self) -> int: ...

    def with_rules(self, add: list[tuple[str, list[list[Any]], list[Any]]], remove: list[str]) -> _Rules: ...

    def match(self, document: Document, now_ms: int, sharply: bool) -> list[str] | None: ...  # noqa: FBT001  # foreign: positional

    def steps(self, document: Document) -> int: ...


try:
    _native: Any = importlib.import_module("nightbell_native")
except ImportError:
    _native = None

IS_THERE: Final = _native is not None


class NativeIndex:
    """One team's rules, indexed by the extension; the same face as `TeamIndex`."""

    __slots__ = ("_rules",)

    def __init__(self, rules: _Rules) -> None:
        self._rules = rules

    @staticmethod
    def of(rules: Iterable[tuple[str, Pattern]]) -> NativeIndex:
        """The index of these rules."""
        return NativeIndex(_native.Rules(_odd).with_rules([_given(rule, pattern) for rule, pattern in rules], []))

    def __len__(self) -> int:
        return len(self._rules)

    def match(self, document: Document, exact: Callable[[], Document] | None, now_ms: int) -> list[str]:
        """The ids of the rules that match, sorted."""
        found = self._rules.match(document, now_ms, exact is not None)
        if found is None and exact is not None:  # a number's own text decides, and the document has lost it
            with suppress(ValueError):  # what the first reader took, the exact one may not (nesting): then doubles decide
                document = exact()
            found = self._rules.match(document, now_ms, False)
        return found or []

    def steps(self, document: Document) -> int:
        """How many steps a match of this document takes: a measure that no clock disturbs."""
        return self._rules.steps(document)

    def with_rules(self, add: Mapping[str, Pattern], remove: Iterable[str]) -> NativeIndex:
        """The index without `remove`, then with `add`."""
        return NativeIndex(self._rules.with_rules([_given(rule, pattern) for rule, pattern in add.items()], list(remove)))


def _given(rule: str, pattern: Pattern) -> tuple[str, list[list[Any]], list[Any]]:
    return rule, [[field.core or _core(field) for field in branch.fields] for branch in pattern.branches], list(pattern.guards)


def _core(field: Field) -> Any:
    """The extension's form of a field, made once: fields of equal meaning are one object there too."""
    equals = field.equal_keys()
    if equals is not None:
        keys = [key_bytes(key) for key in equals]
        tests: list[Described] = [("equals", keys[0]) if len(keys) == 1 else ("one-of", keys)]
    else:
        tests = [described(test) for test in field.tests]
    accesses = [_access(access) for access in field.doors()]
    exact = all(test.exact for test in field.tests)
    field.core = _native.Field(field.path, tests, accesses, field.absent, exact, field.numeric)
    return field.core


def key_bytes(key: Hashable) -> bytes:
    """The bytes of a leaf's key (`values.key_of`): equal for equal keys alone.  No UTF-8 text begins with the byte 0xFF."""
    if isinstance(key, str):
        return key.encode("utf-8", "surrogatepass")
    if key is None:
        return b"\xffn"
    if key in {TRUE, FALSE}:
        return b"\xfft" if key == TRUE else b"\xfff"
    if isinstance(key, int | float):
        return b"\xff#" + struct.pack(">d", float(key) + 0.0)  # -0 is 0
    assert isinstance(key, tuple)  # ("number", a Decimal, or the name of what is no number)
    return b"\xffw" + _digits(key[1]).encode()


def _digits(value: Decimal | str) -> str:
    if isinstance(value, str) or not value.is_finite():
        return str(value)
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    kept = text.rstrip("0")
    power = exponent + len(text) - len(kept) if isinstance(exponent, int) else exponent
    return f"{'-' * sign}{kept}e{power if kept else 0}"


def _odd(value: Any) -> float | bytes:
    """What the extension asks of a rare leaf: its double, or the bytes of its key.  Raises TypeError where it is no leaf."""
    key = key_of(value)
    return float(key) if is_number_key(key) else key_bytes(key)  # type: ignore[arg-type]  # a number, as just asked


def described(test: Test) -> Described:
    """The test in a form that the extension knows; what has none is called back with the leaf."""
    return _by_key(test.key) or ("call", lambda leaf: test.holds(key_of(leaf)))


def _by_key(key: Any) -> Described | None:
    form = _FORMS.get(key[0])
    return None if form is None else form(*key[1:])


def _text_form(name: str) -> Callable[[str], Described]:
    return lambda text: (name, key_bytes(text))


def _any_case_form(name: str) -> Callable[[str], Described | None]:
    return lambda text: (name, text.encode()) if text.isascii() else None


def _address_form(address: tuple[int, int]) -> Described:
    version, number = address
    return "network", version, BITS[version], number


def _numeric_form(first: str, bound: float, second: str = "", other: float = 0.0) -> Described:
    low, with_low, high, with_high = float("-inf"), False, float("inf"), False
    for sign, limit in ((first, bound), (second, other)):
        if sign in {">", ">=", "="}:
            low, with_low = limit, sign != ">"
        if sign in {"<", "<=", "="}:
            high, with_high = limit, sign != "<"
    return "range", float(low), with_low, float(high), with_high


def _anything_but_form(*wanted: Any) -> Described | None:
    if len(wanted) == 1:
        return "none-of", [key_bytes(key) for key in wanted[0]]
    inner = [_by_key(key) for key in wanted[1]]
    return None if None in inner else ("not", inner)


_FORMS: Final[Mapping[str, Callable[..., Described | None]]] = {
    "equals": lambda key: ("equals", key_bytes(key)),
    "address": _address_form,
    "prefix": _text_form("prefix"),
    "suffix": _text_form("suffix"),
    "equals-ignore-case": _any_case_form("any-case"),
    "prefix-ignore-case": _any_case_form("any-case-prefix"),
    "suffix-ignore-case": _any_case_form("any-case-suffix"),
    "wildcard": lambda text: ("wildcard", [key_bytes(part) for part in wildcard_parts(text)]),
    "numeric": _numeric_form,
    "exists": lambda _wanted: ("exists",),
    "cidr": lambda version, bits, network: ("network", version, bits, network),
    "anything-but": _anything_but_form,
}


def _access(access: Access) -> Described:
    kind, key = access
    if access == PRESENT:
        return kind, b""
    if kind == "range":
        return kind, (float(key[0]), float(key[1]))
    return kind, key if kind == "network" else key_bytes(key)
