"""YAML as plain data that knows where each part of it stands."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from control.documents import pointer

MAX_NODES = 200_000  # aliases of aliases grow without bound; no hand-written file comes near


class Place(NamedTuple):
    """Where something stands; lines and columns count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class PlacedFlaw:
    """Something wrong, where it stands."""

    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass
class Placed:
    """A file's data, and the place of each part by its JSON pointer: of a member, its key's; of an element, its own."""

    value: Any
    places: dict[str, Place]
    flaws: list[PlacedFlaw] = field(default_factory=list)

    def place_of(self, where: str) -> Place:
        """The place of `where`, or of the nearest thing around it that is there."""
        while where not in self.places:
            where = where.rpartition("/")[0]
        return self.places[where]


def read_yaml(text: str, *, file: str) -> Placed:
    """The data of one YAML document.  Flaws that keep it from being read are in `flaws`, with the value None.

    Scalars are read as YAML 1.2's core schema has them: `on`, `no` and `2026-11-21` are text.
    """
    start = Place(file, 1, 1)
    try:
        node = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = _place(mark, file) if mark else start
        return Placed(None, {"": place}, [PlacedFlaw(place, f"this is not YAML: {exc.problem or exc.context}")])
    except yaml.YAMLError as exc:  # a character that YAML does not allow
        return Placed(None, {"": start}, [PlacedFlaw(start, f"this is not YAML: {str(exc).partition(chr(10))[0]}")])
    if node is None:
        return Placed(None, {"": start}, [PlacedFlaw(start, "the file is empty")])
    reading = _Reading(file)
    value = reading.value(node, "")
    reading.found.places.setdefault("", start)
    return Placed(value if not reading.is_hopeless else None, reading.found.places, reading.found.flaws)


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own shape


_CoreLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_CoreLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_CoreLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_CoreLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"), list("-+.0123456789")
)
_CoreLoader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^(?:<<)$"), ["<"])
_READ: dict[str, Any] = {
    "tag:yaml.org,2002:str": str,
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:bool": lambda text: text.lower() == "true",
    "tag:yaml.org,2002:null": lambda _: None,
}
_CONTAINERS = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})


def _place(mark: yaml.Mark, file: str) -> Place:
    return Place(file, mark.line + 1, mark.column + 1)


class _Reading:
    def __init__(self, file: str) -> None:
        self._file = file
        self._open: set[int] = set()
        self._nodes = 0
        self.is_hopeless = False
        self.found = Placed(None, {})

    def value(self, node: Node, where: str) -> Any:
        self.found.places.setdefault(where, _place(node.start_mark, self._file))
        self._nodes += 1
        if id(node) in self._open or self._nodes > MAX_NODES:
            self.is_hopeless = True
            self._flaw(
                node, "an anchor that contains itself" if id(node) in self._open else "too many parts: aliases of aliases?"
            )
            return None
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if node.tag not in _CONTAINERS:
            self._flaw(node, f"the tag {node.tag} means nothing here")
            return None
        self._open.add(id(node))
        try:
            return self._mapping(node, where) if isinstance(node, MappingNode) else self._sequence(node, where)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: ScalarNode) -> Any:
        read = _READ.get(node.tag)
        if read is None:
            self._flaw(node, f"the tag {node.tag} means nothing here")
            return None
        return read(node.value)

    def _sequence(self, node: Node, where: str) -> list[Any]:
        assert isinstance(node, SequenceNode)
        return [self.value(child, f"{where}/{index}") for index, child in enumerate(node.value)]

    def _mapping(self, node: MappingNode, where: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                self._merge(value_node, where, into=merged)
                continue
            key = self._key(key_node)
            if key is None:
                continue
            inner = where + pointer(key)
            if key in found:
                self._flaw(key_node, f"`{key}` stands twice here; first at {self.found.places[inner]}")
                continue
            self.found.places[inner] = _place(key_node.start_mark, self._file)
            found[key] = self.value(value_node, inner)
        return {**merged, **found}

    def _key(self, node: Node) -> str | None:
        if isinstance(node, ScalarNode):
            return str(node.value)  # JSON's keys are text, whatever they look like
        self._flaw(node, "a key is text")
        return None

    def _merge(self, node: Node, where: str, *, into: dict[str, Any]) -> None:
        for source in node.value if isinstance(node, SequenceNode) else [node]:
            value = self.value(source, where)
            if isinstance(value, dict):
                into.update({key: inner for key, inner in value.items() if key not in into})
            else:
                self._flaw(node, "`<<` merges a mapping")

    def _flaw(self, node: Node, message: str) -> None:
        self.found.flaws.append(PlacedFlaw(_place(node.start_mark, self._file), message))
