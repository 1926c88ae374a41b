"""One seed, one schedule: dispatchers that crash, freeze and lose shards, agents that are slow and lie, a store that goes away.

Everything runs in one loop in virtual time, so a failing seed fails again in the same way.  What is checked (DELIVERY 3.3): I1 all
that was admitted ends, I3 order in a lane, I4 and I5 one row and one id, I7 a row before every call, exact concurrency, fencing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from dispatcher.lanes import Bounds
from dispatcher.service import Dispatcher
from schemas.config import SubscriptionState
from schemas.errors import AgentTimedOut, AgentUnreachable, StoreUnavailable
from schemas.invocation import END_STATES, Admitted, Flow, Order, State
from schemas.ledger import Opening, Settlement
from tests.dispatcher.world import Heard, Said, World, until
from tests.fakes.clock import run_virtually
from tests.fakes.ledger import FakeLedger

AGENTS = ("calm", "slow", "flaky", "lying", "strict4xx")
CAP = 3
PER_KEY = 2
# What a subscription asks for beside its order; most ask for nothing.
FLOWS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {},
    {"on_burial": "block"},
    {"debounce": {"wait": 1.0, "max_wait": 3.0, "max_events": 3}},
    {"concurrency": {"key": "data.org", "per_key": PER_KEY}},
    {"concurrency": {"max": PER_KEY}, "rate_per_s": 20, "burst": 2},
)
LEASE_MS = 6_000
TIMEOUT_S = 2.0


@dataclass
class Process:
    """A dispatcher process: while frozen, nothing of it reaches the outside; once dead, nothing ever does."""

    name: str
    dispatcher: Dispatcher
    task: asyncio.Task[None]
    line: Line


@dataclass
class Line:
    """The way of one process to the ledger and to agents."""

    ledger: FakeLedger
    random: random.Random
    thawed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.thawed.set()

    async def pass_on(self, call: Callable[..., Awaitable[Any]], *args: Any, **more: Any) -> Any:
        await asyncio.sleep(self.random.random() * 0.01)
        await self.thawed.wait()
        found = await call(*args, **more)
        await asyncio.sleep(self.random.random() * 0.01)
        await self.thawed.wait()
        return found


class LedgerLine:
    """A Ledger as one process reaches it."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        call = getattr(self._line.ledger, name)
        return lambda *args, **more: self._line.pass_on(call, *args, **more)


async def no_limits(*_: Any) -> list[Any]:
    """What a build without limits of subscriptions asks before an attempt: nothing."""
    return []


