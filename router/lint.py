"""What is probably not meant: findings on rules that are valid, each with what to do about it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from router.field import Field
from router.nearest import shown_value
from router.operators import PRESENT, Test
from router.pattern import Branch, Document, Pattern
from router.values import MISSING, is_number_key

MOST_COMPARED: Final = 2000  # rules of one team that are compared with each other; beyond, pairs would take too long

# Where a door's look-up is itself a search, in exact comparisons per event.
_SEARCHES: Final[Mapping[str, int]] = {"contains": 5, "range": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is probably not meant.  `code` is stable; `other` names the second rule where there is one."""

    rule: str
    code: str
    text: str
    path: str = ""
    other: str = ""

    def as_json(self) -> dict[str, str]:
        """This finding as the API and the command line show it."""
        told = {"rule": self.rule, "code": self.code, "text": self.text, "path": self.path, "other": self.other}
        return {name: value for name, value in told.items() if value}


Named = tuple[str, Pattern]


def lint(
    rules: Sequence[Named],
    *,
    types: Collection[str] | None = None,
    samples: Iterable[Document] = (),
    among: Sequence[Named] = (),
) -> list[Finding]:
    """Findings on these rules of one team, in their order.

    `types` are the event types that have been kept, `samples` some kept events: with them, what no event has is found.  `among`
    are the team's other rules, which are compared with these but not judged themselves.
    """
    seen = list(samples)
    found: list[Finding] = []
    for name, pattern in rules:
        found += _contradictions(name, pattern)
        found += _alternatives(name, pattern)
        found += _unindexed(name, pattern)
        found += _unknown_types(name, pattern, types)
        found += _against_samples(name, pattern, seen)
    everyone = [*rules, *among]
    if len(everyone) <= MOST_COMPARED:
        found += _covered(rules, everyone)
    return list(dict.fromkeys(found))


def _fields(pattern: Pattern) -> Iterator[Field]:
    for branch in pattern.branches:
        yield from branch.fields


def _contradictions(name: str, pattern: Pattern) -> Iterator[Finding]:
    dead = [reason for branch in pattern.branches if (reason := _impossible(branch)) is not None]
    for path, why in dead:
        whole = "so this rule never matches" if len(dead) == len(pattern.branches) else "so this branch never matches"
        yield Finding(name, "contradiction", f"{path}: {why}, {whole}", path)


def _impossible(branch: Branch) -> tuple[str, str] | None:
    by_path: dict[str, list[Field]] = {}
    for field in branch.fields:
        by_path.setdefault(field.path, []).append(field)
    for path, fields in by_path.items():
        values = [field.equals for field in fields if field.equals is not None]
        # Attributes have one value; below data an array may hold both.
        if len(values) > 1 and path.partition(".")[0] != "data" and not frozenset.intersection(*values):
            return path, "it would have to equal two different values"
        above = next((other for other in by_path if path.startswith(f"{other}.") and not _may_be_absent(by_path[other])), None)
        if above is not None and not _may_be_absent(fields):
            return path, f"{above} would have to be a value and an object at once (only an array of both can be)"
    return None


def _may_be_absent(fields: Iterable[Field]) -> bool:
    return all(field.absent for field in fields)


def _alternatives(name: str, pattern: Pattern) -> Iterator[Finding]:
    for field in _fields(pattern):
        excluding = [test for test in field.tests if test.operator == "anything-but"]
        if len(excluding) > 1:
            text = f"{field.path}: {len(excluding)} anything-but in one array are ORed, so they take all; write one with a list"
            yield Finding(name, "anything-but-or", text, field.path)
        for test in field.tests:
            wider = next((other for other in field.tests if other is not test and implies(test, other)), None)
            if wider is not None and not (implies(wider, test) and field.tests.index(wider) > field.tests.index(test)):
                text = f"{field.path}: {_written(test)} adds nothing beside {_written(wider)}"
                yield Finding(name, "redundant-alternative", text, field.path)


def _written(test: Test) -> str:
    return shown_value(test.wanted if test.operator == "equals" else {test.operator: test.wanted})


def _unindexed(name: str, pattern: Pattern) -> Iterator[Finding]:
    for branch in pattern.branches:
        accesses = [field.accesses for field in branch.fields if field.accesses]
        if any(access != PRESENT and access[0] not in _SEARCHES for found in accesses for access in found):
            continue
        searched = [found for found in accesses if PRESENT not in found]
        if searched:
            searches = max(_SEARCHES[access[0]] for found in searched for access in found)
            cost, why = searches * len(branch.fields), "it is found by a search only"
        elif accesses:
            cost, why = 10 * len(branch.fields), "it is tried on every event that has one of its fields"
        else:
            cost, why = 10 * max(len(branch.fields), 1), "it is tried on every event of the team"
        text = f"no field says a value, a prefix or a suffix: {why} (about {cost} comparisons each); name the type"
        yield Finding(name, "not-indexed", text)


