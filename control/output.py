"""How a command speaks: one JSON document or tables on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import orjson
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

UNBOUND_WIDTH = 100_000  # a pipe has no width: lines are not broken for it
_MARKS = {"\n": "⏎", "\t": " "}

Column = tuple[str, str | Callable[[Mapping[str, Any]], Any]]
"""A column's heading, and the field that it shows or what computes it."""


class Meter(Protocol):
    """Somewhere to show how far something got."""

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        ...


def plain(value: Any) -> str:
    """`value` for people, on one line.  Outsiders wrote much of what is shown: control characters never reach the terminal."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return "".join(_MARKS.get(char, char if char.isprintable() else "·") for char in text)


class Output:
    """One command's voice."""

    def __init__(self, *, as_json: bool = False) -> None:
        """Speak JSON on stdout where `as_json`, else tables and lines."""
        self.as_json = as_json
        self._out = _console(sys.stdout)
        self._err = _console(sys.stderr)

    @property
    def is_lively(self) -> bool:
        """Whether somebody watches: colour and progress are for them alone."""
        return self._err.is_terminal

    def document(self, document: Any, shown: Callable[[], RenderableType]) -> None:
        """Give one document: as JSON, or as `shown` draws it."""
        if self.as_json:
            self.json_line(document)
        else:
            self.show(shown())

    def items(self, items: Iterable[Mapping[str, Any]], columns: Sequence[Column], *, none: str) -> int:
        """Give a list: JSON lines, or a table; `none` is said to people where it is empty.  The number of items."""
        if self.as_json:
            number = 0
            for item in items:
                self.json_line(item)
                number += 1
            return number
        rows = list(items)
        if rows:
            self.show(table(rows, columns))
        else:
            self.say(none)
        return len(rows)

    def json_line(self, document: Any) -> None:
        """Write one JSON document on a line of its own, at once."""
        sys.stdout.write(orjson.dumps(document, default=str).decode() + "\n")
        sys.stdout.flush()

    def show(self, drawn: RenderableType) -> None:
        """Write something drawn on stdout; with `--json` there is no place for it."""
        assert not self.as_json
        if self._out.is_terminal:
            self._out.print(drawn, highlight=False, markup=False)
            return
        with self._out.capture() as captured:
            self._out.print(drawn, highlight=False, markup=False)
        # Columns are padded to their width; a program that reads this has no use for the blanks at the ends.
        sys.stdout.write("\n".join(line.rstrip() for line in captured.get().split("\n")))

    def say(self, message: str, *, style: str = "") -> None:
        """Tell people something, on stderr."""
        self._err.print(Text(message, style=style), highlight=False, soft_wrap=True)

    def progress(self, title: str) -> AbstractContextManager[Meter]:
        """A bar on stderr while entered; where nobody watches, nothing."""
        if not self.is_lively:
            return nullcontext(_nowhere)
        return _Bar(self._err, title)


class _Bar:
    def __init__(self, console: Console, title: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
        )
        self._task = self._progress.add_task(title, total=None)

    def __enter__(self) -> Meter:
        self._progress.start()
        return self._move

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _move(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)


def _nowhere(done: int, total: int) -> None:
    del done, total


def _console(stream: Any) -> Console:
    is_terminal = stream.isatty()
    return Console(file=stream, width=None if is_terminal else UNBOUND_WIDTH, no_color=None if is_terminal else True)


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[Column]) -> Table:
    """A table of `rows`."""
    drawn = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for heading, _ in columns:
        drawn.add_column(heading, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(plain(_cell(row, shown))) for _, shown in columns))
    return drawn


def _cell(row: Mapping[str, Any], shown: str | Callable[[Mapping[str, Any]], Any]) -> Any:
    if callable(shown):
        return shown(row)
    found: Any = row
    for part in shown.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def fields(document: Mapping[str, Any]) -> Table:
    """A document's members, one a line; what is empty is left out."""
    drawn = Table(box=None, pad_edge=False, show_header=False, show_edge=False)
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in document.items():
        if value not in (None, "", [], {}):
            drawn.add_row(name, Text(plain(value)))
    return drawn
