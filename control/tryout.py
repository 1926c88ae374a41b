"""A subscription's context, tried on kept events before it is saved: what could never be kept is refused with its reason."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from control.actions_events import event_and_data
from control.desk import Contexts, Desk, Full
from control.problems import Flaw, Flawed
from curator.compose import TEMPLATE_FAILED
from curator.enrich import NoUrl, url_for
from schemas.config import ContextSpec, LookupSpec, SubscriptionConfig, SubscriptionSpec
from schemas.errors import NotFound
from schemas.event import Event
from store.events import EventFilter, event_page
from store.subscriptions import subscriptions_of

LOOKED_THROUGH = 200  # kept events, the newest
TRIED = 3  # of those that match
VIEW_FAILED = "the view failed"  # how the curator says it (`left_out`)


async def demand_makeable(desk: Desk, team: str, rules: Mapping[str, SubscriptionSpec], *, are_whole: bool) -> None:
    """Raise `Flawed` where the context of a new or changed subscription cannot be made of any of the last events it matches.

    `are_whole` says that the document has all sections, so that places begin with theirs.
    """
    make = desk.tools.contexts
    kept = await subscriptions_of(desk.engine, team) if make and rules else {}
    changed = {name: spec for name, spec in rules.items() if name not in kept or kept[name].config.spec.context != spec.context}
    asking = {name: spec for name, spec in changed.items() if spec.context != ContextSpec()}
    if make is None or not asking:
        return
    samples = await _samples(desk, team, asking)
    flaws: list[Flaw] = []
    for name, spec in asking.items():
        if samples[name]:
            within = f"/subscriptions/{name}/context" if are_whole else "/context"
            flaws += await _flaws(make, team, name, spec, samples[name], within=within)
    if flaws:
        raise Flawed(flaws)


async def _samples(desk: Desk, team: str, rules: Mapping[str, SubscriptionSpec]) -> dict[str, list[tuple[Event, Any]]]:
    found: dict[str, list[tuple[Event, Any]]] = {name: [] for name in rules}
    types = {name: _types(spec) for name, spec in rules.items()}
    for row in await event_page(desk.engine, team, EventFilter(), before=1 << 62, limit=LOOKED_THROUGH):
        wanting = [name for name in rules if (of := types[name]) is None or row.type in of]
        wanting = [name for name in wanting if len(found[name]) < TRIED]
        if not wanting:
            continue
        try:
            event, data = await event_and_data(desk, row)
        except NotFound:
            continue
        for name in wanting:
            config = SubscriptionConfig(team, name, "", 0, rules[name])
            if desk.tools.explain(config, event.document(data)).get("matched"):
                found[name].append((event, data))
    return found


def _types(spec: SubscriptionSpec) -> set[str] | None:
    """The types that a rule names in full, where it names no others; None: any event may match."""
    named = spec.pattern.get("type")
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        return None
    return set(named)


async def _flaws(
    make: Contexts, team: str, name: str, spec: SubscriptionSpec, samples: Sequence[tuple[Event, Any]], *, within: str
) -> list[Flaw]:
    alone = _event_alone(spec.context)
    uid = "tryout-" + hashlib.sha256(alone.model_dump_json().encode()).hexdigest()
    config = SubscriptionConfig(team, name, uid, 0, spec.model_copy(update={"context": alone}))
    made = [await make(config, event, data) for event, data in samples]
    ids = ", ".join(event.id for event, _ in samples)
    flaws = []
    if all(_failed(each) for each in made):
        flaws.append(Flaw(f"{within}/view", f"{_failed(made[0])}: tried on {ids}"))
    elif absent := [one for one in alone.required if all(one in each.missing for each in made)]:
        names = ", ".join(f"`{one}`" for one in absent)
        flaws.append(Flaw(f"{within}/required", f"no context has {names}: tried on {ids}"))
    elif all(each.verdict != "deliver" for each in made):
        flaws.append(Flaw(f"{within}/max_tokens", f"{made[0].reason}: tried on {ids}"))
    elif all(TEMPLATE_FAILED in each.left_out for each in made):
        flaws.append(Flaw(f"{within}/template", f"the template fails on every event: tried on {ids}"))
    for lookup, one in spec.context.enrich.items():
        whys = [why for event, data in samples if (why := _no_url(one, event.document(data)))]
        if len(whys) == len(samples):
            flaws.append(Flaw(f"{within}/enrich/{lookup}/url", f"{whys[0]}: tried on {ids}"))
    return flaws


def _no_url(lookup: LookupSpec, document: dict[str, Any]) -> str:
    try:
        url_for(lookup, document)
    except NoUrl as exc:
        return str(exc)
    return ""


def _failed(made: Full) -> str:
    return next((note for note in made.left_out if note.startswith(VIEW_FAILED)), "")


def _event_alone(context: ContextSpec) -> ContextSpec:
    """What a contract asks of the event itself: nothing is looked up only to see whether it may be saved."""
    required = tuple(name for name in context.required if not name.startswith(("facts.", "enrich.")))
    wanted: dict[str, Any] = {
        "enrich": {},
        "facts": (),
        "history": None,
        "required": required,
        "on_missing": "refuse",
        "on_overflow": "cut",
    }
    return context.model_copy(update=wanted)
