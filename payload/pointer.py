"""JSON pointers (RFC 6901), with two additions: `*` stands for any child, and a step into a string opens it as a document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from payload.nested import opened

MISSING: Final = object()
Steps = tuple[str, ...]


def steps_of(pointer: str) -> Steps:
    """The steps of `pointer`; the empty pointer has none.  Raises ValueError where it is no pointer."""
    if not pointer:
        return ()
    if not pointer.startswith("/"):
        raise ValueError(f"a pointer starts with /: {pointer!r}")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer[1:].split("/"))


def pointer_of(steps: Steps) -> str:
    """The pointer with these steps."""
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def reach(document: Any, steps: Steps) -> Any:
    """What lies at `steps`, or MISSING.  At a `*` the first child that leads on is taken."""
    at = document
    for index, step in enumerate(steps):
        kind = at.__class__
        if kind is str:
            at = opened(at)
            kind = at.__class__
        if kind is dict:
            found = at.get(step, MISSING)
            if found is MISSING and step == "*":
                return _first(at.values(), steps[index + 1 :])
            at = found
        elif kind is list:
            if step == "*":
                return _first(at, steps[index + 1 :])
            at = at[int(step)] if _is_index(step, len(at)) else MISSING
        else:
            return MISSING
        if at is MISSING:
            return MISSING
    return at


def _first(children: Any, rest: Steps) -> Any:
    for child in children:
        found = reach(child, rest)
        if found is not MISSING and found is not None:
            return found
    return MISSING


def _is_index(step: str, length: int) -> bool:
    return step.isascii() and step.isdigit() and len(step) < 8 and int(step) < length  # noqa: PLR2004 - no body has 10^8 items


def every(document: Any, steps: Steps) -> Iterator[tuple[Steps, Any]]:
    """All places that `steps` names, with what lies there.

    Here a `*` is each element of an array; over anything else it is the thing itself, since senders that batch often send
    one thing bare.
    """
    yield from _every(document, steps, ())


def _every(at: Any, steps: Steps, walked: Steps) -> Iterator[tuple[Steps, Any]]:
    if not steps:
        yield walked, at
        return
    step, rest = steps[0], steps[1:]
    if step != "*":
        found = reach(at, (step,))
        if found is not MISSING and found is not None:
            yield from _every(found, rest, (*walked, step))
    elif isinstance(at, list):
        for index, child in enumerate(at):
            yield from _every(child, rest, (*walked, str(index)))
    else:
        yield from _every(at, rest, walked)
