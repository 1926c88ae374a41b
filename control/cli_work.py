"""Commands about work: invocations, redrive, replay."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from control.asked import DeadReason, Resolution
from control.cli_base import AsJson, Limit, Since, Until, ask, gather, group, instant_of, means_of, no, now_ms, quoted, wait_for
from control.client import Api, Means, reached
from control.output import Column, Meter, Output, fields, plain, table
from schemas.errors import Invalid
from schemas.invocation import State

invocations = group("Work: one event for one subscription.")

INVOCATION_COLUMNS: tuple[Column, ...] = (
    ("queued", "created_at"),
    ("id", "id"),
    ("subscription", "subscription"),
    ("agent", "agent"),
    ("state", "state"),
    ("reason", "reason"),
    ("attempts", lambda row: row["attempts"] if isinstance(row.get("attempts"), int) else len(row.get("attempts") or [])),
    ("event", "event_id"),
)
ATTEMPT_COLUMNS: tuple[Column, ...] = (
    ("#", "number"),
    ("started", "started_at"),
    ("outcome", "outcome"),
    ("status", "status"),
    ("ms", "duration_ms"),
    ("tokens", "tokens"),
    ("error", "error"),
)
POLL_PAUSE_S = 0.3

OfState = Annotated[State | None, typer.Option("--state", help="In this state only.")]
OfAgent = Annotated[str | None, typer.Option("--agent", help="Of this agent only.")]
OfSubscription = Annotated[str | None, typer.Option("--subscription", "-s", help="Of this subscription only.")]
OfEvent = Annotated[str | None, typer.Option("--event", help="Of this event only.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count what would be done; do nothing.")]


@invocations.command("list")
def list_invocations(
    ctx: typer.Context,
    *,
    state: OfState = None,
    agent: OfAgent = None,
    subscription: OfSubscription = None,
    event: OfEvent = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """The latest invocations."""
    query = query_of(state=state, agent=agent, subscription=subscription, event=event, since=since, until=until)
    found = gather(ctx, "/v1/invocations", query, limit=limit)
    Output(as_json=as_json).items(found, INVOCATION_COLUMNS, none="no such invocations")


@invocations.command("show")
def show_invocation(
    ctx: typer.Context, invocation: Annotated[str, typer.Argument(metavar="ID")], *, as_json: AsJson = False
) -> None:
    """One invocation with its attempts and the agent's answers."""
    found = ask(ctx, "GET", f"/v1/invocations/{quoted(invocation)}")
    Output(as_json=as_json).document(found, lambda: invocation_shown(found))


