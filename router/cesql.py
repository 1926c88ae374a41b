"""CESQL 1.0 (the CloudEvents SQL expression language) as a rule: read once, indexed where it can be, run on candidates.

    text ──▶ cesql_grammar.parse ──▶ expression ──▶ necessary fields (indexed)  +  guard (the expression itself)

https://github.com/cloudevents/spec/blob/main/cesql/spec.md.  Attributes only; in a filter an error is false.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Final

from router.cesql_grammar import (
    And,
    Attribute,
    Binary,
    Call,
    Exists,
    Expression,
    In,
    Like,
    Literal,
    Negate,
    Not,
    Or,
    Xor,
    parse,
)
from router.cesql_values import (
    FUNCTIONS,
    CesqlError,
    Outcome,
    Value,
    cast,
    compare,
    compute,
    like,
    zero_of,
)
from router.field import Field, field_of
from router.operators import Test, equals, prefix
from router.pattern import Branch, Guard, Pattern, quoted
from schemas.errors import Invalid

_MOST_BRANCHES: Final = 64


def compile_cesql(text: str) -> Pattern:
    """The rule of a CESQL expression.  Raises `Invalid`, quoting the expression and the place in it."""
    expression = _parsed(text)
    wanted = necessary(expression)
    branches = tuple(Branch(tuple(sorted(fields, key=lambda field: field.path))) for fields in wanted)
    return Pattern(
        text, branches, guards=(Guard(text, lambda document, _now_ms: holds(expression, document)),), dialect="cesql"
    )


def _parsed(text: str) -> Expression:
    try:
        return parse(text)
    except CesqlError as exc:
        raise Invalid(f"cesql: {exc.detail}; in the expression {quoted(text)}") from exc


def holds(expression: Expression, attributes: Mapping[str, Any]) -> bool:
    """Whether the expression is true without an error; a string or number is false."""
    value, error = evaluate(expression, attributes)
    return value is True and error is None


def evaluate(expression: Expression, attributes: Mapping[str, Any]) -> Outcome:
    """(value, kind of error or None), as the specification wants: an evaluation always has a value."""
    return _EVALUATE[type(expression)](expression, attributes)


def _literal(expression: Literal, _attributes: Mapping[str, Any]) -> Outcome:
    return expression.value, None


def _attribute(expression: Attribute, attributes: Mapping[str, Any]) -> Outcome:
    value = attributes.get(expression.name)
    if expression.name != "data" and isinstance(value, str | bool | int):
        return value, None
    return False, "missingAttribute"


def _exists(expression: Exists, attributes: Mapping[str, Any]) -> Outcome:
    return expression.name != "data" and attributes.get(expression.name) is not None, None


def _not(expression: Not, attributes: Mapping[str, Any]) -> Outcome:
    value, error = evaluate(expression.inner, attributes)
    if error:
        return False, error
    truth, error = cast(value, bool)
    return not truth, error


def _negate(expression: Negate, attributes: Mapping[str, Any]) -> Outcome:
    value, error = evaluate(expression.inner, attributes)
    if error:
        return 0, error
    number, error = cast(value, int)
    return compute("-", 0, number, error)


def _truth(expression: Expression, attributes: Mapping[str, Any]) -> Outcome:
    value, error = evaluate(expression, attributes)
    return (False, error) if error else cast(value, bool)


def _and(expression: And, attributes: Mapping[str, Any]) -> Outcome:
    left, error = _truth(expression.left, attributes)
    return _truth(expression.right, attributes) if left and not error else (False, error)


def _or(expression: Or, attributes: Mapping[str, Any]) -> Outcome:
    left, error = _truth(expression.left, attributes)
    if error:
        return False, error
    return (True, None) if left else _truth(expression.right, attributes)


def _xor(expression: Xor, attributes: Mapping[str, Any]) -> Outcome:
    left, error = _truth(expression.left, attributes)
    right, later = _truth(expression.right, attributes)
    return left is not right and not (error or later), error or later


def _binary(expression: Binary, attributes: Mapping[str, Any]) -> Outcome:
    left, error = evaluate(expression.left, attributes)
    right, later = evaluate(expression.right, attributes)
    arithmetic = expression.sign in {"+", "-", "*", "/", "%"}
    if error or later:
        return 0 if arithmetic else False, error or later
    if not arithmetic:
        return compare(expression.sign, left, right)
    first, error = cast(left, int)
    second, later = cast(right, int)
    return compute(expression.sign, first, second, error or later)


def _in(expression: In, attributes: Mapping[str, Any]) -> Outcome:
    left, error = evaluate(expression.left, attributes)
    if error:
        return False, error
    for option in expression.options:
        value, failed = evaluate(option, attributes)
        if not failed:
            value, failed = cast(value, type(left))
        error = error or failed
        if not failed and value == left:
            return not expression.negated, None
    return (expression.negated and not error), error


def _like(expression: Like, attributes: Mapping[str, Any]) -> Outcome:
    value, error = evaluate(expression.left, attributes)
    if error:
        return False, error
    text, error = cast(value, str)
    return (like(str(text), expression.form) is not expression.negated), error


def _call(expression: Call, attributes: Mapping[str, Any]) -> Outcome:
    chosen = FUNCTIONS.get((expression.name, len(expression.arguments))) or FUNCTIONS.get((expression.name, None))
    if chosen is None or len(expression.arguments) < chosen.least:
        return False, "missingFunction"
    given: list[Value] = []
    error: str | None = None
    for at, argument in enumerate(expression.arguments):
        value, failed = evaluate(argument, attributes)
        wanted = chosen.types[min(at, len(chosen.types) - 1)]
        if not failed and wanted is not None:
            value, failed = cast(value, wanted)
        given.append(value)
        error = error or failed
    if error:
        return zero_of(chosen.gives), error
    return chosen.run(*given)


_EVALUATE: Final[Mapping[type, Callable[[Any, Mapping[str, Any]], Outcome]]] = {
    Literal: _literal,
    Attribute: _attribute,
    Exists: _exists,
    Not: _not,
    Negate: _negate,
    And: _and,
    Or: _or,
    Xor: _xor,
    Binary: _binary,
    In: _in,
    Like: _like,
    Call: _call,
}

# ── what an index can ask before the expression is run ──────────────────────────────────────────────────────────────────────

Conjunctions = list[tuple[Field, ...]]
_ANYTHING: Final[Conjunctions] = [()]


def necessary(expression: Expression) -> Conjunctions:
    """Fields, ORed over ANDed, one conjunction of which holds whenever the expression is true; `[()]`: nothing is known."""
    if isinstance(expression, And):
        return both(necessary(expression.left), necessary(expression.right))
    if isinstance(expression, Or):
        return either(necessary(expression.left), necessary(expression.right))
    if isinstance(expression, Binary) and expression.sign == "=":
        return _necessary_of(expression.left, expression.right)
    if isinstance(expression, In) and not expression.negated:
        first, *others = (_necessary_of(expression.left, option) for option in expression.options)
        return reduce(either, others, first)
    if isinstance(expression, Like) and not expression.negated and isinstance(expression.left, Attribute):
        return _necessary_start(expression.left.name, expression.form)
    return _ANYTHING


def _necessary_of(left: Expression, right: Expression) -> Conjunctions:
    if isinstance(left, Attribute) and isinstance(right, Literal) and isinstance(right.value, str):
        return [(field_of(left.name, spellings(right.value)),)]
    return _ANYTHING


def spellings(text: str) -> list[Test]:
    """The values of an attribute whose string form may be `text`: the string, and the number or boolean so written."""
    tests = [equals(text)]
    number, error = cast(text, int)
    if not error:
        tests.append(equals(number))
    if text.lower() in {"true", "false"}:
        tests.append(equals(text.lower() == "true"))
    return tests


def _necessary_start(name: str, form: tuple[str | None, ...]) -> Conjunctions:
    start = ""
    for piece in form:
        if piece is None or piece == "":
            break
        start += piece
    # A number or a boolean may be LIKE too; the index knows strings only, so a start that one could have is left to the guard.
    if not start or start[0] in "-0123456789tf":
        return _ANYTHING
    return [(field_of(name, [prefix(start, name, frozenset())]),)]


def both(left: Conjunctions, right: Conjunctions) -> Conjunctions:
    """The conjunctions of an AND; where they would be too many, those of one side, which are necessary as well."""
    if len(left) * len(right) > _MOST_BRANCHES:
        return left if left != _ANYTHING else right
    return [(*one, *(field for field in other if field not in one)) for one in left for other in right]


def either(left: Conjunctions, right: Conjunctions) -> Conjunctions:
    """The conjunctions of an OR; one side without any leaves none."""
    if () in left or () in right or len(left) + len(right) > _MOST_BRANCHES:
        return _ANYTHING
    return [*left, *right]
