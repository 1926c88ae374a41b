"""CESQL's grammar: from text to an expression.

Binding, tightest first: function calls; NOT and unary minus; LIKE, IN, EXISTS; * / %; + -; comparisons; AND OR XOR, which bind
alike and group from the left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from router.cesql_values import INT_MAX, INT_MIN, CesqlError, LikeForm, Value, like_form

_MAX_DEPTH: Final = 50
_MAX_LENGTH: Final = 8192


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, an integer or a boolean."""

    value: Value


@dataclass(frozen=True, slots=True)
class Attribute:
    """A context attribute of the event."""

    name: str


@dataclass(frozen=True, slots=True)
class Exists:
    """Whether an attribute is there."""

    name: str


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    inner: Expression


@dataclass(frozen=True, slots=True)
class Negate:
    """Unary minus."""

    inner: Expression


@dataclass(frozen=True, slots=True)
class Binary:
    """A comparison or an arithmetic operation."""

    sign: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class And:
    """Both; the right is evaluated only where the left is true."""

    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Or:
    """Either; the right is evaluated only where the left is false."""

    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Xor:
    """One of the two."""

    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Like:
    """Whether a string has a form."""

    left: Expression
    form: LikeForm
    negated: bool


@dataclass(frozen=True, slots=True)
class In:
    """Whether a value is among others."""

    left: Expression
    options: tuple[Expression, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A built-in function's value."""

    name: str
    arguments: tuple[Expression, ...]


Expression = Literal | Attribute | Exists | Not | Negate | Binary | And | Or | Xor | Like | In | Call

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<string>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")
    | (?P<word>[A-Za-z0-9_]+)
    | (?P<sign><=|>=|!=|<>|[-+*/%=<>(),])
    )""",
    re.VERBOSE | re.DOTALL,
)
_WORDS: Final = frozenset({"AND", "OR", "XOR", "NOT", "LIKE", "IN", "EXISTS", "TRUE", "FALSE"})

# A token: its kind (string, word, name, number, sign, end), its text, and where it stands.
Token = tuple[str, str, int]


def _tokens(text: str) -> Iterator[Token]:
    at = 0
    end = len(text.rstrip())
    while at < end:
        met = _TOKEN.match(text, at)
        if met is None:
            raise CesqlError(f"character {at + 1}: {text[at:].strip()[:20]!r} is no part of CESQL")
        kind = str(met.lastgroup)
        found, start = met.group(kind), met.start(kind)
        if kind == "word":
            kind = "number" if found.isdigit() else "word" if found.upper() in _WORDS else "name"
        yield kind, found.upper() if kind == "word" else found, start + 1
        at = met.end()
    yield "end", "the end", len(text) + 1


def parse(text: str) -> Expression:
    """The expression that `text` is.  Raises `CesqlError`, naming the place."""
    if len(text) > _MAX_LENGTH:
        raise CesqlError(f"longer than {_MAX_LENGTH} characters")
    parser = _Parser(list(_tokens(text)))
    found = parser.logic()
    parser.expect("end", "the end")
    return found


_LOGIC: Final[Mapping[str, Callable[[Expression, Expression], Expression]]] = {"AND": And, "OR": Or, "XOR": Xor}
_COMPARISONS: Final = frozenset({"=", "!=", "<>", "<", "<=", ">", ">="})


class _Parser:
    """Recursive descent, one method per level of binding."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def peek(self) -> tuple[str, str]:
        kind, text, _ = self.tokens[self.at]
        return kind, text

    def take(self) -> tuple[str, str]:
        token = self.peek()
        self.at += 1
        return token

    def takes(self, kind: str, *texts: str) -> str | None:
        found = self.peek()
        if found[0] == kind and found[1] in texts:
            self.at += 1
            return found[1]
        return None

    def expect(self, kind: str, text: str) -> None:
        if self.takes(kind, text) is None:
            raise self.wrong(f"{text!r}" if kind != "end" else "an operator or the end")

    def wrong(self, wanted: str) -> CesqlError:
        _, text, place = self.tokens[self.at]
        return CesqlError(f"character {place}: wants {wanted}, not {text!r:.40}")

    def logic(self) -> Expression:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.wrong(f"at most {_MAX_DEPTH} levels of nesting")
        left = self.comparison()
        while word := self.takes("word", "AND", "OR", "XOR"):
            left = _LOGIC[word](left, self.comparison())
        self.depth -= 1
        return left

    def comparison(self) -> Expression:
        return self.chain(_COMPARISONS, self.sum)

    def sum(self) -> Expression:
        return self.chain({"+", "-"}, self.product)

    def product(self) -> Expression:
        return self.chain({"*", "/", "%"}, self.suffixed)

    def chain(self, signs: set[str] | frozenset[str], below: Callable[[], Expression]) -> Expression:
        left = below()
        while sign := self.takes("sign", *signs):
            left = Binary(sign, left, below())
        return left

    def suffixed(self) -> Expression:
        left = self.unary()
        while True:
            start = self.at
            negated = self.takes("word", "NOT") is not None
            if self.takes("word", "LIKE"):
                left = Like(left, like_form(self.string()), negated)
            elif self.takes("word", "IN"):
                left = In(left, self.listed(), negated)
            else:
                self.at = start
                return left

    def unary(self) -> Expression:
        if self.takes("word", "NOT"):
            return Not(self.nested_unary())
        if self.takes("sign", "-"):
            if self.peek()[0] == "number":
                return Literal(self.number(negative=True))
            return Negate(self.nested_unary())
        return self.atom()

    def nested_unary(self) -> Expression:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self.wrong(f"at most {_MAX_DEPTH} levels of nesting")
        inner = self.unary()
        self.depth -= 1
        return inner

    def atom(self) -> Expression:
        kind, text = self.peek()
        if self.takes("sign", "("):
            inner = self.logic()
            self.expect("sign", ")")
            return inner
        if self.takes("word", "EXISTS"):
            return Exists(self.name())
        if kind == "name" and self.tokens[self.at + 1][:2] == ("sign", "("):
            self.at += 1
            return Call(text.upper(), self.listed(may_be_empty=True))
        return Attribute(self.name()) if kind == "name" else Literal(self.literal())

    def literal(self) -> Value:
        if word := self.takes("word", "TRUE", "FALSE"):
            return word == "TRUE"
        kind, _ = self.peek()
        if kind not in {"string", "number"}:
            raise self.wrong("an attribute (letters and digits), a literal, a function or (")
        return self.string() if kind == "string" else self.number(negative=False)

    def name(self) -> str:
        kind, text = self.peek()
        if kind != "name" or "_" in text:
            raise self.wrong("an attribute (letters and digits), a literal, a function or (")
        self.at += 1
        return text.lower()

    def number(self, *, negative: bool) -> int:
        found = int(self.peek()[1]) * (-1 if negative else 1) if len(self.peek()[1]) < 12 else INT_MAX + 1  # noqa: PLR2004
        if not INT_MIN <= found <= INT_MAX:
            raise self.wrong("an integer of 32 bits")
        self.at += 1
        return found

    def string(self) -> str:
        kind, text = self.peek()
        if kind != "string":
            raise self.wrong("a string in quotes")
        self.at += 1
        quote = text[0]
        return text[1:-1].replace(f"\\{quote}", quote)

    def listed(self, *, may_be_empty: bool = False) -> tuple[Expression, ...]:
        self.expect("sign", "(")
        if may_be_empty and self.takes("sign", ")"):
            return ()
        found = [self.logic()]
        while self.takes("sign", ","):
            found.append(self.logic())
        self.expect("sign", ")")
        return tuple(found)
