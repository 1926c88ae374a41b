"""Views: JMESPath over the event document, checked when saved, compiled once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jmespath
from jmespath import exceptions, functions
from jmespath.parser import ParsedResult
from jmespath.visitor import Options, TreeInterpreter

from schemas.errors import Invalid

MAX_VIEW_CHARS = 8192  # EventBridge's transformer allows as much
MAX_COPIES = 512
MAX_DEPTH = 64
_EXAMPLE = "{title: data.issue.title, author: actor}"


class ViewFailed(ValueError):
    """A view that is right as text met a value that it cannot work on, such as `length()` of a number."""


class View:
    """A compiled view.  `copies` bounds how often one input value can stand in the output."""

    __slots__ = ("_root", "copies", "text")

    def __init__(self, text: str, parsed: ParsedResult) -> None:
        """Of a text that `compile_view` has checked."""
        self.text = text
        tree: dict[str, Any] = dict(parsed.parsed)
        self.copies = _copies(tree)
        self._root = _compiled(tree)

    def of(self, document: dict[str, Any]) -> Any:
        """The view's output over one event document.  Raises ViewFailed."""
        try:
            return self._root(document)
        except (exceptions.JMESPathError, TypeError, ValueError, OverflowError, RecursionError) as exc:
            raise ViewFailed(_one_line(str(exc))) from exc


def check_view(text: str) -> None:
    """Raise Invalid, quoting the place, where `text` is no view that Nightbell would run."""
    compile_view(text)


@lru_cache(maxsize=4096)
def compile_view(text: str) -> View:
    """The compiled view of `text`.  Raises Invalid, quoting the place and saying what would be right."""
    if not text.strip():
        raise Invalid(f"the view is empty: leave it out for the default view, or write JMESPath such as `{_EXAMPLE}`")
    if len(text) > MAX_VIEW_CHARS:
        raise Invalid(f"the view has {len(text)} characters; the limit is {MAX_VIEW_CHARS}")
    try:
        # The cached module-level compile keeps 128 expressions and evicts at random; this cache is ours.
        parsed = jmespath.parser.Parser().parse(text)
        tree: dict[str, Any] = dict(parsed.parsed)
        _check_calls(tree)
    except exceptions.LexerError as exc:
        raise Invalid(_at(text, exc.lexer_position, exc.message), position=exc.lexer_position) from exc
    except exceptions.IncompleteExpressionError as exc:
        raise Invalid(_at(text, len(text), "the expression ends too early"), position=len(text)) from exc
    except exceptions.ParseError as exc:
        raise Invalid(_at(text, exc.lex_position, f"{exc.token_value!r} is not expected"), position=exc.lex_position) from exc
    except exceptions.JMESPathError as exc:
        raise Invalid(f"the view is wrong: {_one_line(str(exc))}") from exc
    except RecursionError as exc:
        raise Invalid("the view is nested too deeply") from exc
    if _depth(tree) > MAX_DEPTH:
        raise Invalid(f"the view is nested deeper than {MAX_DEPTH}")
    view = View(text, parsed)
    if view.copies > MAX_COPIES:
        raise Invalid(f"the view could repeat one value {view.copies} times; the limit is {MAX_COPIES}: select fields by name")
    return view


def _at(text: str, position: int, message: str) -> str:
    """What is wrong, and the place in the view with what surrounds it."""
    position = max(0, min(position, len(text)))
    before, after = text[max(0, position - 30) : position], text[position : position + 30]
    return f"the view is wrong at character {position + 1}: {_one_line(message)}: …{before}⟨here⟩{after}…"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _check_calls(node: dict[str, Any]) -> None:
    """Unknown functions and wrong numbers of arguments are found here, not at the first event."""
    table = functions.Functions.FUNCTION_TABLE
    if node["type"] == "function_expression":
        signature = table.get(node["value"])
        if signature is None:
            raise Invalid(f"the view calls {node['value']}(), which JMESPath does not have: {', '.join(sorted(table))}")
        wanted = signature["signature"]
        given = len(node["children"])
        is_variadic = bool(wanted) and bool(wanted[-1].get("variadic"))
        if given < len(wanted) or (given > len(wanted) and not is_variadic):
            raise Invalid(f"the view calls {node['value']}() with {given} arguments; it takes {len(wanted)}")
    for child in _children(node):
        _check_calls(child)


