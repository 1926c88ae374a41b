"""What all commands share: the group that turns errors into exit codes, options, and how an input is read."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

import orjson
import typer
from typer.core import TyperGroup

from control.client import Means, pages, reached
from control.exits import NO, exit_code
from control.output import Output
from control.problems import Flawed
from schemas.errors import Invalid, NightbellError
from schemas.times import iso, ms_of, seconds_of

RUN, CONFIGURED, LOOK, TRY, WORK, ACCESS = (
    "Run",
    "What is configured",
    "What came, and what became of it",
    "Try out",
    "Work again",
    "Access",
)

AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout (lists: JSON lines), and nothing else there.")
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")]
Since = Annotated[str | None, typer.Option("--since", help="From then on: an instant (ISO 8601), or a span ago, as in 2h.")]
Until = Annotated[str | None, typer.Option("--until", help="Up to then: an instant (ISO 8601), or a span ago, as in 5m.")]

_T = TypeVar("_T")
_INTERRUPTED = 130


_ORDER = (
    *("serve", "apply", "migrate", "check"),
    *("sources", "agents", "subscriptions", "providers"),
    *("events", "facts", "context", "trace", "explain", "listen"),
    *("match", "curate", "send", "import-rules"),
    *("invocations", "redrive", "replay"),
    *("keys", "secrets"),
)


class Commands(TyperGroup):
    """The root of the command line: an error of the tree becomes its message on stderr and its family's exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands' names, in the order in which a newcomer needs them."""
        found = super().list_commands(ctx)
        return sorted(found, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except NightbellError as exc:
            told(exc)
            raise typer.Exit(exit_code(type(exc))) from exc
        except KeyboardInterrupt as exc:
            raise typer.Exit(_INTERRUPTED) from exc


def told(exc: NightbellError) -> None:
    """Say on stderr what went wrong."""
    out = Output()
    if isinstance(exc, Flawed):
        for flaw in exc.flaws:
            out.say(f"{flaw.place}: {flaw.message}" if flaw.place else flaw.message)
    else:
        for line in exc.detail.splitlines():  # of a configuration file: a flaw on each
            out.say(line)


def group(help_: str) -> typer.Typer:
    """A group of commands under one noun."""
    return typer.Typer(help=help_, no_args_is_help=True, rich_markup_mode=None)


def means_of(ctx: typer.Context) -> Means:
    """What this process gives its commands."""
    found: Means = ctx.find_root().obj
    return found


def wait_for(work: Coroutine[Any, Any, _T]) -> _T:
    """Run `work` to its end."""
    return asyncio.run(work)


def ask(
    ctx: typer.Context,
    method: str,
    path: str,
    *,
    query: dict[str, Any] | None = None,
    body: Any = None,
    is_reading: bool = False,
) -> Any:
    """One call of the API; one that reads (a GET, or `is_reading`) asks the embedded store where no server runs."""
    means = means_of(ctx)

    async def work() -> Any:
        async with reached(means, reading=is_reading or method == "GET") as there:
            return await there.call(method, path, query=query, body=body)

    return wait_for(work())


def gather(ctx: typer.Context, path: str, query: dict[str, Any], *, limit: int | None = None) -> list[dict[str, Any]]:
    """A list of the API, all pages of it up to `limit` items."""
    means = means_of(ctx)

    async def work() -> list[dict[str, Any]]:
        async with reached(means, reading=True) as there:
            return [item async for item in pages(there, path, query, limit=limit)]

    return wait_for(work())


def instant_of(text: str | None, *, now_ms: int, ahead: bool = False) -> str | None:
    """The instant that `text` names (ISO 8601), or that lies so long ago (`2h`), or `ahead`.  Raises `Invalid`."""
    if text is None:
        return None
    try:
        span_ms = int(seconds_of(text) * 1000)
    except ValueError:
        try:
            return iso(ms_of(text))
        except ValueError as exc:
            raise Invalid(f"{text!r} is neither an instant (2026-11-21T10:00:00Z) nor a span (2h)") from exc
    return iso(now_ms + span_ms if ahead else now_ms - span_ms)


def now_ms() -> int:
    """The wall clock, as the command line reads it."""
    return time.time_ns() // 1_000_000


def quoted(name: str) -> str:
    """`name` as one part of a path, whatever was typed."""
    return quote(name, safe="")


def no() -> typer.Exit:
    """The end of a command that ran, and whose answer is no."""
    return typer.Exit(NO)


def text_of(source: str) -> str:
    """The text of a file, or of stdin where `source` is `-`.  Raises `Invalid`."""
    return bytes_of(source).decode("utf-8", "surrogateescape")


def bytes_of(source: str) -> bytes:
    """The bytes of a file, or of stdin where `source` is `-`.  Raises `Invalid`."""
    if source == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as exc:
        raise Invalid(f"cannot read {source}: {exc.strerror}") from exc


def json_of(source: str, *, what: str) -> Any:
    """JSON given in place (it begins with `{` or `[`), as a file, or on stdin (`-`).  Raises `Invalid`."""
    text = source.encode() if source.lstrip()[:1] in {"{", "["} else bytes_of(source)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise Invalid(f"{what} is not JSON: {exc}") from exc


def json_lines(source: str) -> Iterator[tuple[int, Any, str]]:
    """The lines of a JSON-lines file: number, document, and, where it is none, what is wrong with it."""
    for number, line in enumerate(bytes_of(source).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield number, orjson.loads(line), ""
        except orjson.JSONDecodeError as exc:
            yield number, None, f"line {number} is not JSON: {exc}"