def _unknown_types(name: str, pattern: Pattern, types: Collection[str] | None) -> Iterator[Finding]:
    for field in _fields(pattern):
        if types is None or field.path != "type":
            continue
        for test in field.tests:
            if test.operator != "equals" or not isinstance(test.wanted, str) or test.wanted in types:
                continue
            near = difflib.get_close_matches(test.wanted, sorted(types), n=1)
            hint = f"; there is {near[0]}" if near else ""
            yield Finding(name, "unknown-type", f"no kept event has the type {test.wanted!r}{hint}", field.path)


def _against_samples(name: str, pattern: Pattern, samples: Sequence[Document]) -> Iterator[Finding]:
    for document in samples:
        found = pattern.found_in(document)
        for field in _fields(pattern):
            leaf = found.leaves.get(field.path, MISSING)
            if isinstance(leaf, list) and any(test.operator == "anything-but" for test in field.tests):
                text = f"{field.path} is an array in kept events: anything-but asks whether any element differs, not all"
                yield Finding(name, "anything-but-array", text, field.path)
            if leaf is MISSING or field.holds(found.leaves) or isinstance(leaf, list):
                continue
            kinds = {_kind(test.wanted) for test in field.tests if test.operator == "equals"}
            if len(kinds) == len(field.tests) == 1 and _kind(leaf) not in kinds:
                text = f"{field.path} is {_kind(leaf)} in kept events, and the pattern wants {kinds.pop()}"
                yield Finding(name, "type-mismatch", text, field.path)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return "a string"
    return "a number" if is_number_key(value) or (isinstance(value, tuple) and value[0] == "number") else "a boolean"


def _covered(rules: Sequence[Named], everyone: Sequence[Named]) -> Iterator[Finding]:
    by_shape: dict[frozenset[str], list[Named]] = {}
    for name, pattern in everyone:
        if not pattern.guards:
            by_shape.setdefault(pattern.paths, []).append((name, pattern))
    for name, pattern in rules:
        # A wider rule asks about no path that this one does not ask about.
        for paths, others in by_shape.items():
            if not paths <= pattern.paths:
                continue
            for other, wider in others:
                if other == name or not covers(wider, pattern):
                    continue
                if not pattern.guards and covers(pattern, wider):
                    yield Finding(name, "duplicate", f"matches exactly what {other} matches", other=other)
                else:
                    yield Finding(name, "subsumed", f"every event that it matches, {other} matches too", other=other)


def covers(wider: Pattern, narrower: Pattern) -> bool:
    """Whether every event that `narrower` matches is surely matched by `wider` (False where that cannot be told)."""
    return not wider.guards and all(any(_branch_covers(one, other) for one in wider.branches) for other in narrower.branches)


def _branch_covers(wider: Branch, narrower: Branch) -> bool:
    return all(any(_field_implies(one, other) for one in narrower.fields) for other in wider.fields)


def _field_implies(one: Field, other: Field) -> bool:
    if one.path != other.path or (one.absent and not other.absent):
        return False
    return all(any(implies(test, wider) for wider in other.tests) for test in one.tests)


def implies(one: Test, other: Test) -> bool:
    """Whether every leaf that satisfies `one` surely satisfies `other`."""
    if one.key == other.key or (other.operator == "exists" and other.wanted is True):
        return True
    if one.operator == "equals" and one.access[0] == "equals":
        return other.holds(one.access[1])
    compare = _IMPLIES.get(one.operator) if one.operator == other.operator else None
    return compare is not None and compare(one, other)


def _prefix_implies(one: Test, other: Test) -> bool:
    both = one.access[0] == other.access[0] == "prefix"
    return both and bool(one.access[1].startswith(other.access[1]))


def _suffix_implies(one: Test, other: Test) -> bool:
    both = one.access[0] == other.access[0] == "suffix"
    return both and bool(one.access[1].endswith(other.access[1]))


Bound = tuple[float, bool]  # the number, and whether it belongs to the range


def _span(test: Test) -> tuple[Bound, Bound]:
    low: Bound = (-math.inf, False)
    high: Bound = (math.inf, False)
    for sign, bound in zip(test.wanted[::2], test.wanted[1::2], strict=True):
        if sign in {">", ">=", "="}:
            low = (bound, sign != ">")
        if sign in {"<", "<=", "="}:
            high = (bound, sign != "<")
    return low, high


def _within(one: tuple[Bound, Bound], other: tuple[Bound, Bound]) -> bool:
    (low, with_low), (high, with_high) = one
    (least, with_least), (most, with_most) = other
    above = low > least or (low == least and (with_least or not with_low))
    below = high < most or (high == most and (with_most or not with_high))
    return above and below


def _network_within(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    (version, bits, network), (other_version, other_bits, other_network) = one, other
    return version == other_version and bits >= other_bits and network >> (bits - other_bits) == other_network


_IMPLIES: Final[Mapping[str, Callable[[Test, Test], bool]]] = {
    "prefix": _prefix_implies,
    "suffix": _suffix_implies,
    "numeric": lambda one, other: _within(_span(one), _span(other)),
    "cidr": lambda one, other: _network_within(one.access[1], other.access[1]),
}
