"""The router at work: reads every events topic from the cursor, plans, admits, hands on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import perf_counter, thread_time
from typing import Any, TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from eventlog.log import Batch, EventLog, Reader
from payload.read import view
from router.metrics import RouterMetrics
from router.plan import plan
from router.ports import Admission, NextStage, Rulebook
from router.ruleset import Ruleset, build_ruleset
from schemas.errors import Busy, CursorLost, DamagedRecord, FencedOut
from schemas.event import Event, from_headers
from schemas.invocation import Admitted, Planned
from schemas.ledger import Opening
from schemas.topics import Place, Record

T = TypeVar("T")

_DEATHS_ALLOWED = 3
_BATCHES_AT_ONCE = 8
_FIRST_PAUSE_S = 0.05
_PAUSE = wait_exponential_jitter(multiplier=_FIRST_PAUSE_S, max=2, jitter=0.05)
_READ_PAUSE_S = 0.5
_HOLD_LOOP_S = 0.010  # a batch gives the loop back at least this often while it is planned
_SLOW_S = 0.020  # what holds the loop for longer is planned beside it from then on, until it is quick again
_BIG_BYTES = 256 * 1024
_BUILT_ON_LOOP = 100


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """What the router is told: its group and how often it looks for new rules when nobody tells it."""

    group: str = "nightbell-router"
    look_every_s: float = 0.5


Log = Callable[..., Any]


class Router:
    """Turns the log into the ledger.

    `then` gets what was admitted, in lane order.
    """

    def __init__(
        self,
        log: EventLog,
        rulebook: Rulebook,
        admission: Admission,
        *,
        now_ms: Callable[[], int],
        then: NextStage,
        say: Log,
        metrics: RouterMetrics,
        config: RouterConfig = RouterConfig(),
    ) -> None:
        self._log, self._rulebook, self._admission = log, rulebook, admission
        self._now_ms, self._then = now_ms, then
        self._say, self._metrics, self._config = say, metrics, config
        self._rules: Ruleset = build_ruleset(-1, ())
        self._changed, self._loaded = asyncio.Event(), asyncio.Event()
        self._runs: dict[Place, _PlaceRun] = {}
        self._reader: Reader | None = None
        self._stopping = asyncio.Event()
        self._topics: dict[str, None] = {}
        self._unread: set[Place] = set()  # assigned to us, without a cursor as yet
        self._lost: set[Place] = set()  # assigned to us, with a cursor outside the log
        self._is_reading = False
        self._is_slow = False  # the last record held the loop for too long

    @property
    def is_ready(self) -> bool:
        """Whether everything that is assigned to us is read."""
        return self._is_reading and not self._lost

    @property
    def rules(self) -> Ruleset:
        """The ruleset in force."""
        return self._rules

    async def first_rules(self) -> Ruleset:
        """The ruleset in force, once there is one."""
        await self._loaded.wait()
        return self._rules

    @property
    def group(self) -> str:
        """Whose progress the log shows."""
        return self._config.group

    def topics(self) -> list[str]:
        """What is read."""
        return list(self._topics)

    def notice(self) -> None:
        """Look for new rules now: someone changed them in this process."""
        self._changed.set()

    def stop(self) -> None:
        """Read no more; `run` returns when what was read is admitted."""
        self._is_reading = False
        self._stopping.set()

    def watch(self, topics: Sequence[str]) -> None:
        """Read these topics too; one that is not there yet is picked up when it is created."""
        self._topics.update(dict.fromkeys(topics))
        if self._reader:
            self._reader.watch(topics)

    async def load_rules(self) -> None:
        """Swap in the store's rules where they changed; a store that cannot be reached leaves the old ones in force."""
        version = await self._rulebook.version()
        if version == self._rules.version:
            return
        subscriptions = await self._rulebook.subscriptions()
        before = self._rules if self._rules.version >= 0 else None
        # A large set takes seconds to build; a change of a few rules, less than a hop to a thread and back.
        build = partial(build_ruleset, version, subscriptions, before=before)
        few = len(subscriptions) <= _BUILT_ON_LOOP
        self._rules = build() if few else await asyncio.to_thread(build)
        self._loaded.set()
        self._metrics.rules.set(len(self._rules.rules))
        self._metrics.broken_rules.set(len(self._rules.broken))
        self._say("rules_loaded", version=version, rules=len(self._rules.rules), broken=list(self._rules.broken.values()))

    async def run(self) -> None:
        """Route what `watch` named until `stop`; what is under way then is still admitted.

        Cancelling admits it whole or not.
        """
        await self._first_rules()
        reader = self._log.reader(group=self._config.group, topics=list(self._topics), start=self._start)
        self._reader = reader
        try:
            async with asyncio.TaskGroup() as group:
                loops = [group.create_task(self._keep_rules()), group.create_task(self._read(reader, group))]
                await self._stopping.wait()
                for loop in loops:
                    loop.cancel()
        finally:
            self._is_reading = False
            self._reader = None
            self._runs.clear()
            await reader.aclose()

    async def _first_rules(self) -> None:
        async for attempt in AsyncRetrying(retry=retry_if_exception_type(Busy), wait=_PAUSE):
            with attempt:
                await self.load_rules()

    async def _keep_rules(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self.load_rules()
            except Busy as exc:
                self._say("rules_not_loaded", error=exc.code)
            try:
                await asyncio.wait_for(self._changed.wait(), self._config.look_every_s)
            except TimeoutError:
                continue

    async def _start(self, places: Sequence[Place]) -> Mapping[Place, int]:
        for place in places:
            self._runs.pop(place, None)
        self._mark_lost(set())  # an assignment is whole: what is lost is told anew
        cursors = await self._admission.cursors(self._log.log_id, places)
        self._unread = (self._unread - set(places)) | (set(places) - cursors.keys())
        return cursors

    async def _read(self, reader: Reader, group: asyncio.TaskGroup) -> None:
        slots = asyncio.Semaphore(_BATCHES_AT_ONCE)
        self._is_reading = True
        while True:
            await self._then.room()
            try:
                batch = await reader.next()
            except DamagedRecord as exc:
                await self._step_over(exc, reader)
                continue
            except CursorLost as exc:
                self._rest(exc)
                continue
            except Busy as exc:
                self._say("router_waits", error=exc.code, detail=exc.detail)
                await asyncio.sleep(_READ_PAUSE_S)
                continue
            run = self._run_of(batch.place, batch.first)
            run.after = batch.after
            await slots.acquire()
            task = group.create_task(self._route(batch, run, reader))
            task.add_done_callback(lambda _: slots.release())

    def _run_of(self, place: Place, first: int) -> _PlaceRun:
        """The place's run; a new one begins at `first`, which may be where a place without a cursor is read from."""
        run = self._runs.get(place)
        if run is None:
            run = self._runs[place] = _PlaceRun(first, makes_cursor=place in self._unread)
        return run

    def _rest(self, exc: CursorLost) -> None:
        """Leave this place where it is, loudly: records between its cursor and the log are gone, and people must know which.

        The reader holds it back; the other places go on.
        """
        self._mark_lost(self._lost | {Place(str(exc.fields["topic"]), int(exc.fields["partition"] or 0))})
        self._say(
            "cursor_lost", error=exc.code, detail=exc.detail, topic=exc.fields["topic"], partition=exc.fields["partition"]
        )

    def _mark_lost(self, places: set[Place]) -> None:
        self._lost = places
        self._metrics.lost.set(len(places))

    async def _step_over(self, exc: DamagedRecord, reader: Reader) -> None:
        """Set a record aside whose stored bytes are damaged: nothing can be read from it, and the rest must go on."""
        place = Place(str(exc.fields["topic"]), int(exc.fields["partition"] or 0))
        position = int(exc.fields["position"] or 0)
        run = self._run_of(place, position)
        async with run.turn:  # the batches before it are admitted first
            record = Record(*place, position, "", b"", {}, self._now_ms())
            with suppress(FencedOut):  # it is past already: then only this reader does not know
                await self._set_aside(record, run, first=run.after, reason=exc.detail)
            run.after = position + 1
            reader.seek(place, position + 1)

    async def _route(self, batch: Batch, run: _PlaceRun, reader: Reader) -> None:
        """One batch, after the earlier ones of its place."""
        async with run.turn:
            if self._runs.get(batch.place) is not run or not batch.is_owned():
                return
            started = perf_counter()
            try:
                if run.is_careful:
                    await self._one_by_one(batch, run)
                    run.is_careful = False
                else:
                    await self._whole(batch, run)
            except FencedOut:
                self._metrics.fenced.inc()
                self._say("router_fenced", topic=batch.place.topic, partition=batch.place.partition, first=batch.first)
                await self._catch_up(batch, reader)
                return
            reader.progressed(batch.place, batch.after)
            self._metrics.duration.observe(perf_counter() - started)

    async def _catch_up(self, batch: Batch, reader: Reader) -> None:
        cursors = await patiently(partial(self._admission.cursors, self._log.log_id, [batch.place]))
        if batch.is_owned() and batch.place in cursors:
            self._unread.discard(batch.place)
            self._runs.pop(batch.place, None)
            reader.seek(batch.place, cursors[batch.place])

    async def _whole(self, batch: Batch, run: _PlaceRun) -> None:
        planned: list[Planned] = []
        since = perf_counter()
        for record in batch.records:
            try:
                planned.append(await self._plan(record))
            except Exception as exc:  # noqa: BLE001 - whatever one record does to us, its neighbours go on: it is tried alone, and counted
                self._say(
                    "record_failed", topic=record.topic, partition=record.partition, position=record.position, error=repr(exc)
                )
                await self._one_by_one(batch, run)
                return
            if perf_counter() - since > _HOLD_LOOP_S:
                await asyncio.sleep(0)
                since = perf_counter()
        await self._admit(batch, planned, run, first=batch.first, after=batch.after)

    async def _one_by_one(self, batch: Batch, run: _PlaceRun) -> None:
        """Plan and admit each record alone, its deaths counted before it is touched: after a start, and round a bad record.

        A record that ended this process the last times (or raised) is set aside with its reason, and the rest goes on.
        """
        first = batch.first
        for record in batch.records:
            after = record.position + 1
            died = partial(self._admission.deaths, self._log.log_id, batch.place, record.position)
            deaths = await patiently(partial(died, "planning did not end"))
            while True:
                if deaths > _DEATHS_ALLOWED:
                    await self._set_aside(record, run, first=first, reason=f"planning failed {deaths - 1} times")
                    break
                try:
                    planned = await self._plan(record)
                except Exception as exc:  # noqa: BLE001 - counted; after the last allowed death the record is set aside
                    deaths = await patiently(partial(died, repr(exc)[:500]))
                    continue
                if not await self._admitted_alone(batch, record, planned, run, first=first):
                    return  # revoked: what follows is another router's, and not even its deaths are ours to count
                break
            first = after

    async def _admitted_alone(self, batch: Batch, record: Record, planned: Planned, run: _PlaceRun, *, first: int) -> bool:
        """Whether it was; where another router was here, the record did nobody any harm, and its death is taken back."""
        spare = partial(self._admission.spare, self._log.log_id, batch.place, record.position)
        try:
            is_ours = await self._admit(batch, [planned], run, first=first, after=record.position + 1)
        except FencedOut:
            await patiently(spare)
            raise
        if not is_ours:
            await patiently(spare)
        return is_ours

    async def _set_aside(self, record: Record, run: _PlaceRun, *, first: int, reason: str) -> None:
        now_ms, begins = self._now_ms(), run.begins_at(first)
        act = partial(
            self._admission.set_aside, self._log.log_id, record, first=first, reason=reason, now_ms=now_ms, begins=begins
        )
        await patiently(act)
        self._metrics.dead.inc()
        self._say("record_set_aside", topic=record.topic, partition=record.partition, position=record.position, reason=reason)

    async def _plan(self, record: Record) -> Planned:
        """The plan of one record: beside the loop where it is big, or where the ones before it held the loop for too long."""
        if self._is_slow or len(record.value) > _BIG_BYTES:
            return await asyncio.to_thread(self._planned_in, record, thread_time)
        return self._planned_in(record, perf_counter)

    def _planned_in(self, record: Record, clock: Callable[[], float]) -> Planned:
        started = clock()
        planned = self._planned(record)
        self._is_slow = clock() - started > _SLOW_S
        return planned

    def _planned(self, record: Record) -> Planned:
        event, data = read_event(record)
        at = record.appended_ms
        return plan(event, data, self._rules, position=record.position, now_ms=self._now_ms(), appended_ms=at)

    async def _admit(self, batch: Batch, planned: list[Planned], run: _PlaceRun, *, first: int, after: int) -> bool:
        """Admit, again and again while the store is busy: nothing is skipped; False where a revocation ended it."""
        once = partial(self._admit_once, batch, planned, first=first, after=after, begins=run.begins_at(first))
        with suppress(Busy):
            return await once()  # the common case, without tenacity's machinery
        await asyncio.sleep(_FIRST_PAUSE_S)
        count = self._metrics.retries.inc
        retried: bool = await AsyncRetrying(retry=retry_if_exception_type(Busy), wait=_PAUSE, before=lambda _: count())(once)
        return retried

    async def _admit_once(self, batch: Batch, planned: list[Planned], *, first: int, after: int, begins: bool) -> bool:
        if not batch.is_owned():
            return False
        reserved = self._then.reserve(planned)
        admitted: Sequence[Admitted] = ()
        try:
            admitted = await self._admission.admit(
                self._log.log_id,
                batch.place,
                first=first,
                after=after,
                plans=planned,
                now_ms=self._now_ms(),
                openings=reserved,
                begins=begins,
            )
        finally:
            self._then.offer(admitted, reserved)
        self._count(planned, admitted)
        return True

    def _count(self, planned: Sequence[Planned], admitted: Sequence[Admitted]) -> None:
        matched = sum(1 for item in planned if item.invocations)
        queued_events = {item.invocation.event_id for item in admitted}
        self._metrics.matched.inc(len(queued_events))
        self._metrics.unmatched.inc(len(planned) - matched)
        self._metrics.duplicate.inc(matched - len(queued_events))
        for item in admitted:
            self._metrics.invocations.labels(item.invocation.agent).inc()


class Nobody:
    """No next stage in this process: the dispatcher is another one, and the store wakes it."""

    def reserve(self, plans: Sequence[Planned]) -> Mapping[str, Opening]:
        """Nothing begins here, whatever the plans are."""
        del plans
        return {}

    def offer(self, admitted: Sequence[Admitted], reserved: Mapping[str, Opening] | None = None) -> None:
        """It is in the ledger."""

    async def room(self) -> None:
        """There is room."""


async def patiently(act: Callable[[], Awaitable[T]]) -> T:
    """What `act` gives, as soon as the store can do it: its being away is no bug of the one record that is looked at."""
    async for attempt in AsyncRetrying(retry=retry_if_exception_type(Busy), wait=_PAUSE):
        with attempt:
            return await act()
    raise AssertionError("tenacity either returns or raises")


class _PlaceRun:
    """One place's assignment: its batches take turns; the first one goes record by record.

    `after` is where what was read of it ends.
    """

    __slots__ = ("_first", "_makes_cursor", "after", "is_careful", "turn")

    def __init__(self, first: int, *, makes_cursor: bool) -> None:
        self._first, self._makes_cursor = first, makes_cursor
        self.after = first
        self.turn = asyncio.Lock()
        self.is_careful = True

    def begins_at(self, position: int) -> bool:
        """Whether a place without a cursor is read from there."""
        return self._makes_cursor and position == self._first


def read_event(record: Record) -> tuple[Event, Any]:
    """The record's event and its JSON view: as handed on in memory by ingest, else read from the bytes."""
    if record.note is not None:
        event, data = record.note
        return event, data
    event = from_headers(record.headers, record.value)
    data, _ = view(event.body, event.datacontenttype, event.pointer)
    return event, data
