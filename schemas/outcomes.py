"""Outcomes as events: what became of an invocation, for other agents to subscribe to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.event import Event, Flag
from schemas.ids import event_id
from schemas.times import ms_of

OWN = "nightbell"  # the source, the provider and the family of events that are our own
_ACCEPTED = "accepted"
_REPORTED = frozenset({"done", "declined", "needs_human", "failed", "unsure", "stalled"})
_COPIED = ("subject", "url")
_CAUSE = ("id", "source", "type", "kind", "subject", "actor", "url", "summary")


@dataclass(frozen=True, slots=True)
class Chain:
    """What an outcome goes back to: the event that began it all, and how many outcomes stand between, this one included."""

    root: str
    hops: int


def outcome_word(state: str, outcome: str, *, is_reported: bool) -> str:
    """The last part of the type `nightbell.invocation.…`: what the agent itself reported, else the state that it ended in."""
    if (is_reported and outcome in _REPORTED) or outcome == _ACCEPTED:
        return outcome
    return state


def outcome_event_id(team: str, invocation: str, word: str, attempts: int) -> str:
    """The id of an outcome's event: published again after a crash, it is the same event."""
    return event_id(team, OWN, f"{invocation}/{word}/{attempts}")


def next_chain(cause_id: str, cause: Mapping[str, Any] | None) -> Chain | None:
    """The chain of an outcome that the event `cause_id` led to.

    `cause` is the data of that event where it was an outcome itself, else None.  Gives None where such data has no chain to
    read: nobody knows how long it is.
    """
    if cause is None:
        return Chain(cause_id, 1)
    found = cause.get("chain")
    if not isinstance(found, dict) or not isinstance(found.get("hops"), int) or not isinstance(found.get("root"), str):
        return None
    return Chain(found["root"], found["hops"] + 1)


def outcome_data(told: Mapping[str, Any], cause: Mapping[str, Any], chain: Chain) -> dict[str, Any]:
    """The `data` of an outcome's event: the invocation, the event that it was for, the agent's report, the chain."""
    invocation = {name: told[name] for name in ("agent", "subscription", "state", "outcome", "reason", "attempts")}
    found: dict[str, Any] = {
        "invocation": {"id": told["invocation"], **invocation},
        "event": {name: cause[name] for name in _CAUSE if cause.get(name)},
        "chain": {"root": chain.root, "hops": chain.hops},
    }
    if told.get("report"):
        found["report"] = told["report"]
    return found


def outcome_event(
    told: Mapping[str, Any], cause: Mapping[str, Any], *, key: str, body: bytes, flags: tuple[Flag, ...] = ()
) -> Event:
    """The event of an outcome (`told` is its line on the outcomes topic) that the event with the envelope `cause` led to.

    `key` is the invocation's ordering key: outcomes about one thing stay in one lane, apart from the vendor's own events.
    """
    word = outcome_word(told["state"], told["outcome"], is_reported="report" in told)
    team, at_ms = told["team"], ms_of(told["time"])
    about = cause.get("summary") or cause.get("type") or told["event"]
    return Event(
        id=outcome_event_id(team, told["invocation"], word, told["attempts"]),
        team=team,
        source=OWN,
        provider=OWN,
        family=OWN,
        type=f"{OWN}.invocation.{word}",
        partitionkey=_lane_key(team, key),
        time_ms=at_ms,
        received_ms=at_ms,
        traceparent=cause.get("traceparent", ""),
        datacontenttype="application/json",
        body=body,
        actor=told["agent"],
        summary=f"{told['agent']}: {word} ({about})",
        causationid=told["invocation"],
        flags=flags,
        **{name: cause[name] for name in _COPIED if cause.get(name)},
    )


def _lane_key(team: str, key: str) -> str:
    """The ordering key with ourselves as its source, once: an outcome of an outcome stays in the same lane."""
    own = f"{team}/{OWN}/"
    return key if key.startswith(own) else own + key.removeprefix(f"{team}/")
