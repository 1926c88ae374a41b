"""The budget: what does not fit is cut, deterministically, in a fixed order, with a visible mark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from curator.ports import TokenCounter

# Longer strings are prose: they may be shortened.  Shorter ones are facts: kept whole or cut whole.
PROSE_CHARS = 160
_TEXT_STEPS = (8000, 4000, 2000, 1200, 800, 500, 300, PROSE_CHARS)
_LIST_STEPS = (50, 20, 10, 5, 3, 1)
# No counter gives four leaves of JSON less than a token, so of more leaves than this the last are cut unread.
_LEAVES_PER_TOKEN = 4
GAP = "…"  # in the place of an item that was cut before a required one: what a pointer names stays where it was
_GONE = object()

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
        self.required = frozenset(_as_in(value, path) for path in required)
        self.above = frozenset(path[:length] for path in self.required for length in range(len(path)))
        self.places: dict[Path, int] = {}  # of a list: the last index that something required stands at or under
        for path in self.required:
            for length, step in enumerate(path):
                if isinstance(step, int):
                    self.places[path[:length]] = max(step, self.places.get(path[:length], -1))

    def fitted(self) -> Fitted:
        value = self.value
        cut: list[str] = []
        for chars, items in self.steps():
            cut = []
            value = self.trimmed(self.value, (), chars, items, cut)
            found = self.measured(value, cut)
            if found is not None:
                return found
        return self.whole_fields_cut(value, cut)

    def steps(self) -> Iterator[tuple[int, int]]:
        """Ever harder caps of prose, then of lists; without those that would change nothing."""
        chars, items = _longest(self.value)
        for step in _TEXT_STEPS:
            if step < chars:
                yield step, 1_000_000
        for step in _LIST_STEPS:
            if step < items:
                yield PROSE_CHARS, step

    def measured(self, value: Any, cut: Sequence[str]) -> Fitted | None:
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
        last, gaps = self.places.get(path, -1), 0
        found: list[Any] = []
        for index, item in enumerate(at[: max(items, last + 1)]):
            if index < items or (*path, index) in self.required or (*path, index) in self.above:
                found.append(self.trimmed(item, (*path, index), chars, items, cut))
            else:
                found.append(GAP)
                gaps += 1
        more = len(at) - len(found)
        if more or gaps:
            cut.append(f"{pointer(path)} (+{more + gaps} items)")
        if more:
            found.append(f"… {more} more")
        return found

    def whole_fields_cut(self, value: Any, cut: list[str]) -> Fitted:
        """Cut as few leaves as will do, the last of the document first."""
        leaves = [path for path in _leaves(value, ()) if not self.is_kept(path)]
        surely = max(0, len(leaves) - self.limit * _LEAVES_PER_TOKEN)
        if surely:
            value = self.without(value, leaves[len(leaves) - surely :])
        low, high = 0, len(leaves) - surely  # cutting `high` leaves is the most there is; find the least that fits
        maybe = leaves[:high]
        best: Fitted | None = None
        while low < high:
            middle = (low + high) // 2
            found = self.measured(self.without(value, maybe[len(maybe) - middle :]), ()) if middle or surely else None
            if found is not None:
                best, high = found, middle
            else:
                low = middle + 1
        names = (*cut, *(pointer(path) for path in leaves[len(leaves) - surely - high :]))
        if best is not None:
            return Fitted(best.value, best.encoded, best.tokens, names)
        left = self.without(value, maybe)
        found = self.measured(left, ())
        if found is not None:
            return Fitted(left, found.encoded, found.tokens, names)
        encoded = orjson.dumps(left)
        return Fitted(left, encoded, self.counter.count(encoded.decode()), names, fits=False)

    def is_kept(self, path: Path) -> bool:
        return path in self.required or any(path[:length] in self.required for length in range(len(path)))

    def without(self, value: Any, gone: Iterable[Path]) -> Any:
        """`value` without those leaves; an object where nothing is left."""
        left = self.pruned(value, (), frozenset(gone))
        return {} if left is _GONE else left

    def pruned(self, at: Any, path: Path, gone: frozenset[Path]) -> Any:
        """`at` without the leaves in `gone`, and without what that leaves empty."""
        if path in gone:
            return _GONE
        if at.__class__ is dict and at:
            found = {key: left for key, item in at.items() if (left := self.pruned(item, (*path, key), gone)) is not _GONE}
            return found or _GONE
        if at.__class__ is list and at:
            last = self.places.get(path, -1)
            items = [self.pruned(item, (*path, index), gone) for index, item in enumerate(at)]
            kept = [GAP if left is _GONE else left for index, left in enumerate(items) if left is not _GONE or index < last]
            return kept or _GONE
        return at


def _as_in(value: Any, path: Path) -> Path:
    """`path` with its steps as `value` has them: an object's member may be called `0`."""
    found: list[str | int] = []
    for step in path:
        if isinstance(value, dict):
            found.append(str(step))
            value = value.get(str(step))
        else:
            found.append(step)
            value = value[step] if isinstance(value, list) and isinstance(step, int) and step < len(value) else None
    return tuple(found)


def at(value: Any, path: Path) -> Any:
    """What stands at `path`; None where nothing does."""
    for step in path:
        if isinstance(value, dict):
            value = value.get(step if isinstance(step, str) else str(step))
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def _longest(value: Any) -> tuple[int, int]:
    """The characters of the longest text in it, and the items of the longest list."""
    chars, items = 0, 0
    waiting = [value]
    while waiting:
        at_ = waiting.pop()
        kind = at_.__class__
        if kind is str:
            chars = max(chars, len(at_))
        elif kind is dict:
            waiting.extend(at_.values())
        elif kind is list:
            items = max(items, len(at_))
            waiting.extend(at_)
    return chars, items


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
