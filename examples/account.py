"""Whether every accepted webhook is accounted for: what was posted, what the API tells and what the agents wrote, side by side."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from examples.mix import DUPLICATE, EXPECTED, Post

ENDS = {"done", "declined", "buried", "superseded", "expired", "canceled"}


def is_success(status: int) -> bool:
    """Any 2xx."""
    return HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES


@dataclass
class Posted:
    """One post and its answer."""

    post: Post
    status: int
    code: str
    took_s: float

    @property
    def is_accepted(self) -> bool:
        return is_success(self.status)


@dataclass
class Ledgers:
    """What is compared.  `bodies` gives the digest of each event's kept bytes."""

    posted: list[Posted]
    events: list[dict[str, Any]] = field(default_factory=list)
    invocations: list[dict[str, Any]] = field(default_factory=list)
    bodies: dict[str, str] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)

    @property
    def accepted(self) -> list[Posted]:
        return [posted for posted in self.posted if posted.is_accepted]

    @property
    def late(self) -> int:
        """How many deliveries came after a newer one about the same thing."""
        keys = Counter(event["partitionkey"] for event in self.events)
        return sum(number - 1 for number in keys.values())

    @property
    def expected_events(self) -> int:
        return len({_identity(posted.post) for posted in self.accepted})


def _identity(post: Post) -> tuple[str, str]:
    return post.delivery.source, hashlib.sha256(post.delivery.body).hexdigest()


def discrepancies(ledgers: Ledgers) -> list[str]:
    """Everything that does not add up; nothing, where every accepted event is accounted for."""
    return [*_answers(ledgers), *_events(ledgers), *_ends(ledgers), *_deliveries(ledgers), *_order(ledgers)]


def _answers(ledgers: Ledgers) -> list[str]:
    found = []
    for meaning, expected in EXPECTED.items():
        got = Counter(p.status for p in ledgers.posted if p.post.meaning == meaning)
        wrong = {status: n for status, n in got.items() if (200 if is_success(status) else status) != expected}
        if wrong:
            found.append(f"{meaning}: {expected} was expected, and {wrong} came (status: how often)")
    return found


def _events(ledgers: Ledgers) -> list[str]:
    found = []
    duplicates = sum(posted.post.meaning == DUPLICATE for posted in ledgers.accepted)
    left = len(ledgers.accepted) - duplicates
    if left != len(ledgers.events):
        found.append(
            f"{len(ledgers.accepted)} accepted less {duplicates} duplicates are {left}, but {len(ledgers.events)} events are kept"
        )
    sent = Counter({_identity(posted.post): 1 for posted in ledgers.accepted})
    kept = Counter((event["source"], ledgers.bodies[event["id"]]) for event in ledgers.events)
    for source, digest in (sent - kept).elements():
        found.append(f"a body of {source} was accepted ({digest[:12]}…) and is no event")
    for source, digest in (kept - sent).elements():
        found.append(f"an event of {source} ({digest[:12]}…) is there once too often: nobody sent it, or not so often")
    return found


def _ends(ledgers: Ledgers) -> list[str]:
    found = []
    for event in ledgers.events:
        states = event["states"]
        if sum(states.values()) != event["invocations"] or set(states) - ENDS:
            found.append(f"{event['id']} ({event['type']}) has not ended: {states}")
    found += [f"{i['id']} ended {i['state']}: {i['reason']}" for i in ledgers.invocations if i["state"] != "done"]
    counted = sum(event["invocations"] for event in ledgers.events)
    if counted != len(ledgers.invocations):
        found.append(f"the events count {counted} invocations, the list has {len(ledgers.invocations)}")
    return found


def _deliveries(ledgers: Ledgers) -> list[str]:
    found = [f"an agent refused a signature: {call}" for call in ledgers.calls if "forged" in call]
    calls: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for call in ledgers.calls:
        if "forged" not in call:
            calls[call["event"], call["subscription"]].append(call)
    for invocation in ledgers.invocations:
        pair = invocation["event_id"], invocation["subscription"]
        took = calls.pop(pair, [])
        ids = {call["invocation"] for call in took}
        if not any(is_success(call["status"]) for call in took):
            found.append(f"{invocation['id']} is called done, and no agent took it")
        if ids - {invocation["id"]}:
            found.append(f"{pair} was delivered under {sorted(ids)}, not under {invocation['id']} alone")
    return [*found, *(f"an agent was called for {pair}, of which no invocation is there" for pair in calls)]


def _order(ledgers: Ledgers) -> list[str]:
    """Of one thing's events, each is delivered before the next one's first call, in the order in which we received them."""
    received = {event["id"]: event["receivedtime"] for event in ledgers.events}
    lanes: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for call in sorted((call for call in ledgers.calls if "forged" not in call), key=lambda call: call["start"]):
        lanes[call["subscription"], call["ordering_key"]].append(call)
    found = []
    for lane, calls in lanes.items():
        events = [call["event"] for call in calls]
        if events != sorted(events, key=lambda event: received[event]):
            found.append(f"{lane} was called out of order: {events}")
    return found
