"""Admits plans to the ledger, exactly once: implements `router.ports.Admission`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import orjson
from sqlalchemy import bindparam, delete, select, update

from schemas.errors import FencedOut
from schemas.event import Event
from schemas.ids import EVENT, digest_id, invocation_id
from schemas.invocation import Admitted, Invocation, Planned, State
from schemas.ledger import Opening
from schemas.topics import Place, Record
from store.bodies import KEEP_BODY, Compressor, digest_of
from store.engine import AddNew, Call, Change, Each, Engine, Notify, Put, Script, change, fetch
from store.flowing import kept_flows, on_their_shards
from store.folding import folded_before, without_duplicates
from store.lateness import without_late
from store.openings import ADMITTED, begun_with
from store.prepared import Bulk, Prepared, among
from store.shards import WORK, epochs_of
from store.tables import cursors, deaths, events, invocations, lanes, rejected, seen
from store.texts import kept

DAY_MS = 86_400_000
SEEN_DAYS = 35
NO_OPENINGS: Mapping[str, Opening] = MappingProxyType({})

_CURSORS = Prepared(
    select(cursors.c.topic, cursors.c.partition, cursors.c.position).where(cursors.c.log_id == bindparam("log")), "log"
)
_HERE = (
    (cursors.c.log_id == bindparam("log"))
    & (cursors.c.topic == bindparam("in_topic"))
    & (cursors.c.partition == bindparam("part"))
)
_MOVE = Prepared(
    update(cursors).where(_HERE, cursors.c.position == bindparam("first")).values(position=bindparam("after")),
    "after",
    "log",
    "in_topic",
    "part",
    "first",
)
_MAKE = Bulk(cursors, "log_id", "topic", "partition", "position", then="ON CONFLICT DO NOTHING RETURNING position")
_SEEN = Bulk(seen, "event_id", "expires_ms", then="ON CONFLICT DO NOTHING RETURNING event_id")
_LATE = Prepared(
    select(seen.c.event_id)
    .where(among(seen.c.event_id, "ids"), seen.c.expires_ms <= bindparam("now"))
    .order_by(seen.c.event_id)
    .with_for_update(),  # of two routers that see it late, one may call it news
    *("ids", "now"),
)
_SEEN_AGAIN = Prepared(
    update(seen).where(seen.c.event_id == bindparam("id_")).values(expires_ms=bindparam("until")), "until", "id_"
)
_EVENTS = Bulk(
    events,
    *("id", "team", "source", "provider", "family", "type", "kind", "subject", "partitionkey", "time_ms", "received_ms"),
    *("appended_ms", "admitted_ms", "topic", "partition", "position", "envelope", "pointer", "body_digest", "flags"),
    *("replay_id", "invocations"),
)
_INVOCATIONS = Bulk(invocations, *ADMITTED)
_LANES = Bulk(
    lanes,
    *("id", "team", "subscription_uid", "agent", "shard", "due_ms", "queued"),
    then="ON CONFLICT (id) DO UPDATE SET queued = lanes.queued + excluded.queued RETURNING id, queued",
)
_KNOWN = Prepared(select(invocations.c.id).where(among(invocations.c.id, "ids")), "ids")
_DIED = Bulk(
    deaths,
    *("log_id", "topic", "partition", "position", "count", "reason"),
    then="ON CONFLICT (log_id, topic, partition, position) DO UPDATE SET count = deaths.count + 1, reason = excluded.reason "
    "RETURNING count",
)
_REJECT = Bulk(
    rejected,
    *("log_id", "topic", "partition", "position", "key", "headers", "value", "appended_ms", "reason", "at_ms"),
    then="ON CONFLICT DO NOTHING",
)
_AT = (
    (deaths.c.log_id == bindparam("log"))
    & (deaths.c.topic == bindparam("in_topic"))
    & (deaths.c.partition == bindparam("part"))
    & (deaths.c.position == bindparam("at"))
)
_BURY_DEATHS = Prepared(delete(deaths).where(_AT), *("log", "in_topic", "part", "at"))
_SPARE = Prepared(update(deaths).where(_AT).values(count=deaths.c.count - 1), *("log", "in_topic", "part", "at"))


class Admission:
    """The one transaction that makes a plan exactly-once."""

    def __init__(self, engine: Engine, *, seen_days: float = SEEN_DAYS, announces: bool = True) -> None:
        """`announces`: wake the owners of shards in other processes; where there are none, it is a wake-up too many."""
        self._engine = engine
        self._announces = announces
        self._window_ms = int(seen_days * DAY_MS)
        self._compressor = Compressor()  # scripts that write run one at a time, or in one thread

    async def cursors(self, log_id: str, places: Sequence[Place]) -> Mapping[Place, int]:
        """The next position to read, by place; a place never read is left out."""
        wanted = set(places)
        rows = await fetch(self._engine, _CURSORS, log_id)
        found = {Place(topic, partition): position for topic, partition, position in rows}
        return {place: position for place, position in found.items() if place in wanted}

    async def admit(
        self,
        log_id: str,
        place: Place,
        *,
        first: int,
        after: int,
        plans: Sequence[Planned],
        now_ms: int,
        openings: Mapping[str, Opening] = NO_OPENINGS,
        begins: bool = False,
    ) -> list[Admitted]:
        """Move the cursor from `first` to `after`, keep the events that are new, queue their invocations.

        A place without a cursor gets one where `first` is 0 or the reading of it `begins` there: nothing is ever skipped.
        Returns the invocations that were queued, in order; those that a subscription's dedup folds are not.  Those of
        `openings` that find their lane empty, and whose shard is still ours, begin with their first attempt open: one commit
        for both.  Raises `FencedOut` where the cursor was elsewhere.
        """

        def script() -> Script[list[Admitted]]:
            yield from _moved(log_id, place, first, after, begins=begins)
            return (yield from self._keep(place, plans, now_ms, openings))

        return await self._engine.write(script, is_patient=True)

    async def admit_replay(self, plans: Sequence[Planned]) -> list[Admitted]:
        """Queue the invocations of events that are kept already, as today's rules plan them; the known ones give none."""

        def script() -> Script[list[Admitted]]:
            wanted = [(plan, invocation) for plan in plans for invocation in plan.invocations]
            known = {row[0] for row in (yield Call(_KNOWN, ([invocation.id for _, invocation in wanted],)))}
            known |= yield from folded_before([invocation for _, invocation in wanted])
            return (yield from self._queue([(plan, inv) for plan, inv in wanted if inv.id not in known]))

        return await self._engine.write(script, is_patient=True)

    async def deaths(self, log_id: str, place: Place, position: int, reason: str) -> int:
        """Count one more death at this record, durably, and return how many there were."""

        def script() -> Script[int]:
            rows = yield AddNew(_DIED, [(log_id, place.topic, place.partition, position, 1, kept(reason))])
            return int(rows[0][0])

        return await self._engine.write(script)

    async def spare(self, log_id: str, place: Place, position: int) -> None:
        """Take the last death at this record back: it was not its doing."""
        await change(self._engine, _SPARE, log_id, place.topic, place.partition, position)

    async def set_aside(
        self, log_id: str, record: Record, *, first: int, reason: str, now_ms: int, begins: bool = False
    ) -> None:
        """Keep a poison record for people and move the cursor from `first` past it, in one transaction.

        `begins` as in `admit`.  Raises `FencedOut` where the cursor was elsewhere.
        """
        where = (log_id, record.topic, record.partition)
        headers = orjson.dumps({kept(name): kept(value) for name, value in record.headers.items()}).decode()
        row = (*where, record.position, kept(record.key), headers, record.value, record.appended_ms, kept(reason), now_ms)

        def script() -> Script[None]:
            yield from _moved(log_id, Place(record.topic, record.partition), first, record.position + 1, begins=begins)
            yield Put(_REJECT, [row])
            yield Call(_BURY_DEATHS, (*where, record.position))

        await self._engine.write(script)

    def _keep(
        self, place: Place, plans: Sequence[Planned], now_ms: int, openings: Mapping[str, Opening]
    ) -> Script[list[Admitted]]:
        window_ms = self._window_ms
        identities = {plan.event.id: now_ms + (plan.event.identity_window_ms or window_ms) for plan in plans}
        new = {row[0] for row in (yield AddNew(_SEEN, sorted(identities.items())))}
        news_again: set[str] = set()
        if len(new) < len(identities):
            news_again = yield from _expired(identities, new, now_ms)
        fresh: list[Planned] = []
        for plan in plans:
            if plan.event.id in new:
                new.discard(plan.event.id)  # the same event twice in one batch: the first one counts
                fresh.append(plan)
            elif plan.event.id in news_again:
                news_again.discard(plan.event.id)
                fresh.append(_renamed(plan))
        if not fresh:
            return []
        rows, bodies = [], []
        for number, plan in enumerate(fresh):
            event = plan.event
            digest = digest_of(event.body)
            bodies.append((digest, event.body))
            row, is_clean = _event_row(event, place, plan, digest, now_ms)
            rows.append(row)
            if not is_clean:
                fresh[number] = replace(plan, invocations=tuple(_clean_invocation(each) for each in plan.invocations))
        yield Put(KEEP_BODY, self._compressor.rows(bodies, now_ms=now_ms))
        yield Put(_EVENTS, rows)
        return (yield from self._queue([(plan, invocation) for plan in fresh for invocation in plan.invocations], openings))

    def _queue(
        self, wanted: Sequence[tuple[Planned, Invocation]], openings: Mapping[str, Opening] = NO_OPENINGS
    ) -> Script[list[Admitted]]:
        """Part of a script: lanes first, since their locks make `seq` the order within each; then the invocations."""
        epochs = yield from epochs_of({opening.shard for opening in openings.values()})  # shards are locked before lanes
        wanted = yield from without_duplicates(wanted)
        has_flow = any(invocation.flow is not None for _, invocation in wanted)
        if has_flow:
            wanted = yield from without_late(wanted)
        if not wanted:
            return []
        ahead = yield from _lengthen(invocation for _, invocation in wanted)
        if has_flow:
            wanted = yield from on_their_shards(wanted, ahead)
        admitted: list[Admitted] = []
        rows: list[tuple[object, ...]] = []
        begun: list[tuple[Opening, tuple[object, ...]]] = []
        for plan, invocation in wanted:
            before = ahead[invocation.lane]
            ahead[invocation.lane] = before + 1
            opening = openings.get(invocation.id) if not before else None
            if opening is not None and epochs.get(opening.shard) == opening.epoch:
                begun.append((opening, _invocation_row(invocation, State.RUNNING)))
                admitted.append(Admitted(invocation, plan.event, plan.data, before, is_open=True))
            else:
                rows.append(_invocation_row(invocation))
                admitted.append(Admitted(invocation, plan.event, plan.data, before))
        yield from begun_with(begun)  # each is the first of its lane, so it comes before what the lane gets now
        yield Put(_INVOCATIONS, rows)
        if has_flow:
            yield from kept_flows(admitted)
        if self._announces:
            yield Notify(WORK, ",".join(map(str, sorted({invocation.shard for _, invocation in wanted}))))
        return admitted


