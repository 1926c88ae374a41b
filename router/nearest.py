"""How far a leaf is from a test, and the sentence that says so."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from router.operators import Test
from router.pattern import Document
from router.values import address_of, is_number_key

Nearness = tuple[float, str]


def shown_value(value: Any) -> str:
    """A JSON value on one line, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 120 else f"{text[:120]}…"  # noqa: PLR2004  # a line's worth


def nearest_of(test: Test, leaf: Any) -> Nearness:
    """(0 far … 1 near, a sentence) for a leaf that fails a test."""
    say = _SAY.get(test.operator, _other)
    return say(test, leaf)


def _kind(leaf: Any) -> str:
    if isinstance(leaf, str):
        return "a string"
    if leaf is None:
        return "null"
    if is_number_key(leaf):
        return "a number"
    return {"true": "true", "false": "false"}.get(leaf[0], f"the number {leaf[-1]}, which no double holds")


def _equals(test: Test, leaf: Any) -> Nearness:
    wanted = test.wanted
    if isinstance(wanted, str) and isinstance(leaf, str):
        return _strings(wanted, leaf)
    if _spelled(wanted) == _spelled(leaf):
        return 0.9, f"differs only in type: the pattern has {shown_value(wanted)}, the event has {_kind(leaf)}"
    if isinstance(wanted, int | float) and is_number_key(leaf) and not isinstance(wanted, bool):
        return 0.4, f"wanted {wanted}, found {leaf}"
    return 0.1, f"wanted {shown_value(wanted)}, found {_kind(leaf)}"


def _spelled(value: Any) -> str:
    if isinstance(value, tuple):
        return str(value[0] if value[0] != "number" else value[-1])
    return {True: "true", False: "false", None: "null"}.get(value, str(value)) if not is_number_key(value) else f"{value:g}"


def _strings(wanted: str, leaf: str) -> Nearness:
    if wanted.lower() == leaf.lower():
        return 0.95, f"differs only in case: wanted {shown_value(wanted)}"
    if wanted.strip() == leaf.strip():
        return 0.95, f"differs only in white space: wanted {shown_value(wanted)}"
    likeness = difflib.SequenceMatcher(None, wanted[:200], leaf[:200]).ratio()
    return 0.8 * likeness, f"nearest alternative: {shown_value(wanted)}"


def _text_form(test: Test, leaf: Any) -> Nearness:
    wanted = test.wanted if isinstance(test.wanted, str) else test.wanted.get("equals-ignore-case", "")
    if not isinstance(leaf, str):
        return 0.1, f"{test.operator} takes strings only, and this is {_kind(leaf)}"
    part = {"prefix": leaf[: len(wanted)], "suffix": leaf[-len(wanted) :]}.get(test.operator, leaf)
    nearness, _ = _strings(wanted, part)
    case = " (it would in another case)" if wanted.lower() == part.lower() else ""
    does = {"prefix": "start with", "suffix": "end with"}.get(test.operator, "fit")
    return nearness, f"does not {does} {shown_value(wanted)}{case}"


def _numeric(test: Test, leaf: Any) -> Nearness:
    if not is_number_key(leaf):
        hint = "; it is a number written as a string" if isinstance(leaf, str) and _is_numeral(leaf) else ""
        return (0.7 if hint else 0.1), f"numeric takes numbers only, and this is {_kind(leaf)}{hint}"
    pairs = zip(test.wanted[::2], test.wanted[1::2], strict=True)
    sign, bound = min(pairs, key=lambda pair: abs(leaf - pair[1]))
    distance = abs(leaf - bound)
    return 0.6 / (1 + distance / (abs(bound) or 1)), f"{leaf} is not {sign} {bound}: off by {distance:g}"


def _is_numeral(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cidr(test: Test, leaf: Any) -> Nearness:
    if not isinstance(leaf, str) or address_of(leaf) is None:
        return 0.1, f"is no IP address, and so in no network {test.wanted}"
    return 0.5, f"is not in the network {test.wanted}"


def _anything_but(test: Test, _leaf: Any) -> Nearness:
    return 0.5, f"is what {shown_value({'anything-but': test.wanted})} excludes"


def _other(test: Test, _leaf: Any) -> Nearness:
    return 0.2, f"does not satisfy {shown_value({test.operator: test.wanted})}"


_SAY: Final[Mapping[str, Callable[[Test, Any], Nearness]]] = {
    "equals": _equals,
    "prefix": _text_form,
    "suffix": _text_form,
    "equals-ignore-case": _text_form,
    "wildcard": _text_form,
    "numeric": _numeric,
    "cidr": _cidr,
    "anything-but": _anything_but,
}


def nearest_path(document: Document, path: str) -> str:
    """What is there instead of a leaf at `path`: how far the path goes, and a name that looks like the missing one."""
    place: Any = document
    walked: list[str] = []
    for name in path.split("."):
        objects = list(_objects(place))
        if not objects:
            return f"{'.'.join(walked)} is {_what(place)}, not an object"
        here = [found[name] for found in objects if name in found]
        if not here:
            return _missing(walked, name, {key for found in objects for key in found})
        place = here[0] if len(here) == 1 else here
        walked.append(name)
    return f"{path} is {_what(place)}: only a string, a number, true, false or null is a leaf"


def _objects(place: Any) -> Iterator[Mapping[str, Any]]:
    waiting = [place]
    for value in waiting:
        if isinstance(value, Mapping):
            yield value
        elif isinstance(value, list):
            waiting += value


def _missing(walked: list[str], name: str, names: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.6)
    same = [other for other in names if other.lower() == name.lower()]
    hint = f"; there is {'.'.join([*walked, (same or near)[0]])}" if same or near else ""
    return f"there is no {'.'.join([*walked, name])}{hint}"


def _what(place: Any) -> str:
    if isinstance(place, Mapping):
        return "an object" if place else "an empty object"
    if isinstance(place, list):
        return "an array of objects" if place else "an empty array"
    return shown_value(place)
