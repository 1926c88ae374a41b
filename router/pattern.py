"""An event pattern, compiled: branches of fields, each field a set of tests on one path.

{"type": ["a", "b"], "$or": [{"x": [1]}, {"y": [2]}]}

Pattern ── Branch ── Field type: "a" | "b"        alternatives of a field are ORed,
        │         └─ Field x:    1                fields of a branch are ANDed,
        └─ Branch ── Field type: "a" | "b"        branches of a pattern are ORed
                  └─ Field y:    2
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from router.consistency import is_consistent
from router.field import Field, field_of, known_field
from router.flatten import Found, Node, flatten, trie_of
from router.operators import EXTENSIONS, LISTS, Test, compile_element, shown
from router.values import parse_exact
from schemas.errors import Invalid
from schemas.times import ms_of, seconds_of

MAX_BRANCHES: Final = 512
MAX_WILDCARDS: Final = 64
MAX_DEPTH: Final = 64
MAX_ELEMENTS: Final = 10_000

# The names that make an `$or` an ordinary field: event-ruler's reserved words.
RESERVED: Final = frozenset(
    [
        "exactly",
        "equals-ignore-case",
        "prefix",
        "suffix",
        "anything-but",
        "exists",
        "wildcard",
        "numeric",
        "cidr",
        "=",
        "<",
        "<=",
        ">",
        ">=",
        "regex",
        "not-wildcard",
        "not-equals-ignore-case",
        "date-after",
        "date-on-or-after",
        "date-before",
        "date-on-or-before",
        "in-date-range",
        "ip-address-in-range",
        "ip-address-not-in-range",
    ]
)
ALL_EXTENSIONS: Final = frozenset(
    {*EXTENSIONS, "all-of", "$not", "age", "wildcard-ignore-case", "anything-but-nested", "cidr-host"}
)

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Guard:
    """What a candidate's whole document must satisfy besides, with its text.  `holds` takes the document and now (ms)."""

    text: str
    holds: Callable[[Document, int], bool]


class Branch:
    """Fields that must all hold, in the order of their paths."""

    __slots__ = ("fields",)

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self.fields = fields

    def holds(self, found: Found) -> bool:
        """Whether this event satisfies every field, array consistency included."""
        leaves, tangled = found.leaves, found.tangled
        if not tangled:
            return all(field.holds(leaves) for field in self.fields)
        return is_consistent(self.fields, found)


@dataclass(frozen=True)
class Pattern:
    """A compiled rule: `branches` decide by index, then `guards` (if any) by the whole document.

    `source` is what was written.  A rule matches where one branch holds and every guard does.
    """

    source: Any
    branches: tuple[Branch, ...]
    guards: tuple[Guard, ...] = ()
    dialect: str = "pattern"
    wildcards: int = 0

    @cached_property
    def paths(self) -> frozenset[str]:
        """Every path that this pattern reads."""
        return frozenset(field.path for branch in self.branches for field in branch.fields)

    @cached_property
    def exact_paths(self) -> frozenset[str]:
        """The paths where a number's own text can decide."""
        fields = (field for branch in self.branches for field in branch.fields)
        return frozenset(field.path for field in fields if field.numeric)

    @cached_property
    def trie(self) -> Node:
        """The used paths, as the walk over a document needs them."""
        return trie_of(self.paths, self.exact_paths)

    @property
    def cost(self) -> int:
        """An estimate of the work per candidate event, in field checks: branches by fields, each wildcard as ten."""
        return sum(len(branch.fields) for branch in self.branches) + 10 * self.wildcards

    def found_in(self, document: Document, exact: Callable[[], Document] | None = None) -> Found:
        """The leaves of `document` at this pattern's paths; `exact` gives it again with no digit lost, if that may matter."""
        return read_sharply(document, self.trie, exact)[1]

    def matches(self, document: Document, *, exact: Callable[[], Document] | None = None, now_ms: int = 0) -> bool:
        """Whether this rule matches the document."""
        found = self.found_in(document, exact)
        return any(branch.holds(found) for branch in self.branches) and self.allows(document, now_ms)

    def allows(self, document: Document, now_ms: int) -> bool:
        """Whether every guard holds."""
        return all(guard.holds(document, now_ms) for guard in self.guards)


def read_sharply(document: Document, trie: Node, exact: Callable[[], Document] | None) -> tuple[Document, Found]:
    """The document and its leaves; read again by `exact` where a number's own text decides and the document has lost it."""
    found = flatten(document, trie)
    if not found.blurred or exact is None:
        return document, found
    try:
        document = exact()
    except ValueError:  # what the first reader took, the exact one may not (nesting): then doubles decide
        return document, found
    return document, flatten(document, trie)


