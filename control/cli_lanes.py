"""Commands about lanes: which keys wait, and letting blocked ones go on."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from control.cli_base import AsJson, Limit, ask, gather, group, quoted
from control.cli_work import OfAgent, OfSubscription
from control.output import Column, Output
from schemas.errors import Invalid

lanes = group("Keys that have unfinished work: what waits, and behind what.")

LANE_COLUMNS: tuple[Column, ...] = (
    ("since", "since"),
    ("subscription", "subscription"),
    ("key", "ordering_key"),
    ("queued", "queued"),
    ("waits for", "waits_for"),
    ("head", "head"),
    ("state", "head_state"),
    ("attempts", "head_attempts"),
)


@lanes.command("list")
def list_lanes(
    ctx: typer.Context,
    *,
    blocked: Annotated[bool, typer.Option("--blocked", help="Only keys that wait for an operator.")] = False,
    agent: OfAgent = None,
    subscription: OfSubscription = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Lanes by name, each with its head."""
    wanted = {"agent": agent, "subscription": subscription, "blocked": blocked or None}
    query = {name: value for name, value in wanted.items() if value is not None}
    Output(as_json=as_json).items(gather(ctx, "/v1/lanes", query, limit=limit), LANE_COLUMNS, none="no such lanes")


@lanes.command("unblock")
def unblock(
    ctx: typer.Context,
    invocation: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The head of one lane: inv_…; else by query.")
    ] = None,
    *,
    skip: Annotated[bool, typer.Option("--skip", help="Bury the head; the key goes on behind it.")] = False,
    redrive: Annotated[bool, typer.Option("--redrive", help="Try the head again, with a new budget.")] = False,
    agent: OfAgent = None,
    subscription: OfSubscription = None,
    key: Annotated[str | None, typer.Option("--key", help="Of this ordering key only.")] = None,
    every: Annotated[bool, typer.Option("--all", help="By query: yes, all blocked keys.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would be done; do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let blocked keys go on: try what blocks them again, or skip it."""
    if skip == redrive:
        raise Invalid("say how: --redrive or --skip")
    out, how = Output(as_json=as_json), "skip" if skip else "redrive"
    if invocation is not None:
        path = f"/v1/invocations/{quoted(invocation)}/{how}"
        answer = ask(ctx, "POST", path, query={"dry_run": dry_run or None})
        out.document(answer, lambda: Text(f"{invocation} {'would be' if dry_run else 'is'} {_DONE[how]}"))
        return
    wanted = {"agent": agent, "subscription": subscription, "key": key}
    body: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    if not body and not every:
        raise Invalid("say which: an ID, or --agent, --subscription, --key; or --all")
    found = ask(ctx, "POST", "/v1/lanes/unblock", body={**body, "how": how, "dry_run": dry_run})
    out.document(found, lambda: Text(f"{found['count']} {'would be' if dry_run else 'were'} {_DONE[how]}"))


_DONE = {"skip": "skipped", "redrive": "tried again"}
