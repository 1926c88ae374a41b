"""Commands about what came in: events, trace, explain, listen."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Group, RenderableType
from rich.text import Text

from control.cli_base import AsJson, Limit, Since, Until, ask, gather, group, instant_of, means_of, no, now_ms, quoted, wait_for
from control.client import Api, Means, http_client, pages, reached
from control.explained import explained, why_not
from control.output import Column, Output, fields, plain
from control.timeline import timeline
from schemas.errors import AgentFailed
from schemas.times import iso, ms_of

if TYPE_CHECKING:
    from egress.client import Client

events = group("What came in.")

EventId = Annotated[str, typer.Argument(metavar="EVENT", help="Its id: evt_…")]


def became(event: Mapping[str, Any]) -> str:
    """What became of an event, in a word: `unmatched`, `folded`, `2 done`, `1 done, 1 waiting`."""
    states: Mapping[str, int] = event.get("states") or {}
    if not states:
        return "folded" if event.get("invocations") else "unmatched"
    return ", ".join(f"{number} {state}" for state, number in sorted(states.items()))


EVENT_COLUMNS: tuple[Column, ...] = (
    ("received", "receivedtime"),
    ("id", "id"),
    ("type", "type"),
    ("source", "source"),
    ("became", became),
    ("summary", "summary"),
)
POLL_PAUSE_S = 0.5
NEAREST_SHOWN = 5
OVERLAP_MS = 5_000  # events become visible in the order of their admission, a little after they were received


@events.command("list")
def list_events(
    ctx: typer.Context,
    *,
    since: Since = None,
    until: Until = None,
    source: Annotated[str | None, typer.Option("--source", help="Of this source only.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Of this type only.")] = None,
    subject: Annotated[str | None, typer.Option("--subject", help="About this thing only.")] = None,
    outcome: Annotated[str | None, typer.Option("--outcome", help="That ended so only: unmatched, done, buried, …")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """The latest events, and what became of them."""
    now = now_ms()
    query = {
        "since": instant_of(since, now_ms=now),
        "until": instant_of(until, now_ms=now),
        "source": source,
        "type": type_,
        "subject": subject,
        "outcome": outcome,
    }
    Output(as_json=as_json).items(gather(ctx, "/v1/events", query, limit=limit), EVENT_COLUMNS, none="no such events")


@events.command("show")
def show_event(ctx: typer.Context, event: EventId, *, as_json: AsJson = False) -> None:
    """One event, whole, as patterns and views see it."""
    found = ask(ctx, "GET", f"/v1/events/{quoted(event)}")
    Output(as_json=as_json).document(found, lambda: event_shown(found))


def event_shown(event: Mapping[str, Any]) -> RenderableType:
    """An event for people: its attributes, then its data."""
    data = orjson.dumps(event.get("data"), option=orjson.OPT_INDENT_2).decode()
    shown = "\n".join(plain(line) for line in data.splitlines())
    return Group(
        fields({name: value for name, value in event.items() if name != "data"}), Text("\ndata", style="bold"), Text(shown)
    )


def trace(ctx: typer.Context, event: EventId, *, as_json: AsJson = False) -> None:
    """Every step of an event with its time, and what became of it at each agent."""
    found = ask(ctx, "GET", f"/v1/events/{quoted(event)}/trace")
    Output(as_json=as_json).document(found, lambda: timeline(found))


def explain(
    ctx: typer.Context,
    event: EventId,
    subscription: Annotated[str | None, typer.Argument(metavar="[SUBSCRIPTION]", help="This one; default: all.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Why each subscription did or did not match an event, by field: matches first, then the nearest misses.

    With SUBSCRIPTION, exit 1 says that it did not.
    """
    answer = ask(ctx, "GET", f"/v1/events/{quoted(event)}/explain", query={"subscription": subscription})
    verdicts = answer["items"]
    out = Output(as_json=as_json)
    if as_json:
        for verdict in verdicts:
            out.json_line(verdict)
    elif verdicts:
        out.show(verdicts_shown(verdicts))
    else:
        out.say("there are no subscriptions")
    if subscription is not None and not any(verdict.get("matched") for verdict in verdicts):
        raise no()


def verdicts_shown(verdicts: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Verdicts for people: what matched and the nearest misses in full, of the others one line each."""
    misses = [verdict for verdict in verdicts if not verdict.get("matched")]
    far = [verdict for verdict in misses[NEAREST_SHOWN:] if len(verdicts) > 1]
    shown: list[RenderableType] = [explained(verdict) for verdict in verdicts if verdict not in far]
    shown += [Text(f"{plain(verdict.get('subscription'))}: did not match: {why_not(verdict)}", style="dim") for verdict in far]
    return Group(*shown)


def listen(
    ctx: typer.Context,
    *,
    forward: Annotated[str | None, typer.Option("--forward", help="Post each event, as JSON, to this URL too.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="Of this source only.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="From then on; default: from now on.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Stop after so many.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print events as they come, until stopped; forward them to a local URL."""
    out = Output(as_json=as_json)
    begin = instant_of(since, now_ms=now_ms()) or iso(now_ms())
    wait_for(_listen(means_of(ctx), out, begin=begin, source=source, forward=forward, limit=limit))


async def _listen(means: Means, out: Output, *, begin: str, source: str | None, forward: str | None, limit: int | None) -> None:
    told = 0
    tail = Tail(begin, source)
    async with reached(means) as there, http_client() as client:
        out.say("listening; Ctrl-C ends it")
        while limit is None or told < limit:
            for event in await tail.new_events(there):
                _tell(out, event)
                if forward is not None:
                    await _forward(client, out, there, event, url=forward)
                told += 1
                if limit is not None and told >= limit:
                    return
            await asyncio.sleep(POLL_PAUSE_S)


class Tail:
    """The end of the list of events, each given once."""

    def __init__(self, begin: str, source: str | None) -> None:
        """Follow the events received at `begin` or later, of `source` where it is given."""
        self._begin, self._source = begin, source
        self._told: dict[str, int] = {}

    async def new_events(self, there: Api) -> list[dict[str, Any]]:
        """The events since the last call, oldest first."""
        query = {"since": self._begin, "source": self._source}
        found = [event async for event in pages(there, "/v1/events", query, limit=None) if event["id"] not in self._told]
        found.sort(key=lambda event: event["receivedtime"])
        self._remember(found)
        return found

    def _remember(self, found: list[dict[str, Any]]) -> None:
        self._told.update((event["id"], ms_of(event["receivedtime"])) for event in found)
        if not found:
            return
        border = max(self._told.values()) - OVERLAP_MS
        if border > ms_of(self._begin):
            self._begin = iso(border)
            self._told = {event: at for event, at in self._told.items() if at >= border}


def _tell(out: Output, event: Mapping[str, Any]) -> None:
    if out.as_json:
        out.json_line(event)
    else:
        out.show(
            Text("  ".join(plain(event.get(name)) for name in ("receivedtime", "id", "type", "summary") if event.get(name)))
        )


async def _forward(client: Client, out: Output, there: Api, event: Mapping[str, Any], *, url: str) -> None:
    whole = await there.call("GET", f"/v1/events/{event['id']}")
    try:
        answer = await client.request(
            "POST",
            url,
            headers={"content-type": "application/cloudevents+json"},
            body=orjson.dumps(whole),
            allow_private=True,
            allow_http=True,
        )
    except AgentFailed as exc:
        out.say(f"{event['id']} → {url}: {exc.detail}")
    else:
        out.say(f"{event['id']} → {url}: {answer.status}")
