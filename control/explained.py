"""Why a pattern did or did not match, drawn by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from control.output import plain


def explained(verdict: Mapping[str, Any]) -> RenderableType:
    """A verdict for people: yes or no, then each field with what was wanted and what was there."""
    matched = bool(verdict.get("matched"))
    title = Text("matched" if matched else "did not match", style="green" if matched else "red")
    if verdict.get("subscription"):
        title = Text(f"{plain(verdict['subscription'])}: ", style="bold").append_text(title)
    lines = [title, *(line for field in verdict.get("fields") or [] for line in _field(field))]
    lines += [Text(f"  {plain(note)}") for note in verdict.get("notes") or []]
    if verdict.get("reason"):
        lines.append(Text(f"  {plain(verdict['reason'])}"))
    lines += [Text(f"  {plain(later.get('step'))}: {plain(later.get('reason'))}") for later in verdict.get("later") or []]
    return Group(*lines)


def why_not(verdict: Mapping[str, Any]) -> str:
    """The first thing that kept a pattern from matching, on one line."""
    if verdict.get("reason"):
        return plain(verdict["reason"])
    wrong = [field for field in verdict.get("fields") or [] if not field.get("ok")]
    if not wrong:
        return plain(" ".join(verdict.get("notes") or []))
    return f"{plain(wrong[0].get('path'))} wanted {plain(wrong[0].get('wanted'))}, found {_found(wrong[0])}"


def _found(field: Mapping[str, Any]) -> str:
    return "nothing there" if field.get("absent") else plain(field.get("found"))


def _field(field: Mapping[str, Any]) -> Iterator[Text]:
    holds = bool(field.get("ok"))
    line = Text("  ✓ " if holds else "  ✗ ", style="green" if holds else "red")
    line.append(plain(field.get("path")), style="bold")
    line.append(f"  wanted {plain(field.get('wanted'))}", style="default")
    yield line.append(f"  found {_found(field)}", style="default")
    if field.get("nearest"):
        yield Text(f"      {plain(field['nearest'])}", style="dim")
