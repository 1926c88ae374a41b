"""What the demo tells: tables of what became of all that was posted."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from statistics import quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from curator.tokens import default_counter
from examples.account import Ledgers, is_success
from examples.mix import DUPLICATE, EXPECTED

Refusals = Mapping[str, Sequence[Mapping[str, Any]]]


def show(console: Console, ledgers: Ledgers, refusals: Refusals) -> None:
    """Print all tables."""
    console.print(_sources(ledgers), "")
    console.print(_refused(ledgers), "")
    console.print(_operators_view(refusals), "")
    console.print(_subscriptions(ledgers), "")
    console.print(_sums(ledgers), "")
    console.print(_tokens(ledgers), "")
    console.print(_latency(ledgers), "")


def _table(title: str, *columns: str) -> Table:
    found = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        found.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    return found


def _sources(ledgers: Ledgers) -> Table:
    drawn = _table("What came in", "source", "posted", "accepted", "refused", "duplicates", "events", "matched", "unmatched")
    posted = Counter(p.post.delivery.source for p in ledgers.posted)
    accepted = Counter(p.post.delivery.source for p in ledgers.accepted)
    duplicates = Counter(p.post.delivery.source for p in ledgers.accepted if p.post.meaning == DUPLICATE)
    events = Counter(event["source"] for event in ledgers.events)
    matched = Counter(event["source"] for event in ledgers.events if event["invocations"])
    for source in sorted(posted):
        refused = posted[source] - accepted[source]
        figures = (posted, accepted, {source: refused}, duplicates, events, matched, {source: events[source] - matched[source]})
        drawn.add_row(source, *(str(figure[source]) for figure in figures))
    return drawn


def _refused(ledgers: Ledgers) -> Table:
    drawn = _table("What the vendors were answered", "sent", "how many", "HTTP", "code")
    found = Counter((p.post.meaning, p.status, p.code) for p in ledgers.posted)
    order = list(EXPECTED)
    for (meaning, status, code), number in sorted(found.items(), key=lambda item: (order.index(item[0][0]), item[0][1])):
        drawn.add_row(meaning, str(number), str(status), code or "accepted")
    return drawn


def _operators_view(refusals: Refusals) -> Table:
    drawn = _table(
        "Why they were refused, as `nightbell sources show` tells the operator alone (kept at a capped rate)",
        "source",
        "code",
        "step",
        "kept",
        "reason",
    )
    for source, shown in refusals.items():
        found = Counter((refusal["code"], refusal["step"], refusal["reason"]) for refusal in shown)
        for (code, step, reason), number in found.items():
            drawn.add_row(source, code, step, str(number), reason)
    for column, justify in zip(drawn.columns, ("left", "left", "left", "right", "left"), strict=True):
        column.justify = justify  # type: ignore[assignment]  # rich's own literals
    return drawn


def _calls(ledgers: Ledgers) -> list[dict[str, Any]]:
    return [call for call in ledgers.calls if "forged" not in call]


def _subscriptions(ledgers: Ledgers) -> Table:
    drawn = _table(
        "What agents were woken for",
        "subscription → agent",
        "invocations",
        "done",
        "calls",
        "refused 503",
        "retried",
        "delivered",
    )
    calls = _calls(ledgers)
    for name, agent in sorted({(i["subscription"], i["agent"]) for i in ledgers.invocations}):
        mine = [i for i in ledgers.invocations if i["subscription"] == name]
        took = [call for call in calls if call["subscription"] == name]
        figures = (
            len(mine),
            sum(i["state"] == "done" for i in mine),
            len(took),
            sum(not is_success(call["status"]) for call in took),
            sum(call["attempt"] > 1 for call in took),
            sum(is_success(call["status"]) for call in took),
        )
        drawn.add_row(f"{name} → {agent}", *map(str, figures))
    return drawn


def _sums(ledgers: Ledgers) -> Table:
    drawn = _table("All in all", "", "")
    calls = _calls(ledgers)
    refused = len(ledgers.posted) - len(ledgers.accepted)
    delivered = [call for call in calls if is_success(call["status"])]
    for name, figure in (
        ("posted", len(ledgers.posted)),
        ("refused", refused),
        ("accepted (2xx)", len(ledgers.accepted)),
        ("duplicates folded", len(ledgers.accepted) - len(ledgers.events)),
        ("events kept", len(ledgers.events)),
        ("  came after a newer one of their thing, delivered in the order of arrival", ledgers.late),
        ("  matched", sum(bool(event["invocations"]) for event in ledgers.events)),
        ("  matched nothing", sum(not event["invocations"] for event in ledgers.events)),
        ("invocations", len(ledgers.invocations)),
        ("  delivered", len({call["invocation"] for call in delivered})),
        ("  retried", len({call["invocation"] for call in calls if call["attempt"] > 1})),
        ("  delivered again, under the same id", len(delivered) - len({call["invocation"] for call in delivered})),
    ):
        drawn.add_row(name, str(figure))
    return drawn


def _tokens(ledgers: Ledgers) -> Table:
    drawn = _table(
        "Tokens (o200k): the vendor's body against the context that the agent got",
        "subscription",
        "raw body",
        "context",
        "saved",
    )
    count = default_counter().count
    bodies = {hashlib.sha256(p.post.delivery.body).hexdigest(): p.post.delivery.body for p in ledgers.accepted}
    raw: Counter[str] = Counter()
    given: Counter[str] = Counter()
    for call in _calls(ledgers):
        if is_success(call["status"]):
            raw[call["subscription"]] += count(bodies[ledgers.bodies[call["event"]]].decode())
            context = json.dumps(call["context"], separators=(",", ":"), ensure_ascii=False)
            given[call["subscription"]] += count(context)
    for name in sorted(raw):
        drawn.add_row(name, f"{raw[name]:,}", f"{given[name]:,}", _saved(raw[name], given[name]))
    drawn.add_section()
    drawn.add_row("all", f"{raw.total():,}", f"{given.total():,}", _saved(raw.total(), given.total()), style="bold")
    return drawn


def _saved(raw: int, given: int) -> str:
    return f"{100 * (1 - given / raw):.1f} %" if raw else ""


def _latency(ledgers: Ledgers) -> Table:
    drawn = _table("Latency in ms, vendors posting as fast as 16 connections go", "", "p50", "p90", "p99", "most", "of")
    received = {event["id"]: datetime.fromisoformat(event["receivedtime"]).timestamp() for event in ledgers.events}
    first = [call for call in _calls(ledgers) if call["attempt"] == 1]
    drawn.add_row("post to 2xx, durable", *_percentiles(p.took_s for p in ledgers.accepted))
    drawn.add_row(
        "received to the agent's first call", *_percentiles(call["start"] - received[call["event"]] for call in first)
    )
    return drawn


def _percentiles(seconds: Iterable[float]) -> list[str]:
    found = sorted(max(0.0, value * 1000) for value in seconds)
    cuts = quantiles(found, n=100, method="inclusive")
    return [*(f"{cuts[at - 1]:.1f}" for at in (50, 90, 99)), f"{found[-1]:.1f}", str(len(found))]
