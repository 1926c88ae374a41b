"""Maps and postings that change by copying only a little: what a snapshot shares with the next one.

Posting   a tuple of filed branches; above SPLIT_ABOVE a Split, which asks one more path
Table     key → posting; a dict, above SHARD_ABOVE keys a Sharded of 256 dicts, so that one change copies 1/256
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from router.field import Field
from router.pattern import Guard
from router.values import MISSING

SPLIT_ABOVE: Final = 8
SHARD_ABOVE: Final = 4096
_SHARDS: Final = 256

Value = TypeVar("Value")


class Filed:
    """One branch of a rule, and where the index keeps it: in `slots` of the door of `path` (none: among the residual).

    `rest` are the fields still to be verified once the branch is a candidate, the cheapest first.
    """

    __slots__ = ("fields", "guards", "path", "rest", "rule", "slots")

    def __init__(self, rule: str, fields: tuple[Field, ...], guards: tuple[Guard, ...]) -> None:
        self.rule = rule
        self.fields = fields
        self.guards = guards
        self.path: str | None = None
        self.slots: tuple[tuple[tuple[Any, ...], Hashable], ...] = ()
        self.rest = fields


class Split:
    """A long posting, cut by the keys of one more path that most of its branches ask to equal something."""

    __slots__ = ("others", "path", "size", "table")

    def __init__(self, path: str, table: dict[Hashable, Posting], others: Posting, size: int) -> None:
        self.path = path
        self.table = table
        self.others = others
        self.size = size


Posting = tuple[Filed, ...] | Split


def collect(posting: Posting, leaves: Mapping[str, Any], into: list[Filed]) -> None:
    """Add to `into` the branches of `posting` that the leaves do not rule out."""
    while posting.__class__ is Split:
        leaf = leaves.get(posting.path, MISSING)
        if leaf.__class__ is list:
            for key in leaf:
                below = posting.table.get(key)
                if below is not None:
                    collect(below, leaves, into)
        elif leaf is not MISSING:
            below = posting.table.get(leaf)
            if below is not None:
                collect(below, leaves, into)
        posting = posting.others
    into.extend(posting)  # type: ignore[arg-type]  # not a Split, so a tuple: __class__ does not narrow


def size_of(posting: Posting | None) -> int:
    """How many branches a posting has."""
    if posting is None:
        return 0
    return posting.size if isinstance(posting, Split) else len(posting)


def posting_of(filed: Sequence[Filed], asked: frozenset[str] = frozenset()) -> Posting:
    """The posting of these branches; `asked` are the paths that led here."""
    if len(filed) <= SPLIT_ABOVE:
        return tuple(filed)
    path = _dividing_path(filed, asked)
    if path is None:
        return tuple(filed)
    groups: dict[Hashable, list[Filed]] = {}
    others: list[Filed] = []
    for branch in filed:
        keys = _keys_at(branch, path)
        if keys:
            for key in keys:
                groups.setdefault(key, []).append(branch)
        else:
            others.append(branch)
    below = asked | {path}
    table = {key: posting_of(group, below) for key, group in groups.items()}
    return Split(path, table, posting_of(others, below), len(filed))


def _dividing_path(filed: Sequence[Filed], asked: frozenset[str]) -> str | None:
    votes: Counter[str] = Counter()
    keys: dict[str, set[Hashable]] = {}
    for branch in filed:
        for field in branch.fields:
            if field.equals is not None and field.path not in asked and len(field.equals) <= SPLIT_ABOVE:
                votes[field.path] += 1
                keys.setdefault(field.path, set()).update(field.equals)
    useful = [(votes[path] * (1 - 1 / len(found)), path) for path, found in keys.items() if len(found) > 1]
    best, path = max(useful, default=(0.0, ""))
    return path if best * 4 >= len(filed) else None


def _keys_at(branch: Filed, path: str) -> frozenset[Hashable]:
    for field in branch.fields:
        if field.path == path and field.equals is not None and len(field.equals) <= SPLIT_ABOVE:
            return field.equals
    return frozenset()


def posting_with(posting: Posting | None, branch: Filed, asked: frozenset[str] = frozenset()) -> Posting:
    """The posting with one branch more."""
    if posting is None:
        return (branch,)
    if not isinstance(posting, Split):
        grown = (*posting, branch)
        # Trying to divide is linear, so it is tried when the size doubles, not at every addition.
        doubled = len(grown) > SPLIT_ABOVE and (len(grown) - 1).bit_count() == 1
        return posting_of(grown, asked) if doubled else grown
    below = asked | {posting.path}
    keys = _keys_at(branch, posting.path)
    if not keys:
        return Split(posting.path, posting.table, posting_with(posting.others, branch, below), posting.size + 1)
    table = dict(posting.table)
    for key in keys:
        table[key] = posting_with(table.get(key), branch, below)
    return Split(posting.path, table, posting.others, posting.size + 1)


def posting_without(posting: Posting | None, branch: Filed) -> Posting | None:
    """The posting with one branch less; None where it was the last."""
    if posting is None:
        return None
    if not isinstance(posting, Split):
        return tuple(kept for kept in posting if kept is not branch) or None
    if posting.size == 1:
        return None
    keys = _keys_at(branch, posting.path)
    if not keys:
        return Split(posting.path, posting.table, posting_without(posting.others, branch) or (), posting.size - 1)
    table = dict(posting.table)
    for key in keys:
        left = posting_without(table.get(key), branch)
        if left is None:
            table.pop(key, None)
        else:
            table[key] = left
    return Split(posting.path, table, posting.others, posting.size - 1)


class Sharded(Generic[Value]):
    """A large map whose copy with one change is cheap."""

    __slots__ = ("parts", "size")

    def __init__(self, parts: Sequence[dict[Hashable, Value]], size: int) -> None:
        self.parts = parts
        self.size = size

    def get(self, key: Hashable) -> Value | None:
        """The value of a key, or None."""
        return self.parts[hash(key) % _SHARDS].get(key)

    def items(self) -> Iterator[tuple[Hashable, Value]]:
        """Every key and value."""
        for part in self.parts:
            yield from part.items()

    def __len__(self) -> int:
        return self.size


Table = dict[Hashable, Value] | Sharded[Value]


def table_of(items: Iterable[tuple[Hashable, Value]], *, size: int) -> Table[Value]:
    """The table of these items, in the form that its size asks for."""
    if size <= SHARD_ABOVE:
        return dict(items)
    parts: list[dict[Hashable, Value]] = [{} for _ in range(_SHARDS)]
    for key, value in items:
        parts[hash(key) % _SHARDS][key] = value
    return Sharded(parts, sum(map(len, parts)))


def table_with(table: Table[Value], key: Hashable, value: Value | None) -> Table[Value]:
    """A copy of the table in which `key` has `value`, or is gone (None)."""
    if isinstance(table, Sharded):
        at = hash(key) % _SHARDS
        part, change = _dict_with(table.parts[at], key, value)
        parts = list(table.parts)
        parts[at] = part
        return Sharded(parts, table.size + change)
    copy, _ = _dict_with(table, key, value)
    return copy if len(copy) <= SHARD_ABOVE else table_of(copy.items(), size=len(copy))


def _dict_with(table: dict[Hashable, Value], key: Hashable, value: Value | None) -> tuple[dict[Hashable, Value], int]:
    copy = dict(table)
    if value is None:
        copy.pop(key, None)
    else:
        copy[key] = value
    return copy, len(copy) - len(table)
