"""The filter dialects of CloudEvents Subscriptions (exact, prefix, suffix, all, any, not, sql) as a rule.

https://github.com/cloudevents/spec/blob/main/subscriptions/spec.md#324-filters.  They see attributes, never data.  What can
be said in fields is indexed; the filters themselves run as a guard on candidates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from router.cesql import Conjunctions, both, either, holds, necessary, spellings
from router.cesql_grammar import parse
from router.cesql_values import CesqlError
from router.field import field_of
from router.operators import prefix, shown, suffix
from router.pattern import Branch, Guard, Pattern, quoted
from schemas.errors import Invalid

Attributes = Mapping[str, Any]
_NAME = re.compile(r"[a-z0-9]{1,64}", re.ASCII)
_MAX_DEPTH: Final = 32
_ANYTHING: Final[Conjunctions] = [()]


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter: whether attributes pass, and fields of which one conjunction holds whenever they do."""

    passes: Callable[[Attributes], bool]
    necessary: Conjunctions


def compile_filters(filters: Sequence[Any]) -> Pattern:
    """The rule of a `filters` array: all of them must pass.  Raises `Invalid`, naming the place and quoting the filters."""
    try:
        compiled = _all(filters, "filters", 0)
    except Invalid as exc:
        raise Invalid(f"{exc.detail}; in the filters {quoted(filters)}") from None
    branches = tuple(Branch(tuple(sorted(fields, key=lambda field: field.path))) for fields in compiled.necessary)
    return Pattern(
        list(filters),
        branches,
        guards=(Guard(quoted(filters), lambda document, _now_ms: compiled.passes(document)),),
        dialect="filters",
    )


def _one(written: Any, place: str, depth: int) -> Filter:
    if not isinstance(written, Mapping) or len(written) != 1:
        raise Invalid(f"{place}: a filter is an object with one dialect ({', '.join(_DIALECTS)}), not {shown(written)}")
    if depth > _MAX_DEPTH:
        raise Invalid(f"{place[:200]}: nested deeper than {_MAX_DEPTH}")
    ((dialect, wanted),) = written.items()
    compiled = _DIALECTS.get(dialect)
    if compiled is None:
        raise Invalid(f"{place}: unknown dialect {dialect!r}; known are {', '.join(_DIALECTS)}")
    return compiled(wanted, f"{place}.{dialect}", depth + 1)


def _attributes(wanted: Any, place: str) -> Mapping[str, str]:
    if not isinstance(wanted, Mapping) or not wanted:
        raise Invalid(f"{place}: wants an object of attributes and strings, not {shown(wanted)}")
    for name, text in wanted.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name == "data":
            raise Invalid(f"{place}: {name!r} is no attribute; filters see attributes only (use `pattern` for data)")
        if not isinstance(text, str) or not text:
            raise Invalid(f"{place}.{name}: wants a string that is not empty, not {shown(text)}")
    return wanted


def spelled(value: Any) -> str | None:
    """An attribute's canonical string form; None where there is none."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int) else None


def _compare(wanted: Any, place: str, holds_for: Callable[[str, str], bool]) -> Callable[[Attributes], bool]:
    pairs = tuple(_attributes(wanted, place).items())

    def passes(attributes: Attributes) -> bool:
        found = ((spelled(attributes.get(name)), text) for name, text in pairs)
        return all(value is not None and holds_for(value, text) for value, text in found)

    return passes


def _exact(wanted: Any, place: str, _depth: int) -> Filter:
    passes = _compare(wanted, place, str.__eq__)
    return Filter(passes, [tuple(field_of(name, spellings(text)) for name, text in wanted.items())])


def _prefix(wanted: Any, place: str, _depth: int) -> Filter:
    passes = _compare(wanted, place, str.startswith)
    # A number or a boolean has a string form too, which the index does not see: such starts are left to the guard.
    texts = [(name, text) for name, text in wanted.items() if text[0] not in "-0123456789tf"]
    return Filter(passes, [tuple(field_of(name, [prefix(text, name, frozenset())]) for name, text in texts)])


def _suffix(wanted: Any, place: str, _depth: int) -> Filter:
    passes = _compare(wanted, place, str.endswith)
    texts = [(name, text) for name, text in wanted.items() if text[-1] not in "0123456789e"]
    return Filter(passes, [tuple(field_of(name, [suffix(text, name, frozenset())]) for name, text in texts)])


def _several(wanted: Any, place: str, depth: int) -> list[Filter]:
    if not isinstance(wanted, list | tuple) or not wanted:
        raise Invalid(f"{place}: wants an array of one filter or more, not {shown(wanted)}")
    return [_one(written, f"{place}[{at}]", depth) for at, written in enumerate(wanted)]


def _all(wanted: Any, place: str, depth: int) -> Filter:
    filters = _several(wanted, place, depth)
    found = _ANYTHING
    for one in filters:
        found = both(found, one.necessary)
    return Filter(lambda attributes: all(one.passes(attributes) for one in filters), found)


def _any(wanted: Any, place: str, depth: int) -> Filter:
    filters = _several(wanted, place, depth)
    found = filters[0].necessary
    for one in filters[1:]:
        found = either(found, one.necessary)
    return Filter(lambda attributes: any(one.passes(attributes) for one in filters), found)


def _not(wanted: Any, place: str, depth: int) -> Filter:
    inner = _one(wanted, place, depth)
    return Filter(lambda attributes: not inner.passes(attributes), _ANYTHING)


def _sql(wanted: Any, place: str, _depth: int) -> Filter:
    if not isinstance(wanted, str):
        raise Invalid(f"{place}: wants a CESQL expression, not {shown(wanted)}")
    try:
        expression = parse(wanted)
    except CesqlError as exc:
        raise Invalid(f"{place}: {exc.detail}") from exc
    return Filter(lambda attributes: holds(expression, attributes), necessary(expression))


_DIALECTS: Final[Mapping[str, Callable[[Any, str, int], Filter]]] = {
    "exact": _exact,
    "prefix": _prefix,
    "suffix": _suffix,
    "all": _all,
    "any": _any,
    "not": _not,
    "sql": _sql,
}
