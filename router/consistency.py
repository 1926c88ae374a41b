"""Array consistency: fields below one array must hold in one element of it.

Fields are tried in the order of their paths, as event-ruler does; each leaf that satisfies a field fixes the elements it lies
in, and a later field may only use leaves that agree.  `exists: false` therefore asks for absence in the elements fixed so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from router.field import Field
from router.flatten import Chain, Found

Fixed = dict[int, int]


def is_consistent(fields: Sequence[Field], found: Found) -> bool:
    """Whether one choice of array elements satisfies all of `fields` (in the order of their paths)."""
    leaves, tangled = found.leaves, found.tangled
    shared = []
    for field in fields:
        if field.path in tangled:
            shared.append(field)
        elif not field.holds(leaves):
            return False
    if len(shared) < 2:  # noqa: PLR2004  # one field alone agrees with itself
        return all(field.holds(leaves) for field in shared)
    return _agree(shared, 0, {}, found, _Tried(shared, found))


class _Tried:
    """What has been tried in vain: (field, elements fixed), with only those elements that a later field can still meet."""

    def __init__(self, fields: Sequence[Field], found: Found) -> None:
        self.failed: set[tuple[int, frozenset[tuple[int, int]]]] = set()
        self.ahead: list[set[int]] = [set()]
        for field in reversed(fields):
            arrays = {array for _, chain in found.tangled[field.path] for array, _ in chain}
            self.ahead.append(arrays | self.ahead[-1])
        self.ahead.reverse()

    def still_matters(self, at: int, fixed: Fixed) -> Fixed:
        """Of what is fixed, the arrays that the fields from `at` on pass."""
        ahead = self.ahead[at]
        return {array: element for array, element in fixed.items() if array in ahead}


def _agree(fields: Sequence[Field], at: int, fixed: Fixed, found: Found, tried: _Tried) -> bool:
    if at == len(fields):
        return True
    state = (at, frozenset(fixed.items()))
    if state in tried.failed:
        return False
    field = fields[at]
    absent = field.absent and next(_compatible(_shelf(field, found, every=True), fixed), None) is None
    if absent and _agree(fields, at + 1, tried.still_matters(at + 1, fixed), found, tried):
        return True
    for chain in _compatible(_shelf(field, found, every=False), fixed):
        if _agree(fields, at + 1, tried.still_matters(at + 1, fixed | dict(chain)), found, tried):
            return True
    tried.failed.add(state)
    return False


class Shelf:
    """Chains, sorted by the array and element that they pass: what agrees with what is fixed is found, not searched."""

    __slots__ = ("arrays", "chain")

    def __init__(self) -> None:
        self.arrays: dict[int, dict[int, Shelf]] = {}
        self.chain: Chain | None = None


def _shelf(field: Field, found: Found, *, every: bool) -> Shelf:
    """The chains at the field's path: of every leaf, or of those for which the field holds.  Made once per event."""
    key = field.path if every else field
    shelf: Shelf | None = found.shelves.get(key)
    if shelf is None:
        shelf = found.shelves[key] = Shelf()
        for leaf, chain in found.tangled[field.path]:
            if every or field.holds_for(leaf):
                place = shelf
                for array, element in chain:
                    place = place.arrays.setdefault(array, {}).setdefault(element, Shelf())
                place.chain = chain
    return shelf


def _compatible(shelf: Shelf, fixed: Fixed) -> Iterator[Chain]:
    if shelf.chain is not None:
        yield shelf.chain
    for array, elements in shelf.arrays.items():
        chosen = fixed.get(array)
        if chosen is None:
            for below in elements.values():
                yield from _compatible(below, fixed)
        elif chosen in elements:
            yield from _compatible(elements[chosen], fixed)
