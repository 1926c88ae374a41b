"""One simulated process: the real rooms from the edge to the agents' door, wired as `runtime.wiring` wires them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from control.auth import InvocationTokens
from dispatcher.feed import Pace
from dispatcher.lanes import Bounds
from dispatcher.metrics import DispatchMetrics
from dispatcher.service import Dispatcher, DispatcherConfig
from ingest.book import Book
from ingest.inbound import Request
from ingest.metrics import IngestMetrics
from ingest.service import Clock, Ingest
from router.metrics import RouterMetrics
from router.service import Nobody, Router, RouterConfig
from runtime.curation import curation_of
from schemas.errors import NightbellError
from schemas.topics import events_topic
from store.admission import WORK, Admission
from store.engine import Engine
from store.ledger import Ledger
from store.roster import Roster
from store.sources import Sources
from store.takeover import take_over
from tests.simulation.database import VAULT
from tests.simulation.lines import CallerLine, EngineLine, Line, LogLine

if TYPE_CHECKING:
    from tests.simulation.world import World

LEASE_MS, DRAIN_S = 2_000, 4.0
TOPIC = events_topic("github")
URL = "http://sim.test/in/sim"


class Meters:
    """The counters of all processes of a schedule: one registry for all schedules, since making one takes long."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.ingest, self.router = IngestMetrics(self.registry), RouterMetrics(self.registry)
        self.dispatcher = DispatchMetrics(self.registry)

    def total(self, name: str, **labels: str) -> float:
        """The sum of a counter over all other labels."""
        return sum(
            sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@cache
def meters() -> Meters:
    """The counters of this operating system's process."""
    return Meters()


class Process:
    """A process of all roles, or of some; `alone` is the embedded default, which takes over at once."""

    def __init__(self, world: World, line: Line, roles: frozenset[str], *, alone: bool) -> None:
        self.world, self.line, self.roles, self.alone = world, line, roles, alone
        self.engine = EngineLine(line, world.database)
        self.log = LogLine(line, world.log, is_wire=not alone)
        self.log.is_down = lambda: world.log_is_down
        self.ready = False
        self.routing: asyncio.Task[None] | None = None
        self.tasks: set[asyncio.Task[Any]] = set()
        self.clock = world.wall(line.name)
        self.roster = Roster(self.engine, VAULT, now_ms=self.clock.now_ms)
        self.ledger = Ledger(self.engine)
        self.admission = Admission(self.engine, announces=not alone)
        self.caller = CallerLine(line, world.agents)
        self.ingest = self._ingest() if "ingest" in roles else None
        self.dispatcher = self._dispatcher() if "dispatcher" in roles else None
        self.router = self._router() if "router" in roles else None
        world.break_it(self)
        self.task = asyncio.create_task(self._run())

    def _ingest(self) -> Ingest:
        book = Book(Sources(self.engine, VAULT))
        clock = Clock(self.clock.now_ms, self.clock.boot_s)
        return Ingest(self.log, book, clock=clock, metrics=meters().ingest, public_url="http://sim.test")

    def _router(self) -> Router:
        router = Router(
            self.log,
            self.roster,
            self.admission,
            now_ms=self.clock.now_ms,
            then=self.dispatcher or Nobody(),
            say=self.world.say,
            metrics=meters().router,
            config=RouterConfig(look_every_s=2.0),
        )
        router.watch([TOPIC])
        return router

    def _dispatcher(self) -> Dispatcher:
        config = DispatcherConfig(
            owner=f"{self.line.name}-x",
            api_url="http://sim.test",
            lease_ms=LEASE_MS,
            grace_s=1.0,
            look_every_s=2.0,
            bounds=Bounds(max_count=self.world.chance.choice((3, 40, 400)), min_share=2),
            pace=Pace(sweep_ms=3_000),
            keep_sent="none",
        )
        dispatcher = Dispatcher(
            self.ledger,
            self.roster,
            self.caller,
            curate=curation_of(self.engine, VAULT, None, counts=False),
            tokens=InvocationTokens(VAULT.derived("tokens"), now_ms=self.clock.now_ms),
            say=self.world.say,
            metrics=meters().dispatcher,
            config=config,
            clock=self.clock,
        )
        if not self.alone:
            self.engine.listen(WORK, lambda payload: _wake(dispatcher, payload))
        return dispatcher

    async def _run(self) -> None:
        if self.alone:
            try:
                await take_over(_live(self.engine), now_ms=self.clock.now_ms())
            except NightbellError:
                return  # it does not start; its supervisor tries again
        async with asyncio.TaskGroup() as group:
            if self.ingest is not None:
                group.create_task(self._opened(self.ingest))
            if self.dispatcher is not None:
                group.create_task(self.dispatcher.run())
            if self.router is not None:
                self.routing = group.create_task(self.router.run())

    async def _opened(self, ingest: Ingest) -> None:
        while not ingest.is_ready:  # the store may be away: then there is no book yet
            with suppress(NightbellError):
                await ingest.open()
            await asyncio.sleep(0.1)
        self.ready = True

    async def post(self, body: bytes, headers: dict[str, str]) -> int:
        """What a vendor's request is answered; 0 where the connection was lost."""
        task = self.spawn(self._accept(body, headers))
        await asyncio.wait({task}, timeout=3.0)
        return task.result() if task.done() and not task.cancelled() and task.exception() is None else 0

    async def _accept(self, body: bytes, headers: dict[str, str]) -> int:
        assert self.ingest is not None
        await self.line.step("request")
        try:
            source = self.ingest.admit("default", "sim")
            reply = await self.ingest.accept(Request("POST", URL, list(headers.items()), body), source)
        except NightbellError:
            return 503
        await self.line.step("reply")
        return reply.status

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task that dies with the process."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def killed(self) -> None:
        """Dead at once: nothing that it began is tidied up."""
        self.line.dead = True
        self.line.thawed.set()
        left = [self.task, *self.tasks]
        for task in left:
            task.cancel()
        found = await asyncio.gather(*left, return_exceptions=True)
        self._tell(found[0])

    async def stopped(self) -> None:
        """SIGTERM: what runs is finished, what was read is admitted, the shards are given back."""
        self.line.thawed.set()
        if self.router is not None:  # first, as the supervisor does it: it hands over to the dispatcher
            self.router.stop()
            await asyncio.wait({self.routing or self.task, self.task}, timeout=DRAIN_S, return_when=asyncio.FIRST_COMPLETED)
        if self.dispatcher is not None:
            self.dispatcher.stop()
        await asyncio.wait({self.task}, timeout=DRAIN_S)
        if not self.task.done():  # its supervisor's patience is over: SIGKILL
            await self.killed()
            return
        found = await asyncio.gather(self.task, return_exceptions=True)
        self.line.dead = True
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self._tell(found[0])

    def _tell(self, ended: Any) -> None:
        for exc in _leaves(ended):
            if not isinstance(exc, asyncio.CancelledError):
                self.world.crashed(self.line.name, exc)


def _leaves(ended: Any) -> list[BaseException]:
    if isinstance(ended, BaseExceptionGroup):
        return [leaf for exc in ended.exceptions for leaf in _leaves(exc)]
    return [ended] if isinstance(ended, BaseException) else []


def _live(engine: EngineLine) -> Engine:
    found: Engine = engine  # type: ignore[assignment]  # what is left out of a line nobody asks in a schedule
    return found


def _wake(dispatcher: Dispatcher, payload: str) -> None:
    if payload:
        dispatcher.wake_shards(map(int, payload.split(",")))
    else:
        dispatcher.wake()
