"""One seed, one schedule: vendors, processes that crash and freeze, agents that lie, rules that change, clocks that step.

From the webhook's first byte to the settled invocation all is the real code; the log, the database, the clocks, the network and
the agents are in the same loop, so a seed that fails fails again, step by step.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from eventlog.config import LogConfig
from eventlog.memory import MemoryLog
from schemas.config import SubscriptionState
from store.agents import agent_rows, unsealed_secrets
from store.apply import Applier
from store.decide import Wish
from store.redress import Redress
from store.tables import API
from tests.fakes.clock import START_MS, VirtualClock
from tests.simulation import broken
from tests.simulation.agents import Agents
from tests.simulation.database import SUBSCRIPTIONS, UNSTEADY, VAULT, Database, subscription
from tests.simulation.judge import judged
from tests.simulation.lines import Line
from tests.simulation.loop import Loop, pinned
from tests.simulation.process import LEASE_MS, TOPIC, Process, meters
from tests.simulation.vendor import Vendor

SIZES = ((10, 2, 3),) * 13 + ((24, 3, 4),) * 6 + ((70, 5, 6),)  # acts, keys, webhooks of each
HEALS_WITHIN_S = 240.0
_EVERYONE = frozenset({"ingest", "router", "dispatcher"})
_APART = (frozenset({"ingest"}), frozenset({"router"}), frozenset({"dispatcher"}), frozenset({"dispatcher"}))
_KINDS = ("alone", "twins", "apart")


class WallClock:
    """A machine's own clock: the wall steps, what counts from the start does not."""

    def __init__(self, clock: VirtualClock, step_ms: int) -> None:
        self._clock, self.step_ms = clock, step_ms

    def now_ms(self) -> int:
        return START_MS + self.step_ms + int(self._clock.elapsed_s * 1000)

    def boot_s(self) -> float:
        return self._clock.boot_s()


