"""Commands about dead letters: list, show, counts, purge; `redrive` tries them again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from control.asked import DeadReason
from control.cli_base import AsJson, Limit, Since, Until, ask, gather, group, quoted
from control.cli_work import DryRun, OfAgent, OfEvent, OfSubscription, query_of, run_by_query
from control.output import Column, Output, fields, plain, table
from schemas.errors import Invalid

dead = group("Dead letters: work that was given up, and why.")

LETTER_COLUMNS: tuple[Column, ...] = (
    ("buried", "buried_at"),
    ("id", "id"),
    ("subscription", "subscription"),
    ("agent", "agent"),
    ("kind", "kind"),
    ("reason", "reason"),
    ("attempts", "attempts"),
    ("type", "type"),
)
COUNT_COLUMNS: tuple[Column, ...] = (("kind", "kind"), ("agent", "agent"), ("count", "count"), ("oldest", "oldest_at"))
OfReason = Annotated[DeadReason | None, typer.Option("--reason", help="Buried for this only.")]


@dead.command("list")
def list_dead(
    ctx: typer.Context,
    *,
    reason: OfReason = None,
    agent: OfAgent = None,
    subscription: OfSubscription = None,
    event: OfEvent = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """The latest dead letters."""
    query = query_of(reason=reason, agent=agent, subscription=subscription, event=event, since=since, until=until)
    found = gather(ctx, "/v1/dead-letters", query, limit=limit)
    Output(as_json=as_json).items(found, LETTER_COLUMNS, none="no dead letters")


@dead.command("counts")
def counts(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """How many there are, by reason and agent."""
    found = ask(ctx, "GET", "/v1/dead-letters/counts")
    Output(as_json=as_json).items(found["items"], COUNT_COLUMNS, none="no dead letters")


@dead.command("show")
def show_dead(ctx: typer.Context, invocation: Annotated[str, typer.Argument(metavar="ID")], *, as_json: AsJson = False) -> None:
    """Why it was given up: each attempt with the bytes that were sent and received, headers without secrets."""
    found = ask(ctx, "GET", f"/v1/dead-letters/{quoted(invocation)}")
    Output(as_json=as_json).document(found, lambda: letter_shown(found))


@dead.command("purge")
def purge(
    ctx: typer.Context,
    invocation: Annotated[str | None, typer.Argument(metavar="[ID]", help="One dead letter: inv_…; else by query.")] = None,
    *,
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="By query: buried before then: 30d, or an instant.")
    ] = None,
    reason: OfReason = None,
    agent: OfAgent = None,
    subscription: OfSubscription = None,
    event: OfEvent = None,
    since: Since = None,
    every: Annotated[bool, typer.Option("--all", help="By query: yes, all dead letters.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Forget what dead letters held; that they were there, and why, stays with their events."""
    out = Output(as_json=as_json)
    if invocation is not None:
        answer = ask(ctx, "DELETE", f"/v1/dead-letters/{quoted(invocation)}", query={"dry_run": dry_run or None})
        out.document(answer, lambda: Text(f"{invocation} {'would be' if dry_run else 'is'} purged"))
        return
    narrowed = query_of(reason=reason, agent=agent, subscription=subscription, event=event, since=since, until=older_than)
    if not narrowed and not every:
        raise Invalid("say which: an ID, or --older-than, --reason, --agent, --subscription, --event, --since; or --all")
    run_by_query(ctx, out, "/v1/purges", narrowed, dry_run=dry_run, verb="purged")


def letter_shown(found: Mapping[str, Any]) -> RenderableType:
    """A dead letter for people: the head, then each attempt as it was on the wire."""
    head = fields({name: value for name, value in found.items() if name not in {"exchanges", "fallbacks"}})
    falls = found.get("fallbacks") or []
    parts: list[RenderableType] = [head]
    if falls:
        columns: tuple[Column, ...] = (("at", "at"), ("fallback", "kind"), ("agent", "agent"), ("reason", "reason"))
        parts += [Text("\nfallbacks", style="bold"), table(falls, columns)]
    for exchange in found.get("exchanges") or []:
        parts += _exchange(exchange)
    return Group(*parts)


def _exchange(found: Mapping[str, Any]) -> Iterator[Text]:
    title = f"\nattempt {found.get('attempt')}  {plain(found.get('outcome') or 'under way')}  {found.get('started_at')}"
    yield Text(title, style="bold")
    if found.get("error"):
        yield Text(f"  {plain(found['error'])}", style="red")
    if found.get("url"):
        yield Text(f"> {plain(found['method'])} {plain(found['url'])}")
    yield from (_header(">", header) for header in found.get("headers") or [])
    yield Text(f">\n> {plain(found['body'])}" if found.get("is_kept") else "> (the body is not kept)", style="dim")
    if found.get("status"):
        yield Text(f"< HTTP {found['status']}")
    yield from (_header("<", header) for header in found.get("answer_headers") or [])
    if found.get("answer"):
        yield Text(f"<\n< {plain(found['answer'])}", style="dim")


def _header(mark: str, header: Mapping[str, Any]) -> Text:
    return Text(f"{mark} {plain(header.get('name'))}: {plain(header.get('value'))}")