def parse_pattern_text(text: str | bytes) -> dict[str, Any]:
    """The pattern in a JSON text, with exact numbers: what no double holds comes as `int` or `Decimal`.  Raises `Invalid`."""
    try:
        found = parse_exact(text)
    except (ValueError, RecursionError) as exc:
        raise Invalid(f"the pattern is no JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise Invalid(f"a pattern is a JSON object, not {shown(found)}")
    return found


def compile_pattern(pattern: Mapping[str, Any], *, extensions: frozenset[str] | bool = False) -> Pattern:
    """The rule that an EventBridge pattern stands for.

    `extensions` names what beyond EventBridge it may use (True: all).  Raises `Invalid`, whose detail names the place, says
    what would be right, and quotes the pattern.
    """
    try:
        names = extensions if not isinstance(extensions, bool) else ALL_EXTENSIONS if extensions else ()
        return _compiled(pattern, _allowed(names))
    except Invalid as exc:
        detail = f"{exc.detail}; in the pattern {quoted(pattern)}"
        # A lone half of a surrogate pair is valid JSON, and cannot be written anywhere as UTF-8.
        raise Invalid(detail.encode("utf-8", "replace").decode()) from None


def _allowed(extensions: Iterable[str]) -> frozenset[str]:
    if unknown := sorted(set(extensions) - ALL_EXTENSIONS):
        raise Invalid(f"unknown extension {unknown[0]!r}; known are {', '.join(sorted(ALL_EXTENSIONS))}")
    return frozenset(extensions)


def quoted(pattern: Any) -> str:
    """The pattern as JSON on one line, cut where it is long."""
    try:
        text = json.dumps(pattern, ensure_ascii=False, default=str, skipkeys=True)
    except RecursionError:
        return "(nested too deep to be shown)"
    return text if len(text) <= 500 else f"{text[:500]}…"  # noqa: PLR2004  # enough to recognise it by


def _compiled(pattern: Mapping[str, Any], extensions: frozenset[str]) -> Pattern:
    if not isinstance(pattern, Mapping):
        raise Invalid(f"a pattern is an object, not {shown(pattern)}")
    reader = _Reader(extensions)
    drafts = reader.read_object([{}], (), pattern, depth=0)
    branches = tuple(Branch(tuple(field for path in sorted(draft) for field in draft[path])) for draft in drafts)
    return Pattern(pattern, branches, guards=tuple(reader.guards), wildcards=reader.wildcards)


Draft = dict[str, tuple[Field, ...]]


class _Reader:
    """Walks a pattern once, growing the drafts of its branches."""

    def __init__(self, extensions: frozenset[str]) -> None:
        self.extensions = extensions
        self.guards: list[Guard] = []
        self.wildcards = 0
        self.elements = 0

    def read_object(self, drafts: list[Draft], path: tuple[str, ...], written: Mapping[str, Any], *, depth: int) -> list[Draft]:
        place = ".".join(path) or "the pattern"
        if not written:
            raise Invalid(f"{place}: an empty object matches nothing; name a field, or leave it out")
        if depth > MAX_DEPTH:
            raise Invalid(f"{place[:200]}…: nested deeper than {MAX_DEPTH}")
        for name, value in written.items():
            if not isinstance(name, str):
                raise Invalid(f"{place}: a field's name is a string, not {shown(name)}")
            if name == "$or" and is_or(value):
                drafts = self.read_or(drafts, path, value, depth=depth)
            elif name == "$not" and "$not" in self.extensions:
                self.guards.append(self.read_not(path, value))
            elif isinstance(value, dict):
                drafts = self.read_object(drafts, (*path, name), value, depth=depth + 1)
            elif isinstance(value, LISTS):
                drafts = self.read_leaf(drafts, ".".join((*path, name)), value)
            else:
                raise Invalid(
                    f"{'.'.join((*path, name))}: wants an array of alternatives or an object, not {shown(value)}"
                    f"; write [{json.dumps(value, default=str)}]"
                )
        return drafts

    def read_or(self, drafts: list[Draft], path: tuple[str, ...], options: Sequence[Any], *, depth: int) -> list[Draft]:
        grown: list[Draft] = []
        for option in options:
            grown += self.read_object([dict(draft) for draft in drafts], path, option, depth=depth + 1)
            self.check_branches(len(grown), path)
        return grown

    def check_branches(self, count: int, path: tuple[str, ...]) -> None:
        if count > MAX_BRANCHES:
            place = ".".join((*path, "$or"))
            raise Invalid(
                f"{place}: the alternatives multiply to {count} branches or more, the most is {MAX_BRANCHES} (each is matched"
                f" like a pattern of its own: cost {count}); merge `$or`s of one field into its array, or split the pattern"
            )

    def read_not(self, path: tuple[str, ...], written: Any) -> Guard:
        place = ".".join((*path, "$not"))
        if not isinstance(written, dict):
            raise Invalid(f"{place}: wants an object, not {shown(written)}")
        for name in reversed(path):
            written = {name: written}
        inner = _compiled(written, self.extensions)
        return Guard(f"{place}: {quoted(written)}", lambda document, now_ms: not inner.matches(document, now_ms=now_ms))

    def read_leaf(self, drafts: list[Draft], path: str, written: Sequence[Any]) -> list[Draft]:
        if not written:
            raise Invalid(f"{path}: an empty array matches nothing; list the values, or leave the field out")
        self.elements += len(written)
        if self.elements > MAX_ELEMENTS:
            raise Invalid(f"{path}: more than {MAX_ELEMENTS} alternatives in one pattern")
        known = known_field(path, written[0]) if len(written) == 1 else None
        options = self.read_options(path, written) if known is None else [(known,)]
        if len(options) == 1:
            for draft in drafts:
                draft[path] = options[0]
            return drafts
        grown = [{**draft, path: option} for draft in drafts for option in options]
        self.check_branches(len(grown), (path,))
        return grown

    def read_options(self, path: str, written: Sequence[Any]) -> list[tuple[Field, ...]]:
        """The alternatives of a leaf array: one field for all plain ones, and the fields of each `all-of`."""
        options: list[tuple[Field, ...]] = []
        tests: list[Test] = []
        for at, element in enumerate(written):
            place = f"{path}[{at}]"
            extension = next(iter(element)) if isinstance(element, dict) and len(element) == 1 else None
            if extension == "all-of" and "all-of" in self.extensions:
                options.append(self.read_all_of(path, f"{place}.all-of", element["all-of"]))
            elif extension == "age" and "age" in self.extensions:
                self.guards.append(age_guard(path, place, element["age"], alone=len(written) == 1))
                tests.append(compile_element({"exists": True}, place, self.extensions))
            else:
                tests.append(compile_element(element, place, self.extensions))
        if tests:
            self.count_wildcards(tests, path)
            options.append((field_of(path, tests),))
        return options

    def read_all_of(self, path: str, place: str, written: Any) -> tuple[Field, ...]:
        if not isinstance(written, LISTS) or not written:
            raise Invalid(f"{place}: wants an array of what must all be there, not {shown(written)}")
        tests = [compile_element(element, f"{place}[{at}]", self.extensions) for at, element in enumerate(written)]
        self.count_wildcards(tests, path)
        return tuple(field_of(path, [test]) for test in tests)

    def count_wildcards(self, tests: Iterable[Test], path: str) -> None:
        self.wildcards += sum("wildcard" in str(test.key) for test in tests if test.operator in {"wildcard", "anything-but"})
        if self.wildcards > MAX_WILDCARDS:
            raise Invalid(
                f"{path}: {self.wildcards} wildcards in one pattern, the most is {MAX_WILDCARDS} (each costs about ten"
                f" exact comparisons: {10 * self.wildcards}); use prefix or suffix, which are indexed"
            )


def is_or(value: Any) -> bool:
    """Whether the value of a `$or` makes it the operator: two objects or more, none with an operator's name as a key."""
    if not isinstance(value, LISTS) or len(value) < 2:  # noqa: PLR2004  # one alternative is no alternative
        return False
    return all(isinstance(option, dict) and RESERVED.isdisjoint(option) for option in value)


_AGES: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "lt": lambda age_s, span_s: age_s < span_s,
    "le": lambda age_s, span_s: age_s <= span_s,
    "gt": lambda age_s, span_s: age_s > span_s,
    "ge": lambda age_s, span_s: age_s >= span_s,
}


def age_guard(path: str, place: str, written: Any, *, alone: bool) -> Guard:
    """The extension `{"age": {"lt": "10m"}}`: a leaf at the path is a time so long ago (later than now: a negative age)."""
    if not alone:
        raise Invalid(f"{place}: age stands alone in its array; put other alternatives into a `$or`")
    if not isinstance(written, dict) or not written or not set(written) <= set(_AGES):
        raise Invalid(f'{place}.age: wants lt, le, gt, ge with a span, such as {{"lt": "10m"}}, not {quoted(written)}')
    try:
        bounds = [(_AGES[name], seconds_of(span)) for name, span in written.items()]
    except ValueError as exc:
        raise Invalid(f"{place}.age: {exc}") from exc
    trie = trie_of([path])

    def holds(document: Document, now_ms: int) -> bool:
        found: Any = flatten(document, trie).leaves.get(path)
        for leaf in found if isinstance(found, list) else [found]:
            try:
                age_s = (now_ms - ms_of(leaf)) / 1000
            except (ValueError, TypeError):  # no time
                continue
            if all(is_so(age_s, span_s) for is_so, span_s in bounds):
                return True
        return False

    return Guard(f"{path}: {quoted({'age': written})}", holds)
