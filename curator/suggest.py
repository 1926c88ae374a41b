"""A better view, from what a subscription's agents keep fetching by reference."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from curator.view import check_view
from schemas.errors import Invalid

_PLAIN = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_OBJECT = re.compile(r"^\s*\{(.*)\}\s*$", re.DOTALL)


def suggested(view: str, fetched: Iterable[str], *, contexts: int, share: float = 0.2) -> str | None:
    """`view` with a member for each body pointer that agents fetched in at least `share` of the contexts; None for no change.

    `fetched` holds one JSON pointer into the body per fetch.  Only a view that is one object can grow.
    """
    shape = _OBJECT.match(view)
    if shape is None or contexts <= 0:
        return None
    counts = Counter(fetched)
    wanted = sorted((pointer for pointer, count in counts.items() if count >= share * contexts), key=lambda p: (-counts[p], p))
    added: list[str] = []
    for pointer in wanted:
        path = _path(pointer)
        if path and not re.search(re.escape(path) + r"(?![\w.\[])", view):
            added.append(f"{_name(pointer, [view, *added])}: {path}")
    if not added:
        return None
    grown = "{" + ", ".join(filter(None, [shape[1].strip().rstrip(","), *added])) + "}"
    try:
        check_view(grown)
    except Invalid:
        return None
    return grown


def _path(pointer: str) -> str:
    """The JMESPath of a pointer into the body."""
    path = "data"
    for raw in pointer.split("/")[1:]:
        step = raw.replace("~1", "/").replace("~0", "~")
        if step.isdigit():
            path += f"[{step}]"
        else:
            path += f".{step}" if _PLAIN.match(step) else '."' + step.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return path if path != "data" else ""


def _name(pointer: str, taken: list[str]) -> str:
    """A member's name: the pointer's last words, as many as make it new."""
    steps = [re.sub(r"\W", "_", step) for step in pointer.split("/")[1:] if not step.isdigit()]
    for length in range(1, len(steps) + 1):
        name = "_".join(steps[-length:])
        name = name if _PLAIN.match(name) else f"_{name}"
        if not any(re.search(rf"(?<![\w.]){re.escape(name)}\s*:", text) for text in taken):
            return name
    return f"{name}_2"
