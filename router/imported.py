"""What an import brought: subscriptions as the file writes them, and a report on each rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Report:
    """What became of one foreign rule."""

    rule: str
    subscription: str | None = None
    not_carried_over: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lost(self, what: str) -> None:
        """Something of the rule has no counterpart here."""
        self.not_carried_over.append(what)

    def note(self, what: str) -> None:
        """Something to look at."""
        self.notes.append(what)

    def as_json(self) -> dict[str, Any]:
        """This report as the command line shows it."""
        told = {
            "rule": self.rule,
            "subscription": self.subscription,
            "not_carried_over": self.not_carried_over,
            "notes": self.notes,
        }
        return {name: value for name, value in told.items() if value}


class Imported:
    """Subscriptions for one agent, by name, with their reports."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.subscriptions: dict[str, dict[str, Any]] = {}
        self.reports: list[Report] = []

    def report(self, rule: str) -> Report:
        """A new report on the rule of this name."""
        found = Report(rule)
        self.reports.append(found)
        return found

    def left_out(self, rule: str, reason: str) -> None:
        """A rule that gives no subscription."""
        self.report(rule).lost(reason)

    def drop(self, report: Report, reason: str) -> None:
        """The rule of this report gives no subscription after all."""
        report.lost(reason)

    def add(self, report: Report, fields: Mapping[str, Any], *, paused: bool) -> None:
        """The subscription that the rule of this report became."""
        name = self._free_name(report.rule)
        report.subscription = name
        self.subscriptions[name] = {"agent": self.agent, **fields, **({"state": "paused"} if paused else {})}

    def _free_name(self, rule: str) -> str:
        name = re.sub(r"[^a-z0-9_-]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", rule).lower()).strip("-_")[:56] or "rule"
        taken, number = name, 1
        while taken in self.subscriptions:
            number += 1
            taken = f"{name}-{number}"
        return taken

    def as_file(self) -> dict[str, Any]:
        """The `nightbell.yaml` document of these subscriptions."""
        return {"version": 1, "subscriptions": self.subscriptions}
