"""SQLAlchemy Core statements, compiled once per dialect to the driver's own text.

Result and bind types are not converted at run time: the tables' columns hold only what both drivers take and give as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import orjson
from sqlalchemy import BigInteger, ColumnElement, Dialect, Executable, Table, Text, bindparam
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import ARRAY, asyncpg
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType, TypeEngine

SQLITE, POSTGRES = "sqlite", "postgresql"
_DIALECTS: dict[str, Dialect] = {
    SQLITE: sqlite.dialect(paramstyle="qmark"),
    POSTGRES: asyncpg.dialect(paramstyle="numeric_dollar"),  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
}
Params: TypeAlias = Sequence[Any]


class Form(NamedTuple):
    """A statement in one dialect: its text, and how its parameters are arranged (None: as they come)."""

    text: str
    arrange: Callable[[Params], Params] | None


class Prepared:
    """A Core statement whose parameters are given as a tuple, in the order of `names`.

    Each name is a `bindparam(name)` (or `:name` of a `text`) of the statement; what else the statement binds has its value.
    """

    __slots__ = ("_forms", "_names", "_statement")

    def __init__(self, statement: Executable, *names: str) -> None:
        self._statement = statement
        self._names = names
        self._forms: dict[str, Form] = {}

    def form(self, dialect: str) -> Form:
        """The statement in that dialect, compiled at the first call.  Raises ValueError where the names do not fit it."""
        found = self._forms.get(dialect)
        if found is None:
            found = self._forms[dialect] = _compile(self._statement, self._names, dialect)
        return found


def _compile(statement: Executable, names: tuple[str, ...], dialect: str) -> Form:
    compiled = statement.compile(dialect=_DIALECTS[dialect])  # type: ignore[attr-defined]  # every Executable we make compiles
    assert isinstance(compiled, SQLCompiler)
    order = list(compiled.positiontup or ())
    missing = {name for name in order if compiled.binds[name].required} ^ set(names)
    if missing:
        raise ValueError(f"names {names} do not fit the parameters of {compiled.string}: see {sorted(missing)}")
    if tuple(order) == names and not any(_is_listed(compiled.binds[name]) for name in order):
        return Form(compiled.string, None)
    picks = [_pick(compiled.binds[name], names, dialect) for name in order]
    return Form(compiled.string, lambda params: [pick(params) for pick in picks])


def _is_listed(bind: BindParameter[Any]) -> bool:
    return isinstance(bind.type, ARRAY)


def _pick(bind: BindParameter[Any], names: tuple[str, ...], dialect: str) -> Callable[[Params], Any]:
    if not bind.required:
        value = bind.effective_value
        return lambda _: value
    place = names.index(bind.key)
    if dialect == SQLITE and _is_listed(bind):
        return lambda params: orjson.dumps(list(params[place])).decode()
    return lambda params: params[place]


class _Among(FunctionElement[Any]):
    inherit_cache = True
    type = NullType()  # a Boolean would be written `(…) = 1` for SQLite, which no index serves


@compiles(_Among, SQLITE)
def _among_sqlite(element: _Among, compiler: SQLCompiler, **words: Any) -> str:
    column, listed = (compiler.process(clause, **words) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({listed}))"  # noqa: S608 - text that the compiler made


@compiles(_Among, POSTGRES)
def _among_postgres(element: _Among, compiler: SQLCompiler, **words: Any) -> str:
    column, listed = (compiler.process(clause, **words) for clause in element.clauses)
    return f"{column} = ANY ({listed})"


def among(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Whether `column` is one of the list that is given as parameter `name` (text or whole numbers, by the column's type)."""
    return _Among(column, listed(name, column.type))


def listed(name: str, kind: TypeEngine[Any]) -> BindParameter[Any]:
    """A parameter that is a list of text or of whole numbers."""
    return bindparam(name, type_=ARRAY(BigInteger() if kind.python_type is int else Text()))


class database_ms(FunctionElement[int]):  # noqa: N801 - written like the SQL function that it is
    """The database's own clock, in ms since 1970: leases are judged by it alone."""

    inherit_cache = True
    type = BigInteger()


@compiles(database_ms, SQLITE)
def _now_sqlite(_element: database_ms, _compiler: SQLCompiler, **_words: Any) -> str:
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"


@compiles(database_ms, POSTGRES)
def _now_postgres(_element: database_ms, _compiler: SQLCompiler, **_words: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"


class Bulk:
    """An insert of many rows: one statement over arrays on PostgreSQL, statements of some rows each on SQLite.

    `then` is what stands behind the values in both dialects: `ON CONFLICT …`, `RETURNING …`; `on_postgres` stands there instead
    where the keys of a table that lies by day are others.
    """

    __slots__ = ("_columns", "_forms", "_then", "table", "width")

    def __init__(self, table: Table, *columns: str, then: str = "", on_postgres: str = "") -> None:
        self.table = table
        self._columns = columns
        self._then = {SQLITE: then, POSTGRES: on_postgres or then}
        self._forms: dict[tuple[str, int], str] = {}
        self.width = len(columns)

    def text(self, dialect: str, rows: int = 1) -> str:
        """The insert in that dialect.  On PostgreSQL its parameters are one array per column; on SQLite of `rows`."""
        found = self._forms.get((dialect, rows))
        if found is None:
            found = self._forms[dialect, rows] = self._written(dialect, rows)
        return found

    def _written(self, dialect: str, rows: int) -> str:
        quote = _DIALECTS[dialect].identifier_preparer.quote
        names = ", ".join(quote(name) for name in self._columns)
        if dialect == SQLITE:
            row = f"({', '.join('?' * self.width)})"
            values = f"VALUES {', '.join([row] * rows)}"
        else:
            kinds = [self.table.c[name].type.compile(_DIALECTS[dialect]) for name in self._columns]
            arrays = ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(kinds, 1))
            values = f"SELECT * FROM unnest({arrays})"  # noqa: S608 - names of our own, as below
        return f"INSERT INTO {quote(self.table.name)} ({names}) {values} {self._then[dialect]}".rstrip()
