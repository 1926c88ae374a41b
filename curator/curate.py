"""One event's context: its view, cleaned, within its budget."""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256
from typing import Any

import orjson

from curator.attachments import MIN_CHARS, referenced
from curator.budget import Path, fitted
from curator.fence import cleaned, may_hide
from curator.generic import pruned, restored
from curator.ports import TokenCounter
from curator.tokens import default_counter, estimated
from curator.view import ViewFailed, compile_view
from curator.views import default_view
from schemas.context import Curated
from schemas.event import Event

DEFAULT_MAX_TOKENS = 4000
_BIG_OUTPUT_BYTES = 4 * 1024 * 1024


def curate(
    event: Event,
    data: Any,
    *,
    view: str | None,
    max_tokens: int | None,
    counter: TokenCounter | None = None,
    exact_raw: bool = False,
    reserve_tokens: int = 0,
) -> Curated:
    """The agent's context: `view` over the event, else the default view of its type, else the generic view.

    At most `max_tokens` (4,000 where none is given) less `reserve_tokens`, what the protocol's envelope takes.  Pure: the same
    event gives the same bytes in any process.  `exact_raw` counts the whole body too; without it `raw_tokens` is an estimate
    from the body's length, since counting 8 KB exactly costs as much as everything else here.  A view that fails on this event
    gives the generic one, and says so in `left_out`.
    """
    counter = counter or default_counter()
    value, notes = selected(event, data, view)
    encoded, value, notes = written(value, data, notes)
    limit = (DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens) - reserve_tokens
    found = fitted(value, encoded, max(limit, 1), counter)
    return Curated(
        context=found.encoded,
        tokens=found.tokens,
        raw_tokens=raw_tokens(event, counter, exact=exact_raw),
        digest=sha256(found.encoded).hexdigest(),
        left_out=(*notes, *found.left_out),
    )


def selected(event: Event, data: Any, view: str | None, required: Collection[Path] = ()) -> tuple[Any, tuple[str, ...]]:
    """What a view takes of an event, before cleaning and budget, and notes on what went otherwise than asked.

    Where it comes to the generic view, `required` stays as it is in the body.
    """
    chosen = default_view(event.type) if view is None else compile_view(view)
    if chosen is None:
        return _generic(data, required)
    try:
        value = chosen.of(event.document(data))
    except ViewFailed as exc:
        return _generic(data, required, f"the view failed: {exc}")
    if view is None:
        value = referenced(without_empty(value), required)
        return (value, ()) if value else _generic(data, required)
    if len(event.body) * chosen.copies > _BIG_OUTPUT_BYTES and _is_over(value, _BIG_OUTPUT_BYTES):
        return _generic(data, required, "the view's output is too large")
    return (referenced(value, required) if len(event.body) > MIN_CHARS else value), ()


def written(value: Any, data: Any, notes: tuple[str, ...]) -> tuple[bytes, Any, tuple[str, ...]]:
    """The JSON of `value`, freed of hidden characters, with `value` as written."""
    try:
        encoded = orjson.dumps(value)
    except TypeError:
        # Only a nesting beyond orjson's 254 levels comes here: everything else in `data` was read as JSON.
        value, notes = _generic(data, (), "the view's output is nested too deeply")
        encoded = orjson.dumps(value)
    if not may_hide(encoded.decode()):
        return encoded, value, notes
    value, removed = cleaned(value)
    if not removed:
        return encoded, value, notes
    return orjson.dumps(value), value, (*notes, f"hidden characters: {removed}")


def raw_tokens(event: Event, counter: TokenCounter, *, exact: bool) -> int:
    """Tokens of the vendor's whole body: what an agent would read without a view."""
    if exact:
        return counter.count(event.body.decode(errors="replace"))
    return estimated(len(event.body))


def without_empty(value: Any) -> Any:
    """`value` without nulls, empty texts, lists and objects; None where nothing is left."""
    kind = value.__class__
    if kind is dict:
        return {key: left for key, item in value.items() if (left := without_empty(item)) is not None} or None
    if kind is list:
        return [left for item in value if (left := without_empty(item)) is not None] or None
    return None if kind is str and not value else value


def _generic(data: Any, required: Collection[Path], note: str = "") -> tuple[Any, tuple[str, ...]]:
    value, dropped = pruned(data)
    value = restored(value, data, required) if required else value
    notes = tuple(f"{kind}: {count}" for kind, count in sorted(dropped.items()))
    return ({} if value is None else value), ((note, *notes) if note else notes)


def _is_over(value: Any, limit: int) -> bool:
    """Whether the JSON of `value` would be longer than about `limit` bytes; stops as soon as it is."""
    left = limit
    waiting = [value]
    while waiting and left > 0:
        at = waiting.pop()
        kind = at.__class__
        if kind is dict:
            left -= sum(len(key) + 4 for key in at)
            waiting.extend(at.values())
        elif kind is list:
            left -= len(at)
            waiting.extend(at)
        else:
            left -= len(at) if kind is str else 4
    return left <= 0
