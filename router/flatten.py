"""The leaves of a document at the used paths, each with the array elements that it lies in.

    document ──▶ flatten(document, trie) ──▶ Found
                                             leaves   path → key, or list of keys      decides a field alone
                                             tangled  path → [(key, chain)]            decides fields together, where arrays of
                                                                                       objects were met
    chain: the array elements around a leaf, outermost first, as pairs (array, index).  Arrays are numbered as they are met, so
    an inner array's number fixes the element of the outer one.

Only what the trie names is read: cost grows with the used paths that are there and the elements of arrays on them, not with the
document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from router.values import EXACT_INT, MISSING, key_of

Chain = tuple[tuple[int, int], ...]
NO_CHAIN: Final[Chain] = ()


class Node:
    """A used name and what is used below it.

    `dotted` has the names that an event may write as one key: with the path a.b.c, `b.c` at the node a, leading to c.
    """

    __slots__ = ("children", "dotted", "exact", "path")

    def __init__(self) -> None:
        self.children: dict[str, Node] = {}
        self.dotted: dict[str, Node] = {}
        self.path: str | None = None
        self.exact = False


def trie_of(paths: Iterable[str], exact_paths: frozenset[str] = frozenset()) -> Node:
    """The trie of these paths; at `exact_paths` a number that a double may have blurred is reported."""
    root = Node()
    for path in paths:
        walked = [root]
        names = path.split(".")
        for name in names:
            walked.append(walked[-1].children.setdefault(name, Node()))
        leaf = walked[-1]
        leaf.path = path
        leaf.exact = path in exact_paths
        for start in range(len(names)):
            for end in range(start + 2, len(names) + 1):
                walked[start].dotted[".".join(names[start:end])] = walked[end]
    return root


class Found:
    """What `flatten` found; `blurred` says that a number's own text may decide, and the document no longer has it."""

    __slots__ = ("arrays", "blurred", "leaves", "shelves", "tangled")

    def __init__(self) -> None:
        self.leaves: dict[str, Any] = {}
        self.tangled: dict[str, list[tuple[Any, Chain]]] = {}
        self.shelves: dict[Any, Any] = {}
        self.arrays = 0
        self.blurred = False


def flatten(document: Mapping[str, Any], root: Node) -> Found:
    """The leaves of `document` that `root` names.  The document is only read."""
    found = Found()
    _walk_object(document, root, found, NO_CHAIN)
    return found


def _walk_object(  # noqa: C901, PLR0912  # the hottest loop of a match: what would be two functions is written in place
    document: Mapping[str, Any], node: Node, found: Found, chain: Chain
) -> None:
    children = node.children
    if len(children) <= len(document):
        leaves = found.leaves
        for name, child in children.items():
            value = document.get(name, MISSING)
            # Strings and objects are most of what there is: they are taken here, without a call.
            if value.__class__ is str and not chain:
                path = child.path
                if path is not None:
                    if path in leaves:
                        _keep(path, value, found, chain)
                    else:
                        leaves[path] = value
            elif value.__class__ is dict:
                if child.children:
                    _walk_object(value, child, found, chain)
            elif value is not MISSING:
                _walk_value(value, child, found, chain)
    else:
        for name, value in document.items():
            met = children.get(name)
            if met is not None:
                _walk_value(value, met, found, chain)
    dotted = node.dotted
    if dotted and not document.keys().isdisjoint(dotted.keys()):
        for name in document.keys() & dotted.keys():
            _walk_value(document[name], dotted[name], found, chain)


def _walk_value(value: Any, node: Node, found: Found, chain: Chain) -> None:
    cls = value.__class__
    if cls is dict:
        if node.children:
            _walk_object(value, node, found, chain)
    elif cls is list:
        _walk_array(value, node, found, chain)
    elif node.path is not None:
        if cls is float and node.exact and not -EXACT_INT < value < EXACT_INT:
            found.blurred = True
        key = value if cls is str or (cls is int and -EXACT_INT <= value <= EXACT_INT) else key_of(value)
        if chain or node.path in found.leaves:
            _keep(node.path, key, found, chain)
        else:
            found.leaves[node.path] = key


def _walk_array(values: list[Any], node: Node, found: Found, chain: Chain) -> None:
    # Arrays within arrays are walked with a stack of our own: a hostile document may nest them a thousand deep.
    waiting = [(values, chain)]
    for array, around in waiting:
        number = found.arrays = found.arrays + 1
        for at, value in enumerate(array):
            cls = value.__class__
            if cls is dict:
                if node.children:
                    _walk_object(value, node, found, (*around, (number, at)))
            elif cls is list:
                waiting.append((value, (*around, (number, at))))
            elif node.path is not None:
                _walk_value(value, node, found, around)


def _keep(path: str, key: Any, found: Found, chain: Chain) -> None:
    leaves = found.leaves
    there = leaves.get(path, MISSING)
    if there is MISSING:
        leaves[path] = key
    elif there.__class__ is list:
        there.append(key)
    else:
        leaves[path] = [there, key]
    if chain:
        kept = found.tangled.get(path)
        if kept is None:
            # Leaves met before without a chain (the path also exists outside the array) belong to every combination.
            before = [] if there is MISSING else there[:-1] if there.__class__ is list else [there]
            found.tangled[path] = kept = [(earlier, NO_CHAIN) for earlier in before]
        kept.append((key, chain))
    elif path in found.tangled:
        found.tangled[path].append((key, NO_CHAIN))
