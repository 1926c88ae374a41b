"""Why a rule does or does not match an event: field by field, what was wanted, there, and nearest.

Computed when asked, off the hot path.  The verdict is that of matching; the reasons come from the same compiled fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from router.field import Field
from router.flatten import Found
from router.nearest import nearest_of, nearest_path, shown_value
from router.pattern import Branch, Document, Pattern
from router.values import MISSING

MAX_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class FieldReport:
    """One field: `wanted` as the pattern wrote it, `found` as it stands in the event (long ones cut), and what came nearest."""

    path: str
    holds: bool
    wanted: tuple[Any, ...]
    found: tuple[Any, ...]
    nearest: str = ""

    def as_json(self) -> dict[str, Any]:
        """This report as the API and the command line show it."""
        told: dict[str, Any] = {"path": self.path, "ok": self.holds, "wanted": list(self.wanted)}
        if self.found:
            told["found"] = self.found[0] if len(self.found) == 1 else list(self.found)
        else:
            told["absent"] = True
        if self.nearest:
            told["nearest"] = self.nearest
        return told


@dataclass(frozen=True, slots=True)
class Explanation:
    """The verdict on one rule and one event.

    `fields` are those of the branch that came nearest (of `branches`); `notes` say what no single field shows; `later` holds
    what the steps after matching decided, as (step, reason), where the caller knows.
    """

    matched: bool
    dialect: str
    fields: tuple[FieldReport, ...]
    branches: int
    notes: tuple[str, ...] = ()
    later: tuple[tuple[str, str], ...] = ()

    @property
    def held(self) -> int:
        """How many fields of the nearest branch hold."""
        return sum(field.holds for field in self.fields)

    @property
    def nearness(self) -> float:
        """The share of fields that hold: how near a miss was."""
        return self.held / (len(self.fields) or 1)

    def after(self, *later: tuple[str, str]) -> Explanation:
        """The same with the verdicts of later steps: ("duplicate", "seen as evt_…"), ("paused", …), ("superseded", …)."""
        return replace(self, later=(*self.later, *later))

    def as_json(self) -> dict[str, Any]:
        """This verdict as the API and the command line show it."""
        told: dict[str, Any] = {
            "matched": self.matched,
            "dialect": self.dialect,
            "fields": [field.as_json() for field in self.fields],
        }
        if not self.matched:
            told["nearness"] = round(self.nearness, 3)
        if self.branches > 1:
            told["branches"] = self.branches
        if self.notes:
            told["notes"] = list(self.notes)
        if self.later:
            told["later"] = [{"step": step, "reason": reason} for step, reason in self.later]
        return told

    def text(self) -> str:
        """This verdict in plain lines."""
        lines = ["matched" if self.matched else "did not match"]
        for field in self.fields:
            there = ", ".join(map(shown_value, field.found)) or "nothing there"
            lines.append(f"  {'✓' if field.holds else '✗'} {field.path}: wanted {_alternatives(field.wanted)}; found {there}")
            if field.nearest:
                lines.append(f"      {field.nearest}")
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  {step}: {reason}" for step, reason in self.later]
        return "\n".join(lines)


def _alternatives(wanted: Iterable[Any]) -> str:
    return " or ".join(map(shown_value, wanted))


def explain(
    pattern: Pattern, document: Document, *, exact: Callable[[], Document] | None = None, now_ms: int = 0
) -> Explanation:
    """Why `pattern` does or does not match `document`; the verdict is `pattern.matches` of the same arguments."""
    found = pattern.found_in(document, exact)
    held = [branch for branch in pattern.branches if branch.holds(found)]
    branch = held[0] if held else max(pattern.branches, key=lambda branch: _nearness(branch, found))
    notes = [] if held else _entangled(branch, found)
    if len(pattern.branches) > 1:
        notes.append(f"shown is the nearest of {len(pattern.branches)} branches")
    refused = [guard.text for guard in pattern.guards if not guard.holds(document, now_ms)]
    notes += [f"not satisfied: {text}" for text in refused]
    fields = tuple(_report(field, found, document) for field in branch.fields)
    return Explanation(bool(held) and not refused, pattern.dialect, fields, len(pattern.branches), tuple(notes))


def _nearness(branch: Branch, found: Found) -> tuple[float, float]:
    held = sum(field.holds(found.leaves) for field in branch.fields)
    there = sum(field.path in found.leaves for field in branch.fields)
    fields = len(branch.fields) or 1
    return held / fields, there / fields


def _entangled(branch: Branch, found: Found) -> list[str]:
    """The note for a branch whose fields hold each alone, but in no one element of their array."""
    if not branch.fields or not all(field.holds(found.leaves) or _held_back(field, found) for field in branch.fields):
        return []
    paths = ", ".join(field.path for field in branch.fields if field.path in found.tangled)
    return [f"each field holds by itself, but no one element of the array satisfies {paths} together (array consistency)"]


def _held_back(field: Field, found: Found) -> bool:
    return field.absent and field.path in found.tangled


def _report(field: Field, found: Found, document: Document) -> FieldReport:
    leaf = found.leaves.get(field.path, MISSING)
    leaves = [] if leaf is MISSING else leaf if isinstance(leaf, list) else [leaf]
    holds = field.holds(found.leaves)
    wanted = [test.wanted if test.operator == "equals" else {test.operator: test.wanted} for test in field.tests]
    if field.absent:
        wanted.append({"exists": False})
    nearest = "" if holds else _nearest(field, leaves, document)
    return FieldReport(field.path, holds, tuple(wanted), tuple(map(_plain, leaves[:MAX_SHOWN])), nearest)


def _nearest(field: Field, leaves: list[Any], document: Document) -> str:
    if not leaves:
        return nearest_path(document, field.path)
    if not field.tests:
        return "wanted no such field, and it is there"
    pairs = [nearest_of(test, leaf) for test in field.tests for leaf in leaves[:MAX_SHOWN]]
    _, reason = max(pairs, key=lambda pair: pair[0])
    return reason


def _plain(key: Any) -> Any:
    """A leaf's key as JSON shows it again, cut where it is long."""
    if isinstance(key, tuple):
        return {"true": True, "false": False}.get(key[0], str(key[-1]))
    return key if not isinstance(key, str) or len(key) <= 200 else f"{key[:200]}…"  # noqa: PLR2004  # enough to see why


def nearest_misses(
    patterns: Iterable[tuple[str, Pattern]],
    document: Document,
    *,
    limit: int = 5,
    exact: Callable[[], Document] | None = None,
    now_ms: int = 0,
) -> list[tuple[str, Explanation]]:
    """Of `(rule id, pattern)`, those that do not match but came nearest, nearest first.

    Ranked by the share of fields that hold, then by how few are missing; a rule of which nothing held is no near miss.
    """
    told = [(rule, explain(pattern, document, exact=exact, now_ms=now_ms)) for rule, pattern in patterns]
    near = [(rule, verdict) for rule, verdict in told if not verdict.matched and (verdict.held or not verdict.fields)]

    def rank(entry: tuple[str, Explanation]) -> tuple[float, int, str]:
        rule, verdict = entry
        return -verdict.nearness, len(verdict.fields) - verdict.held, rule

    return sorted(near, key=rank)[:limit]
