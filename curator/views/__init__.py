"""The default views: one file a family, with the facts that each view declares and an example that proves them."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any

from curator.view import View, compile_view

MAX_TYPES = 4096  # that are remembered: a sender may make up types
_APART = re.compile(r"[^a-z0-9.*]")


@dataclass(frozen=True, slots=True)
class DefaultView:
    """A view that ships: the types that it is for, its JMESPath, and the proof.

    `types` follow the family's name in an event's type; one may end in `*`.  `facts` maps a JSON pointer into the example's
    body to one into the view's output, where the same value must stand.  `source` says where the example is from.
    """

    families: tuple[str, ...]
    name: str
    types: tuple[str, ...]
    view: str
    facts: tuple[tuple[str, str], ...]
    example: Any
    source: str


@cache
def catalogue() -> tuple[DefaultView, ...]:
    """Every default view, by file and in the order of the file."""
    found: list[DefaultView] = []
    for entry in sorted(files(__name__).iterdir(), key=lambda each: each.name):
        if entry.name.endswith(".toml"):
            found.extend(_read(tomllib.loads(entry.read_text(encoding="utf-8"))))
    return tuple(found)


def _read(document: dict[str, Any]) -> list[DefaultView]:
    return [
        DefaultView(
            families=tuple(document["families"]),
            name=name,
            types=tuple(table["types"]),
            view=table["view"],
            facts=tuple(table["facts"].items()),
            example=json.loads(table["example"]),
            source=table["source"],
        )
        for name, table in document["views"].items()
    ]


def _plain(kind: str) -> str:
    """A type as it is compared: vendors and their catalogues differ in case and in what parts words, not in the words."""
    return _APART.sub("", kind.lower())


@cache
def _by_type() -> dict[str, DefaultView]:
    """Views by exact type and by `prefix.*`; `prefix.*` is for `prefix` too.  An exact type wins, then the earlier file."""
    table: dict[str, DefaultView] = {}
    for each in catalogue():
        for family in each.families:
            for kind in each.types:
                table.setdefault(_plain(f"{family}.{kind}"), each)
    for kind, each in list(table.items()):
        if kind.endswith(".*") and kind.count(".") > 1:
            table.setdefault(kind.removesuffix(".*"), each)
    return table


@lru_cache(maxsize=MAX_TYPES)
def view_for(kind: str) -> DefaultView | None:
    """What ships for events of type `kind`: the view for exactly that type, else for the longest `prefix.*` of it."""
    table = _by_type()
    plain = _plain(kind)
    found = table.get(plain)
    while found is None and "." in plain:
        plain = plain.rpartition(".")[0]
        found = table.get(f"{plain}.*")
    return found


@lru_cache(maxsize=MAX_TYPES)
def default_view(kind: str) -> View | None:
    """The compiled view of `view_for(kind)`."""
    found = view_for(kind)
    return None if found is None else compile_view(found.view)