class World:
    """Everything of one schedule.  `kind`: one process that has it all, two such, or roles apart."""

    def __init__(self, seed: int, *, how: str = "") -> None:
        self.seed, self.how = seed, how
        self.chance = random.Random(seed)
        self.clock = VirtualClock()
        self.acts, keys, events = SIZES[seed % len(SIZES) if not how else -1 - seed % 2]  # what is broken may need time to show
        self.kind = self.chance.choice(_KINDS)
        self.is_fair = seed % 8 == 5 and not how  # nobody dies, freezes or loses an answer: then the counters must agree
        self.database = Database(self.clock, unique=how != broken.DEDUP_IN_MEMORY)
        self.log = MemoryLog(
            LogConfig(partitions=self.chance.randint(1, 3)), clock=lambda: START_MS + int(self.clock.elapsed_s * 1000)
        )
        self.log_is_down = False
        self.faults: list[str] = []
        self.digest = hashlib.sha256()
        self.steps = self.kills = 0
        secrets = {
            name: unsealed_secrets(VAULT, row).present
            for name, row in self.database.look(lambda: agent_rows("default")).items()
        }
        self.agents = Agents(self.chance, self.database, secrets, self.clock.boot_s, self.faults.append)
        self.processes: dict[str, Process] = {}
        self.walls: dict[str, WallClock] = {}
        self.started = 0
        self.vendor = Vendor(self.chance, lambda: [p for p in self.processes.values() if p.ingest], keys=keys, events=events)
        self.redress = Redress(self.database)  # type: ignore[arg-type]  # the operator's engine: writes and reads, at once
        self.applier = Applier(self.database, VAULT, self.redress)  # type: ignore[arg-type]  # as above
        self.subscriptions = self._chosen()
        self._dying: set[asyncio.Task[None]] = set()
        self.counted: dict[str, float] = {}

    def _chosen(self) -> dict[str, Any]:
        """Two or three subscriptions that stand, and one that changes: more would only take longer."""
        steady = self.chance.sample([name for name in SUBSCRIPTIONS if name not in UNSTEADY], self.chance.randint(1, 3))
        kept = [*steady, self.chance.choice(UNSTEADY)]
        marks = ", ".join("?" * len(kept))
        self.database.connection.execute(f"DELETE FROM subscriptions WHERE name NOT IN ({marks})", kept)
        self.steady = sorted(steady)
        return {name: SUBSCRIPTIONS[name] for name in kept}

    # --- what happens, as a digest: the same for the same seed ---

    def note(self, who: str, what: object) -> None:
        self.steps += 1
        self.digest.update(f"{self.clock.elapsed_s:.6f} {who} {what}\n".encode())

    def say(self, name: str, **_: Any) -> None:
        self.note("say", name)

    def crashed(self, name: str, exc: BaseException) -> None:
        where = traceback.extract_tb(exc.__traceback__)[-3:]
        self.faults.append(f"crash: a bug ended {name}: {exc!r} at {[(each.name, each.lineno) for each in where]}")

    def break_it(self, process: Process) -> None:
        broken.break_process(process, self.how)

    # --- processes ---

    def wall(self, name: str) -> WallClock:
        machine = "alone" if self.kind == "alone" else name
        return self.walls.setdefault(machine, WallClock(self.clock, self.chance.choice((0, 0, -40, 250))))

    def start(self, roles: frozenset[str]) -> None:
        self.started += 1
        is_mortal = not self.is_fair and self.chance.random() < 0.5
        line = Line(
            f"p{self.started}",
            random.Random(self.chance.random()),
            self.note,
            self._dies,
            dies_at=self.chance.randint(3, 400) if is_mortal else 0,
            trouble=0.0 if self.is_fair else 0.004,
        )
        process = Process(self, line, roles, alone=self.kind == "alone")
        self.processes[line.name] = process
        self.database.heard.append(process.engine.hear)

    def _dies(self, line: Line) -> None:
        """A process comes to the step that it does not survive."""
        if not self.agents.are_well and line.name in self.processes:
            task = asyncio.create_task(self.kill(line.name))
            self._dying.add(task)
            task.add_done_callback(self._dying.discard)
            line.dead = True

    async def kill(self, name: str) -> None:
        process = self.processes.pop(name, None)
        if process is None:
            return
        self.kills += 1
        self.note(name, "killed")
        self.database.heard.remove(process.engine.hear)
        await process.killed()
        if self.kind == "alone":
            await self._given_up(process, 0.0)
        else:
            process.world._later(self._given_up(process, self.chance.random() * 3))

    async def _given_up(self, process: Process, after_s: float) -> None:
        """The broker's session timeout."""
        await asyncio.sleep(after_s)
        for reader in process.log.readers:
            await reader.given_up()

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._dying.add(task)
        task.add_done_callback(self._dying.discard)

    async def stop(self, name: str) -> None:
        process = self.processes.pop(name)
        self.note(name, "stopped")
        await process.stopped()
        self._later(self._given_up(process, self.chance.random() * 3))
        if process.engine.hear in self.database.heard:
            self.database.heard.remove(process.engine.hear)

    async def _reap(self) -> None:
        """A supervisor: what ended by itself is taken away, to be started anew."""
        for name in [name for name, process in self.processes.items() if process.task.done()]:
            await self.kill(name)

    def _wanted(self) -> list[frozenset[str]]:
        """What roles a supervisor would start now."""
        if self.kind == "alone":
            return [] if self.processes else [_EVERYONE]
        if self.kind == "twins":
            return [_EVERYONE] * (2 - len(self.processes))
        wanted = list(_APART)
        for process in self.processes.values():
            if process.roles in wanted:
                wanted.remove(process.roles)
        return wanted

    # --- chaos ---

    async def act(self) -> None:
        """One thing that happens to the world."""
        await self._reap()
        luck, names = self.chance.random(), list(self.processes)
        name = self.chance.choice(names) if names else ""
        if luck < 0.35:
            for roles in self._wanted():
                self.start(roles)
        elif luck < 0.45 and name and not self.is_fair:
            await self.kill(name)
        elif luck < 0.5 and name and not self.is_fair:
            await self.stop(name)
        elif luck < 0.6 and name and not self.is_fair and self.kind != "alone":
            self._freeze(self.processes[name], self.chance.random() * 3 * LEASE_MS / 1000)
        elif luck < 0.65 and not self.is_fair:
            self.database.is_down = not self.database.is_down
        elif luck < 0.7 and not self.is_fair:
            self.log_is_down = not self.log_is_down
        elif luck < 0.78 and self.walls:
            self.chance.choice(list(self.walls.values())).step_ms += self.chance.choice((-20_000, -300, 300, 20_000))
        elif luck < 0.9:
            await self._change_rules()
        else:
            await self._cancel()

    def _freeze(self, process: Process, seconds: float) -> None:
        process.line.thawed.clear()
        self.note(process.line.name, "frozen")
        asyncio.get_running_loop().call_later(seconds, process.line.thawed.set)

    async def _change_rules(self) -> None:
        name = next(name for name in self.subscriptions if name in UNSTEADY)
        before = self.subscriptions[name]
        if name == "on-off":
            is_live = before is None or before.state is SubscriptionState.LIVE
            state = SubscriptionState.PAUSED if is_live else SubscriptionState.LIVE
            spec = SUBSCRIPTIONS[name].model_copy(update={"state": state})
        elif before is not None and self.chance.random() < 0.4:
            await self._apply(Wish("default", API, drop=frozenset({("subscription", name)}), cancel=self.chance.random() < 0.5))
            self.subscriptions[name] = None
            return
        else:
            prefix = self.chance.choice(("github.", "github.pull_request", "gitlab."))
            spec = subscription("lying", pattern={"type": [{"prefix": prefix}]}, order=self.chance.choice(("strict", "none")))
        await self._apply(Wish("default", API, subscriptions={name: spec}))
        self.subscriptions[name] = spec

    async def _apply(self, wish: Wish) -> None:
        self.note("operator", "applies")
        now_ms = START_MS + int(self.clock.elapsed_s * 1000)
        await self.applier.apply(wish, actor="sim", act="apply", now_ms=now_ms)

    async def _cancel(self) -> None:
        rows = self.database.rows("SELECT id FROM invocations WHERE ended_ms = 0 ORDER BY seq")
        if rows:
            now_ms = START_MS + int(self.clock.elapsed_s * 1000)
            await self.redress.cancel("default", [self.chance.choice(rows)["id"]], reason="an operator", now_ms=now_ms)

    # --- a schedule ---

    async def run(self) -> None:
        await self.log.start()
        await self.log.ensure({TOPIC: self.log._config.partitions})
        for roles in self._wanted():
            self.start(roles)
        sending = asyncio.create_task(self.vendor.run())
        for _ in range(self.acts):
            await asyncio.sleep(self.chance.expovariate(5))
            await self.act()
        healed_s = self.clock.elapsed_s
        await self._heal()
        while not (sending.done() and self._is_settled()) and self.clock.elapsed_s < healed_s + HEALS_WITHIN_S:
            await asyncio.sleep(0.25)
            await self._reap()
            for roles in self._wanted():
                self.start(roles)
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        for name in list(self.processes):
            await self.stop(name)
        await asyncio.gather(*self._dying, return_exceptions=True)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if left:
            self.faults.append(f"I10 resources: {len(left)} tasks are left: {left[:2]}")

    async def _heal(self) -> None:
        self.note("world", "healed")
        self.agents.are_well = self.vendor.is_calm = True
        self.database.is_down = self.log_is_down = False
        for process in self.processes.values():
            process.line.thawed.set()
        if self.subscriptions.get("on-off"):
            await self._apply(Wish("default", API, subscriptions={"on-off": SUBSCRIPTIONS["on-off"]}))

    def _is_settled(self) -> bool:
        [row] = self.database.rows(
            "SELECT (SELECT count(*) FROM invocations WHERE ended_ms = 0) AS open, "
            "(SELECT coalesce(sum(position), 0) FROM cursors) AS passed"
        )
        return not row["open"] and row["passed"] == sum(part.end for part in self.log._all())


def simulate(seed: int, *, how: str = "") -> World:
    """The world after the schedule of this seed, with what went wrong in its `faults`."""
    return _simulated(seed, how, judged)


def _simulated(seed: int, how: str, judge: Callable[[World], list[str]]) -> World:
    world = World(seed, how=how)
    counted = _counted() if world.is_fair else {}
    try:
        with pinned(seed, world.clock), broken.broken_modules(how):
            with asyncio.Runner(loop_factory=lambda: Loop(world.clock)) as runner:
                runner.run(world.run())
        if world.is_fair:
            world.counted = {name: count - counted[name] for name, count in _counted().items()}
        world.faults += judge(world)
        for line in world.agents.ledger:
            world.note("agent", (line["invocation"], line["attempt"], line["status"], line["start"]))
    finally:
        world.database.close()
    return world


def _counted() -> dict[str, float]:
    """What the processes have counted so far."""
    return {
        "invocations": meters().total("nightbell_invocations_created_total"),
        "attempts": meters().total("nightbell_dispatch_attempts_total"),
    }