def _moved(log_id: str, place: Place, first: int, after: int, *, begins: bool) -> Script[None]:
    """Part of a script: the cursor's step from `first` to `after`.  Raises `FencedOut` where it was elsewhere."""
    if (yield Change(_MOVE, (after, log_id, *place, first))):
        return
    if (begins or not first) and (yield AddNew(_MAKE, [(log_id, *place, after)])):
        return
    raise FencedOut(f"the cursor of {place.topic}/{place.partition} is not at {first}: another router was here")


def _expired(identities: Mapping[str, int], new: set[str], now_ms: int) -> Script[set[str]]:
    """Part of a script: which of the identities that were seen before have outlived their window; they are remembered anew."""
    known = sorted(set(identities) - new)
    late = {row[0] for row in (yield Call(_LATE, (known, now_ms)))}
    yield Each(_SEEN_AGAIN, [(identities[event_id], event_id) for event_id in sorted(late)])
    return late


def _renamed(plan: Planned) -> Planned:
    """The plan of an equal body that came after its window: news, so the received instant joins its identity."""
    event = replace(plan.event, id=digest_id(EVENT, plan.event.id, str(plan.event.received_ms)))
    renamed = []
    for planned in plan.invocations:
        name = invocation_id(event.id, planned.subscription_uid, planned.replay_id)
        lane = name if planned.lane == planned.id else planned.lane
        renamed.append(replace(planned, id=name, event_id=event.id, lane=lane))
    return replace(plan, event=event, invocations=tuple(renamed))


