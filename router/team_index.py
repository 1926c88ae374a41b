"""One team's rules, indexed: an immutable snapshot that changes by sharing.

    TeamIndex
    trie       the used paths, with how often each is used
    doors      path → Door (router/index.py); `equals` and `others` are its two halves, as matching asks for them
    residual   branches that no door leads to: always candidates
    rules      rule id → its filed branches

Every branch stands in `rules`, and either in `residual` or in the slots of one door.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from router.field import Field
from router.flatten import Node, trie_of
from router.index import TRYING, Door, Group, Slot, gram_slots, slots_of
from router.operators import Access
from router.pattern import Document, Pattern, read_sharply
from router.tables import (
    Filed,
    Posting,
    Table,
    collect,
    posting_of,
    posting_with,
    posting_without,
    size_of,
    table_of,
    table_with,
)
from router.verify import verified

_POPULAR: Final = 32  # how often an access must be asked for to be remembered as crowded after the build


class TeamIndex:
    """One team's rules, indexed."""

    __slots__ = ("doors", "equals", "others", "popular", "residual", "rules", "trie", "uses")

    doors: dict[str, Door]
    equals: dict[str, Table[Posting]]
    others: dict[str, Door]
    popular: Mapping[tuple[str, Access], int]
    residual: Posting
    rules: Table[tuple[Filed, ...]]
    trie: Node
    uses: dict[tuple[str, bool], int]

    @staticmethod
    def of(rules: Iterable[tuple[str, Pattern]]) -> TeamIndex:
        """The index of these rules."""
        filed_by_rule = [(rule, _filed(rule, pattern)) for rule, pattern in rules]
        branches = [branch for _, filed in filed_by_rule for branch in filed]
        popular = _popularity(branches)
        slots: dict[str, dict[Slot, list[Filed]]] = {}
        residual: list[Filed] = []
        crowd = _Planned(popular)
        for branch in branches:
            _choose(branch, crowd)
            if branch.path is None:
                residual.append(branch)
            else:
                at_path = slots.setdefault(branch.path, {})
                for slot in branch.slots:
                    at_path.setdefault(slot, []).append(branch)
        index = TeamIndex()
        index.popular = {key: count for key, count in popular.items() if count >= _POPULAR}
        index.residual = posting_of(residual)
        index.rules = table_of(filed_by_rule, size=len(filed_by_rule))
        index.uses = dict(_uses_of(branches))
        index.trie = _trie(index.uses)
        index.set_doors({path: _door(path, at_path) for path, at_path in slots.items()})
        return index

    def __len__(self) -> int:
        return len(self.rules)

    def set_doors(self, doors: dict[str, Door]) -> None:
        """Take these doors, and split them as matching asks for them."""
        self.doors = doors
        self.equals = {path: door.equals for path, door in doors.items() if door.equals is not None}
        self.others = {path: door for path, door in doors.items() if door.others}

    # ── matching ────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def match(self, document: Document, exact: Callable[[], Document] | None, now_ms: int) -> list[str]:
        """The ids of the rules that match, sorted."""
        document, found = read_sharply(document, self.trie, exact)
        candidates = self._candidates(found.leaves)
        if not candidates:
            return []
        hits = verified(candidates, found, document, now_ms)
        return sorted(hits) if len(hits) > 1 else list(hits)

    def _candidates(self, leaves: Mapping[str, Any]) -> list[Filed]:
        candidates: list[Filed] = []
        equals, others = self.equals, self.others
        for path, leaf in leaves.items():
            table = equals.get(path)
            if table is not None:
                for key in set(leaf) if leaf.__class__ is list else (leaf,):
                    posting = table.get(key)
                    if posting is not None:
                        collect(posting, leaves, candidates)
            if path in others:
                door = others[path]
                for key in set(leaf) if leaf.__class__ is list else (leaf,):
                    door.open(key, leaves, candidates)
        if self.residual:
            collect(self.residual, leaves, candidates)
        return candidates

    # ── change ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

    def with_rules(self, add: Mapping[str, Pattern], remove: Iterable[str]) -> TeamIndex:
        """The index without `remove`, then with `add`."""
        gone = [rule for rule in {*remove, *add} if self.rules.get(rule) is not None]
        index = TeamIndex()
        for name in TeamIndex.__slots__:
            setattr(index, name, getattr(self, name))
        changing = _Change(index)
        for rule in gone:
            for branch in self.rules.get(rule) or ():
                changing.take_out(branch)
            index.rules = table_with(index.rules, rule, None)
        for rule, pattern in add.items():
            filed = _filed(rule, pattern)
            for branch in filed:
                changing.put_in(branch)
            index.rules = table_with(index.rules, rule, filed)
        changing.finish()
        return index


