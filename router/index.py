"""The doors of one path: how the branches filed under it are found from a leaf.

    leaf at a path ──▶ Door of that path ──▶ postings ──▶ candidates ──▶ (matcher) remaining fields, consistency, guards

    group              key              found by
    equals             key              one look-up
    prefix, length     text             one look-up per length in use
    suffix, length     text             one look-up per length in use
    folded             lower-case text  one look-up
    contains, length   piece            one look-up per piece of the text; a literal is kept under its rarest piece
    network, v, bits   network          one look-up per mask in use
    range, level       cell             one look-up per size class of two-sided ranges
    above, below       bound            one bisection, then only ranges that hold
    present            –                a scan of what is filed here

Invariants: a branch is filed under the doors of one field, one or more slots per alternative, and whenever that field holds,
one of them leads to it; what has no such field is residual, and always a candidate.  Nothing here changes once made.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

from router.operators import WIDEST, Access
from router.tables import Filed, Posting, Sharded, Table, collect, table_with
from router.values import BITS, address_of, is_number_key

Group = tuple[Any, ...]
Slot = tuple[Group, Hashable]

# What an alternative costs to be tried at every event that has the path, in candidates.
TRYING: Final[Mapping[str, float]] = {
    "equals": 0.1, "prefix": 1.0, "folded": 1.0, "suffix": 1.5, "network": 2.0, "range": 2.0, "contains": 4.0, "present": 8.0,
}  # fmt: skip


Crowd = Callable[[Slot], int]


def slots_of(access: Access, crowd: Crowd) -> list[Slot]:
    """Where in a door this access is to be kept; where there is a choice, in the least crowded place."""
    kind, key = access
    if kind == "contains":
        return [min(gram_slots(key), key=crowd)]
    if kind in {"prefix", "suffix"}:
        return [((kind, len(key)), key)]
    if kind == "network":
        version, bits, network = key
        return [((kind, version, bits), network)]
    if kind == "range":
        return _range_slots(*key)
    return [((kind,), key)]


_GRAMS: Final = (8, 4, 2, 1)


def gram_slots(literal: str) -> list[Slot]:
    """The slots of which any one finds every text that contains `literal`: its pieces of one length."""
    length = next(length for length in _GRAMS if length <= len(literal))
    return [(("contains", length), literal[at : at + length]) for at in range(len(literal) - length + 1)]


def _range_slots(low: float, high: float) -> list[Slot]:
    if math.isinf(low):
        return [(("below",), high)]
    if math.isinf(high):
        return [(("above",), low)]
    # A cell is as wide as the range or up to twice, so a range touches two or three.
    level = max(math.frexp(high - low)[1], -60)
    cells = range(math.floor(low / 2.0**level), math.floor(high / 2.0**level) + 1)
    return [(("range", level), cell) for cell in cells]


class Door:
    """What is filed under one path, sorted by how it is found."""

    __slots__ = ("above", "below", "equals", "groups", "numbers", "others", "present", "ranges", "texts")

    def __init__(self, groups: Mapping[Group, Table[Posting]]) -> None:
        self.groups = groups
        self.equals = groups.get(("equals",))
        present = groups.get(("present",))
        self.present: Posting | None = None if present is None else present.get(None)
        self.texts = [_TEXT_FINDERS[group[0]](group, table) for group, table in groups.items() if group[0] in _TEXT_FINDERS]
        self.ranges = [(2.0 ** group[1], table) for group, table in groups.items() if group[0] == "range"]
        self.above = _ordered(groups.get(("above",)))
        self.below = _ordered(groups.get(("below",)))
        self.numbers = bool(self.ranges or self.above[0] or self.below[0])
        self.others = bool(self.texts or self.numbers or self.present is not None)

    def with_slot(self, slot: Slot, posting: Posting | None) -> Door:
        """This door with `posting` at the slot (None: with nothing there)."""
        group, key = slot
        table = table_with(self.groups.get(group, {}), key, posting)
        kept = {name: there for name, there in self.groups.items() if name != group}
        return Door({**kept, group: table} if len(table) else kept)

    def open(self, key: Any, leaves: Mapping[str, Any], into: list[Filed]) -> None:
        """Add to `into` what is filed for this leaf, other than by equality."""
        if key.__class__ is str:
            for find in self.texts:
                find(key, leaves, into)
        elif self.numbers and is_number_key(key):
            self._open_number(key, leaves, into)
        if self.present is not None:
            collect(self.present, leaves, into)

    def _open_number(self, number: float, leaves: Mapping[str, Any], into: list[Filed]) -> None:
        if abs(number) < WIDEST:
            for width, table in self.ranges:
                posting = table.get(math.floor(number / width))
                if posting is not None:
                    collect(posting, leaves, into)
        bounds, postings = self.above
        for posting in postings[: bisect_right(bounds, number)]:
            collect(posting, leaves, into)
        bounds, postings = self.below
        for posting in postings[bisect_left(bounds, number) :]:
            collect(posting, leaves, into)


def _ordered(table: Table[Posting] | None) -> tuple[list[Any], list[Posting]]:
    if table is None:
        return [], []
    bounds: list[Any] = sorted(key for key, _ in table.items())
    found = dict(table.items())
    return bounds, [found[bound] for bound in bounds]


Find = Callable[[str, Mapping[str, Any], list[Filed]], None]


def _find_prefix(group: Group, table: Table[Posting]) -> Find:
    length = group[1]

    def find(text: str, leaves: Mapping[str, Any], into: list[Filed]) -> None:
        posting = table.get(text[:length])
        if posting is not None:
            collect(posting, leaves, into)

    return find


def _find_suffix(group: Group, table: Table[Posting]) -> Find:
    length = group[1]

    def find(text: str, leaves: Mapping[str, Any], into: list[Filed]) -> None:
        posting = table.get(text[-length:])
        if posting is not None:
            collect(posting, leaves, into)

    return find


def _find_folded(_group: Group, table: Table[Posting]) -> Find:
    def find(text: str, leaves: Mapping[str, Any], into: list[Filed]) -> None:
        posting = table.get(text.lower()) if text.isascii() else None
        if posting is not None:
            collect(posting, leaves, into)

    return find


def _find_contained(group: Group, table: Table[Posting]) -> Find:
    length = group[1]

    def find(text: str, leaves: Mapping[str, Any], into: list[Filed]) -> None:
        if len(table) <= len(text):
            found = [posting for gram, posting in table.items() if gram in text]  # type: ignore[operator]  # keys here are text
        else:
            grams = {text[at : at + length] for at in range(len(text) - length + 1)}
            there = grams if isinstance(table, Sharded) else grams & table.keys()
            found = [posting for gram in there if (posting := table.get(gram)) is not None]
        for posting in found:
            collect(posting, leaves, into)

    return find


def _find_network(group: Group, table: Table[Posting]) -> Find:
    _, version, bits = group
    shift = BITS[version] - bits

    def find(text: str, leaves: Mapping[str, Any], into: list[Filed]) -> None:
        address = address_of(text)
        posting = table.get(address[1] >> shift) if address is not None and address[0] == version else None
        if posting is not None:
            collect(posting, leaves, into)

    return find


_TEXT_FINDERS: Final[Mapping[str, Callable[[Group, Table[Posting]], Find]]] = {
    "prefix": _find_prefix,
    "suffix": _find_suffix,
    "folded": _find_folded,
    "contains": _find_contained,
    "network": _find_network,
}
