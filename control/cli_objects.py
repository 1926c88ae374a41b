"""Commands about what is configured: apply, sources, agents, subscriptions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from control.cli_base import AsJson, ask, gather, group, means_of, no, quoted, wait_for
from control.client import Means, reached
from control.output import Column, Output, fields, plain, table
from control.problems import Flawed
from schemas.errors import NotFound

if TYPE_CHECKING:  # at run time it is imported where it is used: most commands start faster without it
    from control.configfile import ConfigFile

sources = group("Inbound addresses: where vendors post.")
agents = group("Destinations: whom events wake.")
subscriptions = group("Which events wake which agent.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name.")]
Files = Annotated[list[Path], typer.Option("--file", "-f", help="A configuration file; may be given several times.")]
_MARKS = {"create": "+", "update": "~", "delete": "-", "drain": "-", "keep": "!"}
_STYLES = {"+": "green", "~": "yellow", "-": "red", "!": "yellow"}

SOURCE_COLUMNS: tuple[Column, ...] = (
    ("name", "name"),
    ("provider", "provider"),
    ("url", "url"),
    ("last event", "last_event_at"),
    ("refusals", "refusals_24h"),
)
AGENT_COLUMNS: tuple[Column, ...] = (
    ("name", "name"),
    ("protocol", "protocol"),
    ("url", "url"),
    ("max at once", "max_concurrency"),
    ("state", "state"),
)
SUBSCRIPTION_COLUMNS: tuple[Column, ...] = (
    ("name", "name"),
    ("agent", "agent"),
    ("order", "order"),
    ("state", "state"),
    ("generation", "generation"),
)


def apply(
    ctx: typer.Context,
    files: Files,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan; change nothing.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Remove what the file once made and no longer names.")] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Cancel what is queued for what is removed, instead of delivering it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the plan of changes and apply it; what is so already stays as it is."""
    from control.configfile import load_config

    means, out = means_of(ctx), Output(as_json=as_json)
    config = load_config(files, environment=means.environment, checks=means.checks())
    query = {"dry_run": dry_run or None, "prune": prune or None, "cancel": cancel or None}
    answer = wait_for(_applied(means, config, query))
    out.document(answer, lambda: plan_shown(answer))
    for name, secret in _made_secrets(answer):
        out.say(f"made the secret of agent {name}, shown this once: {secret}")


async def _applied(means: Means, config: ConfigFile, query: Mapping[str, bool | None]) -> Any:
    async with reached(means) as there:
        try:
            return await there.call("POST", "/v1/apply", query=query, body=config.document)
        except Flawed as exc:
            raise config.placed(exc.flaws) from exc