class _Change:
    """One change of an index under way: copies what it touches, once."""

    def __init__(self, index: TeamIndex) -> None:
        self.index = index
        self.doors = dict(index.doors)
        self.uses = dict(index.uses)

    def take_out(self, branch: Filed) -> None:
        for use, count in _uses_of([branch]).items():
            self.uses[use] -= count
            if not self.uses[use]:
                del self.uses[use]
        if branch.path is None:
            self.index.residual = posting_without(self.index.residual, branch) or ()
            return
        door = self.doors[branch.path]
        for slot in branch.slots:
            door = door.with_slot(slot, posting_without(_at(door, slot), branch))
        if door.groups:
            self.doors[branch.path] = door
        else:
            del self.doors[branch.path]

    def put_in(self, branch: Filed) -> None:
        for use, count in _uses_of([branch]).items():
            self.uses[use] = self.uses.get(use, 0) + count
        _choose(branch, self)
        if branch.path is None:
            self.index.residual = posting_with(self.index.residual, branch)
            return
        door = self.doors.get(branch.path) or Door({})
        asked = frozenset({branch.path})
        for slot in branch.slots:
            door = door.with_slot(slot, posting_with(_at(door, slot), branch, asked))
        self.doors[branch.path] = door

    def at_access(self, path: str, access: Access) -> int:
        """How many branches share this access: those filed there, or known to have been many when the index was built."""
        there = sum(self.at_slot(path, slot) for slot in slots_of(access, lambda slot: self.at_slot(path, slot)))
        return max(there, self.index.popular.get((path, access), 0))

    def at_slot(self, path: str, slot: Slot) -> int:
        """How many branches are filed in this slot."""
        door = self.doors.get(path)
        return 0 if door is None else size_of(_at(door, slot))

    def finish(self) -> None:
        if self.uses.keys() != self.index.uses.keys():
            self.index.trie = _trie(self.uses)
        self.index.uses = self.uses
        self.index.set_doors(self.doors)


def _filed(rule: str, pattern: Pattern) -> tuple[Filed, ...]:
    return tuple(Filed(rule, branch.fields, pattern.guards) for branch in pattern.branches)


def _popularity(branches: Iterable[Filed]) -> Counter[tuple[str, Access]]:
    fields: Counter[Field] = Counter(field for branch in branches for field in branch.fields)
    popular: Counter[tuple[str, Access]] = Counter()
    for field, count in fields.items():
        for access in field.accesses:
            popular[field.path, access] += count
    return popular


class Crowd(Protocol):
    """How crowded the places are where a branch may be filed."""

    def at_access(self, path: str, access: Access) -> int:
        """How many branches share this access."""
        ...

    def at_slot(self, path: str, slot: Slot) -> int:
        """How many branches this slot may get."""
        ...


class _Planned:
    """The crowd of an index that is being built: every branch counts where it could be filed."""

    def __init__(self, popular: Mapping[tuple[str, Access], int]) -> None:
        self.popular = popular
        self.slots: Counter[tuple[str, Slot]] = Counter()
        for (path, access), count in popular.items():
            if access[0] == "contains":
                for slot in set(gram_slots(access[1])):
                    self.slots[path, slot] += count
            elif access[0] == "range":
                for slot in slots_of(access, lambda _slot: 0):
                    self.slots[path, slot] += count

    def at_access(self, path: str, access: Access) -> int:
        if access[0] == "range":  # ranges are rarely equal, but many may hold for one number
            return max(self.slots[path, slot] for slot in slots_of(access, lambda _slot: 0))
        return self.popular.get((path, access), 0)

    def at_slot(self, path: str, slot: Slot) -> int:
        return self.slots[path, slot]


def _choose(branch: Filed, crowd: Crowd) -> None:
    """File the branch under the field that will make it a candidate least often: the rarest among the rules."""
    best: tuple[float, Field, tuple[Access, ...]] | None = None
    for field in branch.fields:
        accesses = field.accesses
        if accesses:
            cost = 0.0
            for access in accesses:
                cost += TRYING[access[0]] + crowd.at_access(field.path, access)
            if best is None or cost < best[0]:
                best = (cost, field, accesses)
    chosen = None
    if best is not None:
        _, chosen, accesses = best
        path = branch.path = chosen.path
        found = [slot for access in accesses for slot in slots_of(access, lambda slot: crowd.at_slot(path, slot))]
        branch.slots = tuple(found) if len(found) == 1 else tuple(dict.fromkeys(found))
    branch.rest = _rest(branch.fields, chosen)


def _rest(fields: tuple[Field, ...], chosen: Field | None) -> tuple[Field, ...]:
    """The fields that a candidate still has to satisfy, those that compare keys first."""
    proven = chosen if chosen is not None and all(test.exact for test in chosen.tests) else None
    rest = [field for field in fields if field is not proven]
    if len(rest) > 1:
        rest.sort(key=lambda field: (field.equals is None, len(field.tests)))
    return tuple(rest)


def _at(door: Door, slot: Slot) -> Posting | None:
    group, key = slot
    table = door.groups.get(group)
    return None if table is None else table.get(key)


def _door(path: str, slots: Mapping[Slot, Sequence[Filed]]) -> Door:
    groups: dict[Group, dict[Any, Posting]] = {}
    asked = frozenset({path})
    for (group, key), branches in slots.items():
        groups.setdefault(group, {})[key] = posting_of(branches, asked)
    return Door({group: table_of(table.items(), size=len(table)) for group, table in groups.items()})


def _uses_of(branches: Iterable[Filed]) -> Counter[tuple[str, bool]]:
    return Counter((field.path, field.numeric) for branch in branches for field in branch.fields)


def _trie(uses: Mapping[tuple[str, bool], int]) -> Node:
    return trie_of({path for path, _ in uses}, frozenset(path for path, numeric in uses if numeric))
