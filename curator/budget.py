"""The budget: what does not fit is cut, deterministically, in a fixed order, with a visible mark."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from curator.ports import TokenCounter

# Longer strings are prose: they may be shortened.  Shorter ones are facts: kept whole or cut whole.
PROSE_CHARS = 160
_TEXT_STEPS = (8000, 4000, 2000, 1200, 800, 500, 300, PROSE_CHARS)
_LIST_STEPS = (50, 20, 10, 5, 3, 1)

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A value within its budget, its JSON, its tokens, what was cut.  `fits` False: even the required is too much."""

    value: Any
    encoded: bytes
    tokens: int
    left_out: tuple[str, ...] = ()
    fits: bool = True


def fitted(value: Any, encoded: bytes, limit: int, counter: TokenCounter, *, required: frozenset[Path] = frozenset()) -> Fitted:
    """`value`, whose JSON is `encoded`, in at most `limit` tokens.

    First long prose is shortened, then long lists, then whole fields go, the last first; what `required` names is kept as it
    is.  A count stops at the limit, so a giant costs a few passes over it and no more.
    """
    tokens = counter.count_within(encoded.decode(), limit)
    if tokens is not None:
        return Fitted(value, encoded, tokens)
    return _Cutter(value, limit, counter, required).fitted()


class _Cutter:
    """One over-large value on its way under the limit."""

    def __init__(self, value: Any, limit: int, counter: TokenCounter, required: frozenset[Path]) -> None:
        self.value = value
        self.limit = limit
        self.counter = counter
        self.required = required
        self.above = frozenset(path[:length] for path in required for length in range(len(path)))

    def fitted(self) -> Fitted:
        for chars, items in self.steps():
            cut: list[str] = []
            value = self.trimmed(self.value, (), chars, items, cut)
            found = self.measured(value, cut)
            if found is not None:
                return found
        return self.whole_fields_cut(value, cut)

    def steps(self) -> Iterator[tuple[int, int]]:
        """Ever harder caps of prose, then of lists."""
        for chars in _TEXT_STEPS:
            yield chars, 1_000_000
        for items in _LIST_STEPS:
            yield PROSE_CHARS, items

    def measured(self, value: Any, cut: list[str]) -> Fitted | None:
        encoded = orjson.dumps(value)
        tokens = self.counter.count_within(encoded.decode(), self.limit)
        return None if tokens is None else Fitted(value, encoded, tokens, tuple(cut))

    def trimmed(self, at: Any, path: Path, chars: int, items: int, cut: list[str]) -> Any:
        kind = at.__class__
        if kind is str:
            if len(at) <= chars or path in self.required:
                return at
            cut.append(f"{pointer(path)} (+{len(at) - chars} characters)")
            return f"{at[:chars]}… [+{len(at) - chars} characters]"
        if kind is dict:
            if path in self.required:
                return at
            return {key: self.trimmed(item, (*path, key), chars, items, cut) for key, item in at.items()}
        if kind is list:
            return self.trimmed_list(at, path, chars, items, cut)
        return at

    def trimmed_list(self, at: list[Any], path: Path, chars: int, items: int, cut: list[str]) -> list[Any]:
        if path in self.required:
            return at
        found = [
            self.trimmed(item, (*path, index), chars, items, cut)
            for index, item in enumerate(at)
            if index < items or (*path, index) in self.required or (*path, index) in self.above
        ]
        if len(found) < len(at):
            cut.append(f"{pointer(path)} (+{len(at) - len(found)} items)")
            found.append(f"… {len(at) - len(found)} more")
        return found

    def whole_fields_cut(self, value: Any, cut: list[str]) -> Fitted:
        """Cut as few leaves as will do, the last of the document first."""
        leaves = [path for path in _leaves(value, ()) if not self.is_kept(path)]
        low, high = 0, len(leaves)  # cutting `high` leaves is the most there is; find the least that fits
        best = self.without(value, leaves, high, cut)
        while low < high:
            middle = (low + high) // 2
            found = self.without(value, leaves, middle, cut)
            if found.fits:
                best, high = found, middle
            else:
                low = middle + 1
        return best

    def is_kept(self, path: Path) -> bool:
        return path in self.required or any(path[:length] in self.required for length in range(len(path)))

    def without(self, value: Any, leaves: list[Path], count: int, cut: list[str]) -> Fitted:
        gone = leaves[len(leaves) - count :]
        left = _pruned(value, (), frozenset(gone))
        if left is None:
            left = {}
        encoded = orjson.dumps(left)
        tokens = self.counter.count_within(encoded.decode(), self.limit)
        names = (*cut, *(pointer(path) for path in gone))
        if tokens is None:
            return Fitted(left, encoded, self.counter.count(encoded.decode()), names, fits=False)
        return Fitted(left, encoded, tokens, names)


def pointer(path: Path) -> str:
    """The JSON pointer (RFC 6901) of a path."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)


def _leaves(at: Any, path: Path) -> Iterator[Path]:
    """Every place without members, in the order of the document."""
    if at.__class__ is dict and at:
        for key, item in at.items():
            yield from _leaves(item, (*path, key))
    elif at.__class__ is list and at:
        for index, item in enumerate(at):
            yield from _leaves(item, (*path, index))
    else:
        yield path


def _pruned(at: Any, path: Path, gone: frozenset[Path]) -> Any:
    """`at` without the leaves in `gone`, and without what that leaves empty."""
    if path in gone:
        return None
    if at.__class__ is dict and at:
        found = {key: left for key, item in at.items() if (left := _pruned(item, (*path, key), gone)) is not None}
        return found or None
    if at.__class__ is list and at:
        items = [left for index, item in enumerate(at) if (left := _pruned(item, (*path, index), gone)) is not None]
        return items or None
    return at