def _made_secrets(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
    return sorted((answer.get("secrets") or {}).items())


def plan_shown(answer: Mapping[str, Any]) -> RenderableType:
    """The plan of changes: each object with the fields that differ, then the sum."""
    changes = answer.get("changes") or []
    moved = [change for change in changes if change.get("action") != "unchanged"]
    lines = [line for change in moved for line in _change_lines(change)]
    verb = "to change" if answer.get("dry_run") else "changed"
    lines += [
        Text(f"warning: subscription {plain(each.get('subscription'))}: {plain(each.get('text'))}", style="yellow")
        for each in answer.get("warnings") or []
    ]
    return Group(*lines, Text(f"{len(moved)} {verb}, {len(changes) - len(moved)} as they were"))


def _change_lines(change: Mapping[str, Any]) -> list[Text]:
    mark = _MARKS.get(str(change.get("action")), "?")
    lines = [Text(f"{mark} {change.get('kind')} {plain(change.get('name'))}", style=_STYLES.get(mark, ""))]
    if mark == "~":
        lines += [
            Text(f"    {plain(field.get('field'))}: {plain(field.get('before'))} → {plain(field.get('after'))}")
            for field in change.get("diff") or []
        ]
    lines += [Text(f"    {plain(note)}") for note in change.get("notes") or []]
    return lines


@sources.command("list")
def list_sources(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """What is configured, and how it does."""
    _list(ctx, "sources", SOURCE_COLUMNS, as_json=as_json)


@agents.command("list")
def list_agents(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """What is configured, and how it does."""
    _list(ctx, "agents", AGENT_COLUMNS, as_json=as_json)


@subscriptions.command("list")
def list_subscriptions(ctx: typer.Context, *, as_json: AsJson = False) -> None:
    """What is configured, and how it does."""
    _list(ctx, "subscriptions", SUBSCRIPTION_COLUMNS, as_json=as_json)


def _list(ctx: typer.Context, kind: str, columns: tuple[Column, ...], *, as_json: bool) -> None:
    found = gather(ctx, f"/v1/{kind}", {})
    Output(as_json=as_json).items(found, columns, none=f"no {kind} yet: nightbell apply -f nightbell.yaml")


@sources.command("show")
def show_source(ctx: typer.Context, name: Name, *, as_json: AsJson = False) -> None:
    """The URL to paste, the steps on the vendor's side, and the last refusals with the step that failed."""
    found = with_setup(ask(ctx, "GET", f"/v1/sources/{quoted(name)}"))
    Output(as_json=as_json).document(found, lambda: source_shown(found))


@agents.command("show")
def show_agent(ctx: typer.Context, name: Name, *, as_json: AsJson = False) -> None:
    """One agent: its address, its limits, how it does."""
    found = ask(ctx, "GET", f"/v1/agents/{quoted(name)}")
    Output(as_json=as_json).document(found, lambda: fields(found))


@subscriptions.command("show")
def show_subscription(ctx: typer.Context, name: Name, *, as_json: AsJson = False) -> None:
    """One subscription: its pattern, its order, its context, how it does."""
    found = ask(ctx, "GET", f"/v1/subscriptions/{quoted(name)}")
    Output(as_json=as_json).document(found, lambda: fields(found))


@subscriptions.command("enable")
def enable_subscription(ctx: typer.Context, name: Name, *, as_json: AsJson = False) -> None:
    """Undo what a 410 of the agent did: the subscription goes back to the state that was asked for."""
    answer = ask(ctx, "POST", f"/v1/subscriptions/{quoted(name)}/enable")
    Output(as_json=as_json).document(answer, lambda: Text(f"{plain(answer.get('name'))} is {answer.get('state')}"))


def with_setup(source: Mapping[str, Any]) -> dict[str, Any]:
    """The source with the steps on the vendor's side, its URL filled in."""
    from ingest.catalogue import provider_named

    try:
        setup = provider_named(str(source.get("provider"))).file.setup
    except NotFound:  # a provider whose file this build lacks: the source is shown all the same
        return dict(source)
    url = str(source.get("url"))
    return {**source, "steps": [step.replace("{url}", url) for step in setup.steps], "secret_to_copy": setup.secret}


def source_shown(found: Mapping[str, Any]) -> RenderableType:
    """A source for people."""
    parts: list[RenderableType] = [fields({key: value for key, value in found.items() if key not in {"steps", "refusals"}})]
    if found.get("steps"):
        parts += [Text("\nOn the vendor's side", style="bold")]
        parts += [Text(f"  {number}. {plain(step)}") for number, step in enumerate(found["steps"], start=1)]
    parts.append(Text("\nLast refusals", style="bold"))
    columns: tuple[Column, ...] = (("at", "at"), ("code", "code"), ("step", "step"), ("reason", "reason"), ("from", "remote"))
    parts.append(table(found["refusals"], columns) if found.get("refusals") else Text("  none"))
    return Group(*parts)


@agents.command("ping")
def ping_agent(ctx: typer.Context, name: Name, *, as_json: AsJson = False) -> None:
    """Send a signed synthetic event and show each step."""
    answer = ask(ctx, "POST", f"/v1/agents/{quoted(name)}/ping")
    Output(as_json=as_json).document(answer, lambda: _steps_shown(answer))
    if not answer.get("ok"):
        raise no()


def _steps_shown(answer: Mapping[str, Any]) -> RenderableType:
    columns: tuple[Column, ...] = (
        ("step", "step"),
        ("", lambda step: "ok" if step.get("ok") else "FAILED"),
        ("ms", "elapsed_ms"),
        ("detail", "detail"),
    )
    return table(answer.get("steps") or [], columns)


@agents.command("rotate-secret")
def rotate_secret(ctx: typer.Context, name: Name, *, as_json: AsJson = False) -> None:
    """Make a new signing secret, shown once; the old one signs beside it until the next rotation."""
    answer = ask(ctx, "POST", f"/v1/agents/{quoted(name)}/rotate-secret")
    Output(as_json=as_json).document(answer, lambda: Text(str(answer.get("secret"))))
