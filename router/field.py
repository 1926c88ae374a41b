"""What a pattern asks of one path; shared by all patterns that ask the same.

Field ── tests: alternatives, ORed    ── absent: that no leaf is there does too
── equals: the keys, where all tests compare keys
── accesses: the doors by which an index finds the field from a leaf
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

from router.operators import ABSENT, PRESENT, Access, Test
from router.values import MISSING


class Field:
    """What a branch asks of one path: any of `tests`, or (`absent`) that no leaf is there.

    Fields of equal meaning are one object, so that a matcher decides each once per event.
    """

    equals: frozenset[Hashable] | None  # the keys, where all tests compare keys
    holds_for: Callable[[Any], bool]  # whether one leaf satisfies any of the tests
    accesses: tuple[Access, ...]  # the doors through which every leaf comes that satisfies this field
    __slots__ = ("__weakref__", "absent", "accesses", "core", "equals", "holds_for", "numeric", "path", "tests")

    def __init__(self, path: str, tests: tuple[Test, ...]) -> None:
        self.path = path
        self.core: Any = None  # the compiled engine's form of this field, made when it is first asked for
        self.absent = ABSENT in tests
        self.tests = tuple(test for test in tests if test is not ABSENT)
        self.numeric = any(test.numeric for test in self.tests)

    def __getattr__(self, name: str) -> Any:
        """What is made when it is first asked for: the compiled engine keeps none of it, and a set alone takes 216 bytes."""
        if name == "equals":
            made: Any = self.equal_keys()
        elif name == "accesses":
            made = self.doors()
        elif name == "holds_for":
            made = _any_of(self.tests, self.equals)
        else:
            raise AttributeError(name)
        setattr(self, name, made)
        return made

    def doors(self) -> tuple[Access, ...]:
        """The accesses, made anew; none where absence may satisfy the field."""
        found = () if self.absent else tuple(dict.fromkeys(test.access for test in self.tests))
        return (PRESENT,) if PRESENT in found else found

    def equal_keys(self) -> frozenset[Hashable] | None:
        """The keys, where all tests compare keys; made anew."""
        keys = [test.key[1] for test in self.tests if test.key[0] == "equals"]
        return frozenset(keys) if len(keys) == len(self.tests) and not self.absent else None

    def holds(self, leaves: Mapping[str, Any]) -> bool:
        """Whether the leaves at the path (one key, or a list of keys) satisfy this field, array consistency apart."""
        leaf = leaves.get(self.path, MISSING)
        if leaf is MISSING:
            return self.absent
        if leaf.__class__ is list:
            return any(map(self.holds_for, leaf))
        return self.holds_for(leaf)

    def __repr__(self) -> str:
        wanted = [test.wanted if test.operator == "equals" else {test.operator: test.wanted} for test in self.tests]
        return f"Field({self.path}: {wanted}{' or absent' if self.absent else ''})"


def _any_of(tests: tuple[Test, ...], equals: frozenset[Hashable] | None) -> Callable[[Any], bool]:
    if equals is not None:
        return equals.__contains__
    if len(tests) == 1:
        return tests[0].holds
    held = tuple(test.holds for test in tests)
    return lambda leaf: any(holds(leaf) for holds in held)


# Thousands of subscriptions repeat the same few fields: sharing them saves memory, and makes the per-event memo work.
_FIELDS: WeakValueDictionary[Hashable, Field] = WeakValueDictionary()


def field_of(path: str, tests: Sequence[Test]) -> Field:
    """The one field of this meaning."""
    key = (path, tuple(test.key for test in tests))
    found = _FIELDS.get(key)
    if found is None:
        found = _FIELDS[key] = Field(path, tuple(tests))
    return found


_PLAIN_OPERATORS: Final = frozenset({"prefix", "suffix", "equals-ignore-case"})


def known_field(path: str, element: Any) -> Field | None:
    """The field of this one alternative where it is plainly written and an earlier pattern asked for it too: the common case.

    Only forms whose key needs no look at the value; that a field is known says that its element is well formed.
    """
    cls = element.__class__
    if cls is str:
        if ":" in element or element[:1].isdigit():  # perhaps an address
            return None
        return _FIELDS.get((path, (("equals", element),)))
    if cls is int:
        return _FIELDS.get((path, (("equals", element),)))
    if cls is dict and len(element) == 1:
        ((operator, wanted),) = element.items()
        if (wanted.__class__ is str and operator in _PLAIN_OPERATORS) or (wanted is True and operator == "exists"):
            return _FIELDS.get((path, ((operator, wanted),)))
    return None