class Simulation:
    """A world under a seed."""

    def __init__(self, seed: int, *, broken: str = "") -> None:
        self.random = random.Random(seed)
        self.broken = broken
        self.world = World(
            lease_ms=LEASE_MS, grace_s=1.0, bounds=Bounds(max_count=self.random.choice((6, 40, 400)), min_share=2)
        )
        self.ledger = self.world.ledger
        self.processes: dict[str, Process] = {}
        self.started = 0
        self.admitted: list[Admitted] = []
        self.first_heard: dict[str, list[int]] = {}
        self.handed_over: dict[str, list[str]] = {}  # the events of each digest, as its agent got them
        self.rank = {}
        self.healed = False
        self.problems: list[str] = []
        for name in AGENTS:
            self.world.roster.agent(name, max_concurrency=CAP, timeout_s=TIMEOUT_S)
            order = self.random.choice((Order.STRICT, Order.STRICT, Order.NONE))
            flow = self.random.choice(FLOWS)
            if "debounce" in flow or "on_burial" in flow:
                order = Order.STRICT
            retry = {"first_delay": 0.2, "max_delay": 5, "max_attempts": 1000}
            self.world.roster.subscription(f"to-{name}", name, order=order, retry=retry, **flow)
            self.world.caller.scripts[name] = self.script(name)
        self._watch_rows()
        self._break()

    def _break(self) -> None:
        """Build it wrong on purpose: a check that cannot see this proves nothing."""
        ledger = self.ledger
        if self.broken == "no fencing":
            ledger._is_mine = lambda shard, epoch: True  # type: ignore[method-assign]
        elif self.broken == "retries in memory":
            # The row forgets when it is due, as if only a timer knew; a timer dies with its process.
            moved = ledger._moved
            ledger._moved = lambda row, state, reason, due_ms: moved(  # type: ignore[method-assign]
                row, state, reason, None if reason == "retry" else due_ms
            )
        elif self.broken == "call before the row":
            opened, running = ledger.open, set()

            async def open_later(opening: Opening) -> bool:
                row = ledger.rows[opening.invocation_id]
                running.add(asyncio.create_task(written(opening)))
                return row.state in {State.QUEUED, State.WAITING}

            async def written(opening: Opening) -> None:
                with suppress(StoreUnavailable):
                    await opened(opening)

            ledger.open = open_later  # type: ignore[method-assign]
        elif self.broken == "windows forgotten":
            gather = ledger.gather

            async def gather_one(head: Any, window: Any, **more: Any) -> int | None:
                due_ms = await gather(head, window, **more)
                for ident in ledger.lanes.get(head.invocation.lane, []):
                    ledger.rows[ident].digest = ledger.rows[ident].digest[-1:]
                return due_ms

            ledger.gather = gather_one  # type: ignore[method-assign]
        elif self.broken == "lanes off":
            ledger.is_head = lambda opening: True  # type: ignore[method-assign]

    # Agents

    def script(self, name: str) -> Callable[[Heard], Awaitable[Said]]:
        chance = self.random

        async def answer(heard: Heard) -> Said:
            self.heard(heard)
            await asyncio.sleep(chance.random() * (0.05 if name != "slow" else 1.0))
            if self.healed or name == "calm":
                return Said()
            luck = chance.random()
            if name == "slow" and luck < 0.2:
                await asyncio.sleep(60)
            if name == "lying" and luck < 0.4:
                raise AgentUnreachable("reset", kind="reset", sent=True)  # it acted, and says nothing
            if name == "strict4xx" and luck < 0.3:
                return Said(chance.choice((400, 404, 422, 401)))
            if name == "flaky" and luck < 0.5:
                return Said(
                    chance.choice((500, 502, 429, 503)), {"retry-after": chance.choice(("0", "1", "-3", "x", "9999999"))}
                )
            return Said()

        return answer

    def heard(self, heard: Heard) -> None:
        """The agent's own ledger: every call has its row, and first calls of a lane come in order."""
        row = self.ledger.rows[heard.id]
        number = heard.document["invocation"]["attempt"]
        if number not in row.opened:
            self.problems.append(f"I7: {heard.id} was called without a row for attempt {number}")
        if digest := heard.document.get("digest"):
            events = [each["event"]["id"] for each in digest["events"]]
            if self.handed_over.setdefault(heard.id, events) != events:
                self.problems.append(f"I5: {heard.id} handed over other events than before")
        seen = self.first_heard.setdefault(row.invocation.lane, [])
        rank = self.rank[heard.id]
        if rank not in seen:
            if seen and rank < seen[-1]:
                self.problems.append(f"I3: {heard.id} came after a later one of its lane")
            seen.append(rank)

    def _watch_rows(self) -> None:
        """Look at every opening and settlement as it takes effect."""
        opened, settled, moved = self.ledger.open, self.ledger.settle, self.ledger._moved

        async def open_watched(opening: Opening) -> bool:
            epoch = self.ledger.shards[opening.shard].epoch
            if done := await opened(opening):
                self.check_opening(opening)
                if opening.epoch < epoch:
                    self.problems.append(f"a zombie opened {opening.invocation_id}")
            return done

        async def settle_watched(settlement: Settlement) -> bool:
            epoch = self.ledger.shards[settlement.shard].epoch
            if (done := await settled(settlement)) and settlement.epoch < epoch:
                self.problems.append(f"a zombie settled {settlement.invocation_id}")
            return done

        def moved_watched(row: Any, state: State, reason: str, due_ms: int | None) -> None:
            if row.state in END_STATES:
                self.problems.append(f"{row.invocation.id} moved on from its end {row.state}")
            moved(row, state, reason, due_ms)

        self.ledger.open = open_watched  # type: ignore[method-assign]
        self.ledger.settle = settle_watched  # type: ignore[method-assign]
        self.ledger._moved = moved_watched  # type: ignore[method-assign]

    def check_opening(self, opening: Opening) -> None:
        """One at a time in a lane, whoever owns it; a call of the owner before is waited out, and so is its row."""
        lane = self.ledger.rows[opening.invocation_id].invocation.lane
        running = [self.ledger.rows[each] for each in self.ledger.lanes[lane] if self.ledger.rows[each].state is State.RUNNING]
        if len(running) > 1:
            self.problems.append(f"two run in lane {lane}")

    def check_limit(self, process: str, agent: str, running: list[str]) -> None:
        """The owner of an agent keeps its limits exactly; a zombie's last calls are its own affair."""
        owner = self.ledger.shards[self.world.roster.agents_now[agent].shard].owner
        if owner != process:
            return
        if len(running) > CAP:
            self.problems.append(f"{agent} got {len(running)} calls at once from its owner")
        if self.world.roster.subscriptions_now[f"to-{agent}"].spec.concurrency is None:
            return
        flows = [self.ledger.rows[each].invocation.flow for each in running]
        keys = [flow.limit_key if flow else "" for flow in flows]
        if max(map(keys.count, keys)) > PER_KEY:
            self.problems.append(f"{agent} got more than {PER_KEY} calls of one key at once from its owner")

    # Processes

    async def start(self) -> None:
        self.started += 1
        name = f"p{self.started}"
        line = Line(self.ledger, random.Random(self.random.random()))
        dispatcher = self.world.dispatcher(name, ledger=LedgerLine(line))
        caller = dispatcher._desk.caller

        if self.broken == "no fencing":
            dispatcher._tenure.remaining_s = lambda: 1e9  # type: ignore[method-assign]
        if self.broken == "limits off":
            dispatcher._workers.entry._entered = no_limits  # type: ignore[method-assign]
        simulation, running = self, {name: [] for name in AGENTS}

        class CallerLine:
            async def request(self, method: str, url: str, **more: Any) -> Any:
                await line.thawed.wait()
                agent = url.rsplit("/", 1)[-1]
                ident = more["headers"]["webhook-id"]
                running[agent].append(ident)
                simulation.check_limit(name, agent, running[agent])
                try:
                    found = await caller.request(method, url, **more)
                except AgentTimedOut:
                    await line.thawed.wait()
                    raise
                finally:
                    running[agent].remove(ident)
                await line.thawed.wait()
                return found

        object.__setattr__(dispatcher._desk, "caller", CallerLine())
        self.processes[name] = Process(name, dispatcher, asyncio.create_task(dispatcher.run()), line)

    async def crash(self, name: str) -> None:
        process = self.processes.pop(name)
        process.task.cancel()
        await asyncio.gather(process.task, return_exceptions=True)

    async def stop(self, name: str) -> None:
        process = self.processes.pop(name)
        process.line.thawed.set()
        process.dispatcher.stop()
        await process.task

    # Chaos

    def admit_one(self, name: str, key: str) -> Admitted:
        """One invocation, with what the router works out for its subscription's flow control."""
        spec = self.world.roster.subscriptions_now[name].spec
        if spec.debounce is None and (spec.concurrency is None or spec.concurrency.key is None):
            return self.world.admit(name, key)
        due_in_ms = 0 if spec.debounce is None else round(spec.debounce.wait * 1000)
        invocation, event = self.world.invocation(name, key, due_in_ms=due_in_ms)
        full_at = 0 if spec.debounce is None else spec.debounce.max_events
        limit_key = "" if spec.concurrency is None else f"org{self.random.randint(0, 1)}"
        made = replace(invocation, flow=Flow(limit_key=limit_key, full_at=full_at))
        one = self.ledger.admit(made, event, {"sequence": self.world.sequence})
        if full_at and one.ahead + 1 >= full_at:
            self.ledger.lane_is_full(invocation.lane)
        return one

    def admit(self) -> None:
        """A few events at once; the offers reach a process, another process, or nobody."""
        offered = []
        for _ in range(self.random.randint(1, 6)):
            name = self.random.choice(AGENTS)
            one = self.admit_one(f"to-{name}", f"k{self.random.randint(0, 3)}")
            self.rank[one.invocation.id] = len(self.rank)
            self.admitted.append(one)
            if self.broken == "lanes off":
                one = replace(one, ahead=0, invocation=replace(one.invocation, lane=one.invocation.id))
            offered.append(one)
        luck = self.random.random()
        for process in self.processes.values():
            if luck < 0.8 and process.line.thawed.is_set():
                process.dispatcher.offer(offered)

    async def act(self) -> None:
        luck, names = self.random.random(), list(self.processes)
        if names and self.random.random() < (0.4 if self.broken == "no fencing" else 0.05):
            line = self.processes[self.random.choice(names)].line
            line.thawed.clear()
            asyncio.get_running_loop().call_later(self.random.random() * 4 * LEASE_MS / 1000, line.thawed.set)
        elif luck < 0.75:
            self.admit()
        elif luck < 0.79 and names:
            await self.crash(self.random.choice(names))
        elif luck < 0.81 and names:
            await self.stop(self.random.choice(names))
        elif luck < 0.86 and len(names) < 3:
            await self.start()
        elif luck < 0.88:
            self.ledger.is_down = not self.ledger.is_down
        elif luck < 0.9:
            self.world.clock.step_ms += self.random.choice((-300_000, -300, 300, 300_000))
        elif luck < 0.95:
            name = f"to-{self.random.choice(AGENTS)}"
            paused = self.world.roster.subscriptions_now[name].spec.state is SubscriptionState.PAUSED
            self.world.roster.state(name, SubscriptionState.LIVE if paused else SubscriptionState.PAUSED)
        elif luck < 0.97:
            self.unblock()
        elif self.ledger.unfinished:
            self.ledger.cancel(self.random.choice(self.ledger.unfinished).invocation.id)

    def unblock(self) -> None:
        """An operator looks at the blocked keys, and has each head tried again or skipped."""
        for row in self.ledger.unfinished:
            if (row.state, row.reason) == (State.WAITING, "blocked"):
                self.ledger.unblock(row, skip=self.random.random() < 0.5)
                for process in self.processes.values():
                    process.dispatcher.wake("default", row.invocation.agent)

    async def run(self, *, acts: int = 60) -> None:
        for _ in range(self.random.randint(1, 3)):
            await self.start()
        for _ in range(acts):
            await self.act()
            await asyncio.sleep(self.random.expovariate(4))
        await self.heal()
        with suppress(TimeoutError):  # then what never ended is named below
            await until(self.is_over, within_s=7_500, every_s=0.5)
        for name in list(self.processes):
            await self.stop(name)
        self.check_end()

    def is_over(self) -> bool:
        """Whether nothing is left, or something went wrong; operators do their part until then."""
        self.unblock()
        return not self.ledger.unfinished or bool(self.problems)

    async def heal(self) -> None:
        self.healed = True
        self.ledger.is_down = False
        for process in self.processes.values():
            process.line.thawed.set()
        for name in AGENTS:
            self.world.roster.state(f"to-{name}", SubscriptionState.LIVE)
        if not self.processes:
            await self.start()

    def check_end(self) -> None:
        left = [row.invocation.id for row in self.ledger.unfinished]
        if left:
            self.problems.append(f"I1: never ended: {left}")
        for one in self.admitted:
            row = self.ledger.rows[one.invocation.id]
            heard = self.world.caller.ids(one.invocation.agent).count(one.invocation.id)
            if row.state is State.DONE and not heard:
                self.problems.append(f"I1: {one.invocation.id} is done and its agent never heard of it")
            if row.state is State.DIGESTED and row.event.id not in [event.id for event in self.ledger.rows[row.reason].digest]:
                self.problems.append(f"I1: {one.invocation.id} ended in a digest that has not its event")
            if row.state is State.DONE and row.digest:
                sent = self.handed_over.get(one.invocation.id)
                if sent != [event.id for event in row.digest]:
                    self.problems.append(f"I1: {one.invocation.id} is done, and its agent got {sent}")
            if set(row.opened) - set(row.settled):
                self.problems.append(f"I7: {one.invocation.id} has attempts without an end")


def simulate(seed: int, *, acts: int = 60, broken: str = "") -> list[str]:
    """What went wrong in the schedule of this seed."""
    simulation = Simulation(seed, broken=broken)
    run_virtually(simulation.run(acts=acts), simulation.world.clock)
    return simulation.problems