def _children(node: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [child for child in node["children"] if isinstance(child, dict)]
    return found


def _depth(node: dict[str, Any]) -> int:
    return 1 + max((_depth(child) for child in _children(node)), default=0)


_CHAINS = {"subexpression", "pipe", "index_expression", "projection", "value_projection", "filter_projection"}
_SCALAR = {"comparator", "not_expression", "literal", "index", "slice", "field", "current", "identity", "flatten"}


def _copies(node: dict[str, Any]) -> int:
    """How often one value of the input can be repeated in the output: `[@, @] | [@, @]` makes four of one."""
    kind = node["type"]
    counts = [_copies(child) for child in _children(node)]
    if kind in _SCALAR:
        return max([1, *counts])
    if kind in _CHAINS:
        product = 1
        for count in counts:
            product *= count
        return product
    return max(1, sum(counts))


Getter = Callable[[Any], Any]


def _compiled(node: dict[str, Any]) -> Getter:  # noqa: PLR0911 - one return a kind of node
    """A closure for the nodes that views are mostly made of, four times as fast as walking the tree; jmespath for the rest."""
    kind, children = node["type"], node["children"]
    if kind == "field":
        return _field(node["value"])
    if kind == "subexpression":
        names = _names(node)
        return _path(names) if names else _then([_compiled(child) for child in children])
    if kind == "pipe":
        return _then([_compiled(child) for child in children])
    if kind == "multi_select_dict":
        return _pairs([(child["value"], _compiled(child["children"][0])) for child in children])
    if kind == "or_expression":
        return _either(_compiled(children[0]), _compiled(children[1]))
    if kind == "projection" and children[0]["type"] in {"field", "subexpression"}:
        return _each(_compiled(children[0]), _compiled(children[1]))
    if kind in {"current", "identity"}:
        return lambda value: value
    interpreter: Any = TreeInterpreter(Options(dict_cls=dict))
    return lambda value: interpreter.visit(node, value)


def _names(node: dict[str, Any]) -> tuple[str, ...]:
    """The names of a plain path `a.b.c`; empty for anything else."""
    if node["type"] == "field":
        return (node["value"],)
    if node["type"] != "subexpression":
        return ()
    found: list[str] = []
    for child in node["children"]:
        names = _names(child)
        if not names:
            return ()
        found.extend(names)
    return tuple(found)


def _field(name: str) -> Getter:
    return lambda value: value.get(name) if value.__class__ is dict else None


def _path(names: tuple[str, ...]) -> Getter:
    def found(value: Any) -> Any:
        for name in names:
            if value.__class__ is not dict:
                return None
            value = value.get(name)
        return value

    return found


def _then(steps: list[Getter]) -> Getter:
    def found(value: Any) -> Any:
        for step in steps:
            value = step(value)
        return value

    return found


def _pairs(pairs: list[tuple[str, Getter]]) -> Getter:
    def found(value: Any) -> Any:
        return None if value is None else {name: getter(value) for name, getter in pairs}

    return found


def _either(left: Getter, right: Getter) -> Getter:
    def found(value: Any) -> Any:
        first = left(value)
        is_false = first is None or first is False or (first.__class__ in {str, list, dict} and not first)
        return right(value) if is_false else first

    return found


def _each(base: Getter, item: Getter) -> Getter:
    def found(value: Any) -> Any:
        items = base(value)
        if items.__class__ is not list:
            return None
        return [one for one in (item(each) for each in items) if one is not None]

    return found