def _lengthen(wanted: Iterable[Invocation]) -> Script[dict[str, int]]:
    """Part of a script: make or lengthen the lanes, in the order of their names; how long each was before."""
    counts: dict[str, int] = {}
    firsts: dict[str, Invocation] = {}
    for invocation in wanted:
        counts[invocation.lane] = counts.get(invocation.lane, 0) + 1
        firsts.setdefault(invocation.lane, invocation)
    rows = [
        (lane, found.team, found.subscription_uid, found.agent, found.shard, found.due_ms, counts[lane])
        for lane, found in sorted(firsts.items())
    ]
    return {lane: queued - counts[lane] for lane, queued in (yield AddNew(_LANES, rows))}


def _invocation_row(planned: Invocation, state: State = State.QUEUED) -> tuple[object, ...]:
    return (
        planned.id,
        planned.team,
        planned.event_id,
        planned.subscription_uid,
        planned.subscription,
        planned.generation,
        planned.agent,
        planned.shard,
        planned.lane,
        planned.ordering_key,
        planned.order.value,
        state.value,
        planned.created_ms,
        planned.due_ms,
        planned.replay_id,
    )


def _event_row(event: Event, place: Place, plan: Planned, digest: bytes, now_ms: int) -> tuple[tuple[object, ...], bool]:
    """The row, and whether the event's text could be kept as it is."""
    try:
        envelope = orjson.dumps(event.envelope())
        is_clean = b"\\u0000" not in envelope
    except TypeError:  # a lone surrogate
        is_clean = False
    if not is_clean:
        event = _clean_event(event)
        envelope = orjson.dumps(event.envelope())
    row = (
        event.id,
        event.team,
        event.source,
        event.provider,
        event.family,
        event.type,
        event.kind,
        event.subject,
        event.partitionkey,
        event.time_ms,
        event.received_ms,
        plan.appended_ms,
        now_ms,
        place.topic,
        place.partition,
        plan.position,
        envelope.decode(),
        event.pointer,
        digest,
        ",".join(event.flags),
        event.replayid,
        len(plan.invocations),
    )
    return row, is_clean


def _clean_event(event: Event) -> Event:
    found: dict[str, Any] = {name: getattr(event, name) for name in event.__slots__}
    cleaned: dict[str, Any] = {name: kept(value) for name, value in found.items() if isinstance(value, str)}
    return replace(event, **cleaned)


def _clean_invocation(planned: Invocation) -> Invocation:
    return replace(planned, lane=kept(planned.lane), ordering_key=kept(planned.ordering_key))
