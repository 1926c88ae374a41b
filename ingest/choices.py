"""Conditions and alternatives of provider files, compiled."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase

from ingest.fileform import Choice, Condition, Requirement
from ingest.schemes.compare import same
from ingest.steps import Step, Unproven
from ingest.template import Scope, Template
from schemas.errors import Invalid

MAX_TYPES = 2000  # types come from outside: what is remembered of them is bounded
Holds = Callable[[Scope], bool]


def always(_scope: Scope) -> bool:
    """No condition."""
    return True


def all_of(conditions: Iterable[Condition]) -> Holds:
    """Whether all hold; an empty list always does."""
    tests = [_test(condition) for condition in conditions]
    if not tests:
        return always
    return tests[0] if len(tests) == 1 else lambda scope: all(test(scope) for test in tests)


def any_of(conditions: Iterable[Condition]) -> Holds | None:
    """Whether one holds; None for an empty list."""
    tests = [_test(condition) for condition in conditions]
    return (lambda scope: any(test(scope) for test in tests)) if tests else None


def _test(condition: Condition) -> Holds:
    template = Template(condition.value)
    kinds = {name: value for name, value in condition.model_dump(exclude={"value"}).items() if value is not None}
    if len(kinds) != 1:
        raise ValueError(
            f"a condition on {condition.value} takes one of equals, one_of, prefix, suffix, contains, matches, present"
        )
    ((kind, wanted),) = kinds.items()
    if kind == "present":
        return lambda scope: template.is_there(scope) is wanted
    holds = _textual(kind, wanted)

    def test(scope: Scope) -> bool:
        text = template.text(scope)
        return text is not None and holds(text)

    return test


def _textual(kind: str, wanted: str) -> Callable[[str], bool]:
    if kind == "matches":
        pattern = re.compile(wanted)
        return lambda text: pattern.fullmatch(text) is not None
    return {
        "equals": lambda text: text == wanted,
        "one_of": lambda text: text in wanted,
        "prefix": lambda text: text.startswith(wanted),
        "suffix": lambda text: text.endswith(wanted),
        "contains": lambda text: wanted in text,
    }[kind]


class Rule:
    """A requirement: two texts that must be equal."""

    __slots__ = ("_applies", "_equals", "_folds", "_list", "_value")

    def __init__(self, rule: Requirement) -> None:
        self._value = Template(rule.value)
        self._equals = Template(rule.equals)
        self._applies = all_of(rule.when)
        self._folds = rule.case == "fold"
        named = re.fullmatch(r"\{option:([a-z0-9_]+)\}", rule.equals)
        self._list = named[1] if named else ""

    def demand(self, scope: Scope) -> None:
        """Raise `Unproven` unless it holds; an option that is not set demands nothing only where `when` says so."""
        if not self._applies(scope):
            return
        given = self._value.text(scope)
        wanted = self._wanted(scope)
        if given is None or not wanted:
            raise Unproven(Step.REQUIREMENT, f"{self._value.source} is missing, or {self._equals.source} is")
        fitting = [one for one in wanted if same(self._folded(given), self._folded(one))]
        if not fitting:
            raise Unproven(Step.REQUIREMENT, f"{self._value.source} is not {self._equals.source}")

    def _wanted(self, scope: Scope) -> list[str]:
        option = scope.options.get(self._list) if self._list else None
        if isinstance(option, list):
            return [str(one) for one in option]
        text = self._equals.text(scope)
        return [] if text is None else [text]

    def _folded(self, text: str) -> bytes:
        return (text.lower() if self._folds else text).encode("utf-8", "surrogatepass")


class Alternative:
    """One choice, compiled."""

    __slots__ = ("_applies", "_types", "key", "template", "unit")

    def __init__(self, choice: Choice) -> None:
        self.template = Template(choice.value)
        self.unit = choice.unit
        # A key of the item without which this says nothing: most alternatives are passed over by one look-up.  The last one,
        # since the first is often the repository or the project, that every event has.
        self.key = self.template.keys[-1] if self.template.keys else None
        self._types = choice.types
        self._applies = None if not choice.when else all_of(choice.when)

    def fits(self, event_type: str) -> bool:
        """Whether it is meant for that type."""
        return not self._types or any(fnmatchcase(event_type, glob) for glob in self._types)

    def text(self, scope: Scope) -> str | None:
        """Its text, or None where it does not apply, has a gap, or says nothing."""
        if self._applies is not None and not self._applies(scope):
            return None
        return self.template.text(scope) or None


class Alternatives:
    """Choices in order, remembered by type."""

    __slots__ = ("_all", "_by_type", "_typed")

    def __init__(self, choices: Iterable[Choice]) -> None:
        self._all = tuple(Alternative(choice) for choice in choices)
        self._typed = any(not one.fits("\0") for one in self._all)
        self._by_type: dict[str, tuple[Alternative, ...]] = {}

    def text(self, scope: Scope) -> str:
        """The first text, or the empty one."""
        data = scope.data
        is_object = data.__class__ is dict
        for one in self.fitting(scope.type):
            if is_object and one.key is not None and one.key not in data:
                continue
            found = one.text(scope)
            if found is not None:
                return found
        return ""

    def headers(self) -> list[str]:
        """The headers that they read."""
        return [name for one in self._all for name in one.template.headers]

    def fitting(self, event_type: str) -> tuple[Alternative, ...]:
        """Those for that type."""
        if not self._typed:
            return self._all
        found = self._by_type.get(event_type)
        if found is None:
            found = tuple(one for one in self._all if one.fits(event_type))
            if len(self._by_type) < MAX_TYPES:
                self._by_type[event_type] = found
        return found


class KindTable:
    """Canonical kinds by type."""

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, kinds: dict[str, str], known: Iterable[str]) -> None:
        unknown = sorted(set(kinds.values()) - set(known))
        if unknown:
            raise Invalid(f"no kind of the vocabulary: {', '.join(unknown)}")
        self._exact = {name: kind for name, kind in kinds.items() if not name.endswith("*")}
        prefixes = [(name[:-1], kind) for name, kind in kinds.items() if name.endswith("*")]
        self._prefixes = tuple(sorted(prefixes, key=lambda entry: -len(entry[0])))

    def of(self, event_type: str) -> str:
        """The kind of that type, or none; the longest prefix wins."""
        found = self._exact.get(event_type)
        if found is None:
            found = next((kind for prefix, kind in self._prefixes if event_type.startswith(prefix)), "")
        return found
