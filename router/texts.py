"""String comparisons that the operators are made of: wildcards, and case as event-ruler ignores it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

MAX_STARS: Final = 5  # what EventBridge takes in one wildcard before it calls the rule too complex
MAX_STARS_EXTENDED: Final = 32

Holds = Callable[[str], bool]


def wildcard_parts(text: str) -> list[str]:
    """The literal runs between the `*` of a wildcard, in order; one run where there is no star.  Raises ValueError."""
    parts: list[str] = []
    run: list[str] = []
    after_star = False
    letters = iter(enumerate(text))
    for at, letter in letters:
        if letter == "*":
            if after_star:
                raise ValueError(f"two `*` side by side at character {at + 1}; one already stands for any run")
            parts.append("".join(run))
            run = []
        elif letter == "\\":
            _, escaped = next(letters, (at, ""))
            if escaped not in {"*", "\\"}:
                raise ValueError(f"a lone \\ at character {at + 1}; only \\* and \\\\ are escapes")
            run.append(escaped)
        else:
            run.append(letter)
        after_star = letter == "*"
    return [*parts, "".join(run)]


def literals_of(parts: list[str]) -> list[str]:
    """The non-empty literals between the first and the last star."""
    return [part for part in parts[1:-1] if part]


def wildcard(parts: list[str], *, folded: bool = False) -> Holds:
    """Whether a string has these literal runs in order, the first at its start, the last at its end; `folded`: in any case."""
    if folded:
        return _wildcard_in_any_case(parts)
    if len(parts) == 1:
        whole = parts[0]
        return lambda text: text == whole
    first, last, middle = parts[0], parts[-1], literals_of(parts)
    shortest = len(first) + len(last)
    if not middle:
        return lambda text: len(text) >= shortest and text.startswith(first) and text.endswith(last)

    def fits(text: str) -> bool:
        if len(text) < shortest or not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for literal in middle:
            found = text.find(literal, at, end)
            if found < 0:
                return False
            at = found + len(literal)
        return True

    return fits


def _wildcard_in_any_case(parts: list[str]) -> Holds:
    first, *rest = map(_case_form, parts)
    # Each middle literal is taken where it first stands and never given back, so the search stays linear in the string.
    middle = "".join(f"(?>.*?{literal})" for literal in rest[:-1])
    form = re.compile(f"{first}{middle}.*{rest[-1]}" if rest else first, re.DOTALL)
    return lambda text: form.fullmatch(text) is not None


def ignore_case(text: str, *, starts: bool = True, ends: bool = True) -> Holds:
    """Whether a string equals (or, with one end open, ends or starts with) `text` in any case.

    As in event-ruler the pattern's characters decide: each stands for its own lower and upper form.  So `ß` takes `SS`, and the
    Kelvin sign takes `k`, but not the other way round.
    """
    if text.isascii() and starts and ends:
        lower = text.lower()
        return lambda found: found.isascii() and found.lower() == lower
    form = re.compile(_case_form(text))
    if starts and ends:
        return lambda found: form.fullmatch(found) is not None
    if starts:
        return lambda found: form.match(found) is not None
    tail = re.compile(_case_form(text) + r"\Z")
    return lambda found: tail.search(found) is not None


def _case_form(text: str) -> str:
    forms = ({letter.lower(): None, letter.upper(): None} for letter in text)
    return "".join(f"(?:{'|'.join(map(re.escape, form))})" for form in forms)
