"""Which rules match an event: the index of each team, as an immutable snapshot.

    Matcher ── team ──▶ TeamIndex (router/team_index.py), or NativeIndex (router/native.py) where the extension is installed

    match:  flatten the used paths ─▶ open the doors of each leaf ─▶ candidates ─▶ verify each field once per event
            ─▶ array consistency, where arrays of objects were met ─▶ guards ─▶ rule ids

A change makes a new snapshot that shares what it did not touch; whoever holds the old one goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from router import native
from router.pattern import Document, Pattern
from router.team_index import TeamIndex

Rule = tuple[str, str, Pattern]


class Index(Protocol):
    """The rules of one team, indexed: an immutable snapshot."""

    def __len__(self) -> int:
        """How many rules there are."""
        ...

    def match(self, document: Document, exact: Callable[[], Document] | None, now_ms: int) -> list[str]:
        """The ids of the rules that match, sorted."""
        ...

    def with_rules(self, add: Mapping[str, Pattern], remove: Iterable[str]) -> Index:
        """The index without `remove`, then with `add`."""
        ...


Engine = Callable[[Iterable[tuple[str, Pattern]]], Index]
ENGINES: Final[Mapping[str, Engine]] = {
    "pure": TeamIndex.of,
    **({"native": native.NativeIndex.of} if native.IS_THERE else {}),
}
BEST: Final = "native" if native.IS_THERE else "pure"


class Matcher:
    """An immutable set of rules `(rule id, team, pattern)`; rule ids are unique in their team.

    `engine` names who indexes them, of `ENGINES`: all answer the same.
    """

    __slots__ = ("_of", "_teams", "engine")

    def __init__(self, rules: Iterable[Rule] = (), *, engine: str = BEST) -> None:
        self.engine = engine
        self._of = ENGINES[engine]
        by_team: dict[str, dict[str, Pattern]] = {}
        for rule, team, pattern in rules:
            by_team.setdefault(team, {})[rule] = pattern
        self._teams: dict[str, Index] = {team: self._of(patterns.items()) for team, patterns in by_team.items()}

    def __len__(self) -> int:
        return sum(map(len, self._teams.values()))

    def match(
        self, team: str, document: Document, *, exact: Callable[[], Document] | None = None, now_ms: int = 0
    ) -> list[str]:
        """The ids of the team's rules that match, sorted.

        `document` is an event as its parser gives it, and is only read.  `exact` gives the same document with no digit of a
        number lost (`values.parse_exact`); it is called at most once, and only where a pattern asks about such a number.
        """
        index = self._teams.get(team)
        return [] if index is None else index.match(document, exact, now_ms)

    def with_rules(self, *, add: Iterable[Rule] = (), remove: Iterable[tuple[str, str]] = ()) -> Matcher:
        """A matcher without the `(rule id, team)` of `remove`, then with `add`, which replaces a rule of the same id."""
        gone: dict[str, set[str]] = {}
        new: dict[str, dict[str, Pattern]] = {}
        for rule, team in remove:
            gone.setdefault(team, set()).add(rule)
        for rule, team, pattern in add:
            new.setdefault(team, {})[rule] = pattern
        changed = Matcher(engine=self.engine)
        changed._teams = dict(self._teams)
        for team in {*gone, *new}:
            before = self._teams.get(team)
            index = (before if before is not None else self._of(())).with_rules(new.get(team, {}), gone.get(team, set()))
            if len(index):
                changed._teams[team] = index
            else:
                changed._teams.pop(team, None)
        return changed