@invocations.command("cancel")
def cancel_invocation(
    ctx: typer.Context,
    invocation: Annotated[str, typer.Argument(metavar="ID")],
    *,
    force: Annotated[bool, typer.Option("--force", help="End a run here and now, without asking its agent.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say whether it could be; do nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """End an invocation that is queued or waits; ask one that runs to stop, by its next heartbeat.  Redrive undoes it."""
    query = {"dry_run": dry_run or None, "force": force or None}
    answer = ask(ctx, "POST", f"/v1/invocations/{quoted(invocation)}/cancel", query=query)
    become = "asked to stop" if answer["state"] in {State.RUNNING, State.ACCEPTED} else "canceled"
    Output(as_json=as_json).document(answer, lambda: Text(f"{invocation} {'would be' if dry_run else 'is'} {become}"))


@invocations.command("resolve")
def resolve_invocation(
    ctx: typer.Context,
    invocation: Annotated[str, typer.Argument(metavar="ID")],
    outcome: Annotated[Resolution, typer.Argument(help="How it ended, or `again` for another try.")],
    *,
    note: Annotated[str, typer.Option("--note", help="Why, for those who read the trace.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say what becomes of an invocation that waits for a person (`needs_human`, or a stalled run that is escalated)."""
    answer = ask(ctx, "POST", f"/v1/invocations/{quoted(invocation)}/resolve", body={"outcome": outcome.value, "note": note})
    Output(as_json=as_json).document(answer, lambda: Text(f"{invocation} is {answer['state']}"))


def invocation_shown(found: Mapping[str, Any]) -> RenderableType:
    """An invocation for people."""
    attempts = found.get("attempts") if isinstance(found.get("attempts"), list) else []
    head = fields({name: value for name, value in found.items() if name not in {"attempts", "run"}})
    parts: list[RenderableType] = [head, Text("\nattempts", style="bold"), table(attempts or [], ATTEMPT_COLUMNS)]
    if isinstance(run := found.get("run"), Mapping):
        parts += [
            Text("\nrun", style="bold"),
            fields({name: value for name, value in run.items() if value not in (None, "", 0)}),
        ]
    return Group(*parts)


def redrive(
    ctx: typer.Context,
    invocation: Annotated[str | None, typer.Argument(metavar="[ID]", help="One invocation: inv_…; else by query.")] = None,
    *,
    state: Annotated[State, typer.Option("--state", help="By query: in this state.")] = State.BURIED,
    reason: Annotated[DeadReason | None, typer.Option("--reason", help="By query: buried for this.")] = None,
    agent: OfAgent = None,
    subscription: OfSubscription = None,
    event: OfEvent = None,
    since: Since = None,
    until: Until = None,
    every: Annotated[bool, typer.Option("--all", help="By query: yes, all of that state.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Try ended invocations again, under the same ids, with a new budget of retries."""
    out = Output(as_json=as_json)
    if invocation is not None:
        answer = ask(ctx, "POST", f"/v1/invocations/{quoted(invocation)}/redrive", query={"dry_run": dry_run or None})
        out.document(answer, lambda: Text(f"{invocation} {'would be' if dry_run else 'is'} tried again"))
        return
    narrowed = query_of(agent=agent, subscription=subscription, event=event, since=since, until=until)
    if reason is not None:
        narrowed["reason"] = reason.value
    if not narrowed and not every:
        raise Invalid("say which: an ID, or --reason, --agent, --subscription, --event, --since, --until; or --all")
    run_by_query(ctx, out, "/v1/redrives", {**narrowed, "state": state.value}, dry_run=dry_run, verb="redriven")


def replay(
    ctx: typer.Context,
    event: Annotated[str | None, typer.Argument(metavar="[EVENT]", help="One event: evt_…; else by query.")] = None,
    *,
    subscription: Annotated[str | None, typer.Option("--subscription", "-s", help="For this subscription only.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="Events of this source.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Events of this type.")] = None,
    since: Since = None,
    until: Until = None,
    every: Annotated[bool, typer.Option("--all", help="Yes, all kept events.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Plan kept events anew with today's rules; what they give are new invocations."""
    now = now_ms()
    narrowed = {
        "event": event,
        "source": source,
        "type": type_,
        "since": instant_of(since, now_ms=now),
        "until": instant_of(until, now_ms=now),
    }
    query = {name: value for name, value in narrowed.items() if value is not None}
    if not query and not every:
        raise Invalid("say which: an EVENT, or --source, --type, --since, --until; or --all")
    if subscription is not None:
        query["subscription"] = subscription
    run_by_query(ctx, Output(as_json=as_json), "/v1/replays", query, dry_run=dry_run, verb="replayed")


def query_of(
    *,
    state: State | None = None,
    reason: DeadReason | None = None,
    agent: str | None,
    subscription: str | None,
    event: str | None,
    since: str | None,
    until: str | None,
) -> dict[str, Any]:
    """What narrows a list or an act to some of the work, as the API asks for it."""
    now = now_ms()
    found = {
        "state": state.value if state else None,
        "reason": reason.value if reason else None,
        "agent": agent,
        "subscription": subscription,
        "event": event,
        "since": instant_of(since, now_ms=now),
        "until": instant_of(until, now_ms=now),
    }
    return {name: value for name, value in found.items() if value is not None}


def run_by_query(ctx: typer.Context, out: Output, path: str, query: dict[str, Any], *, dry_run: bool, verb: str) -> None:
    """Begin an act by query and follow it, with a progress bar on a terminal."""
    with out.progress(verb) as meter:
        result = wait_for(_followed(means_of(ctx), path, {**query, "dry_run": dry_run}, meter))
    out.document(result, lambda: _result_shown(result, verb=verb, dry_run=dry_run))
    if result.get("state") == "failed":
        out.say(f"it failed: {plain(result.get('reason'))}")
        raise no()


async def _followed(means: Means, path: str, body: dict[str, Any], meter: Meter) -> dict[str, Any]:
    async with reached(means) as there:
        progress: dict[str, Any] = await there.call("POST", path, body=body)
        while progress.get("state") == "running":
            meter(int(progress.get("done") or 0), int(progress.get("total") or 0))
            await asyncio.sleep(POLL_PAUSE_S)
            progress = await _progress(there, path, progress["id"])
        meter(int(progress.get("done") or 0), int(progress.get("total") or 0))
        return progress


async def _progress(there: Api, path: str, progress_id: str) -> dict[str, Any]:
    found: dict[str, Any] = await there.call("GET", f"{path}/{progress_id}")
    return found


def _result_shown(result: Mapping[str, Any], *, verb: str, dry_run: bool) -> Text:
    number = result.get("total") if dry_run else result.get("done")
    return Text(f"{number or 0} {'would be ' if dry_run else ''}{verb}")
