"""Fallback chains under one seed: agents that fail as they like, dispatchers that crash, a person who may answer."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from typing import Any

import pytest

from schemas.errors import AgentTimedOut
from schemas.fallback import Kind, agent_at, chain_of
from schemas.invocation import END_STATES, State
from tests.dispatcher.test_service import virtually
from tests.dispatcher.world import Heard, Said, World, until

FIRST = int(os.environ.get("NBTEST_SEED", "0"))
STEPS: list[Any] = [
    {"wait": 5},
    {"wait": 40},
    {"agent": "second", "attempts": 2},
    {"agent": "third"},
    {"agent": "nobody"},
    {"notify": "oncall"},
    {"notify": "oncall", "answer_within": 30},
]
QUICK = {"first_delay": 1, "max_delay": 4, "max_attempts": 2, "max_age": 30}


class Schedule:
    """One run: what happened to every invocation, and what went wrong."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.random = world, random.Random(seed)
        self.problems: list[str] = []
        self.steps: dict[str, list[int]] = {}
        self.ended_s: dict[str, float] = {}
        self.begun_s: dict[str, float] = {}
        self.healed = False
        self.tasks: list[asyncio.Task[None]] = []
        self.started = 0
        chain = [self.random.choice(STEPS) for _ in range(self.random.randint(0, 4))]
        self.lane = self.random.choice(("wait", "go_on"))
        for name in ("second", "third", "oncall"):
            world.roster.agent(name, max_concurrency=2, timeout_s=5)
        world.roster.agent("triage", max_concurrency=3, timeout_s=5)
        world.roster.subscription("bugs", "triage", retry=QUICK, fallback=chain, fallback_lane=self.lane)
        self.chain = chain_of(world.roster.subscriptions_now["bugs"].spec.fallback)
        for name in ("triage", "second", "third", "oncall"):
            world.caller.scripts[name] = self.answer
        self._watch()

    def _watch(self) -> None:
        ledger, fell, moved = self.world.ledger, self.world.ledger._fell, self.world.ledger._moved

        def fell_watched(row: Any, reason: str, now_ms: int) -> bool:
            before = row.step
            went = fell(row, reason, now_ms)
            if went:
                self.steps.setdefault(row.invocation.id, []).append(row.step)
                if row.step <= before:
                    self.problems.append(f"{row.invocation.id} went back from {before} to {row.step}")
            return went

        def moved_watched(row: Any, state: State, reason: str, due_ms: int | None) -> None:
            if row.state in END_STATES:
                self.problems.append(f"{row.invocation.id} moved on from its end")
            if state in END_STATES:
                self.ended_s[row.invocation.id] = self.world.clock.elapsed_s
            moved(row, state, reason, due_ms)

        ledger._fell = fell_watched  # type: ignore[method-assign]
        ledger._moved = moved_watched  # type: ignore[method-assign]

    async def answer(self, heard: Heard) -> Said:
        ident = heard.id.partition(".")[0]
        row = self.world.ledger.rows[ident]
        wanted = agent_at(self.chain, row.step, home="triage")
        if heard.agent != wanted:
            self.problems.append(f"{heard.agent} was called at step {row.step}, which is {wanted}'s")
        if not row.opened:
            self.problems.append(f"{ident} was called without a row")
        is_notice = bool(row.step) and self.chain[row.step - 1].kind is Kind.NOTIFY
        if (ident != heard.id) != is_notice:
            self.problems.append(f"{heard.id}: a notice and a call are told apart by their ids")
        if not is_notice:
            self.begun_s.setdefault(ident, self.world.clock.elapsed_s)
        await asyncio.sleep(self.random.random() * 2)
        luck = self.random.random()
        if self.healed or luck < 0.25:
            return Said()
        if luck < 0.35:
            raise AgentTimedOut("no answer", kind="timeout", sent=True)
        return Said(self.random.choice((422, 500, 500, 503, 403)))

    def start(self) -> None:
        self.started += 1
        dispatcher = self.world.dispatcher(f"p{self.started}", lease_ms=4_000)
        self.tasks.append(asyncio.create_task(dispatcher.run()))

    async def crash(self) -> None:
        task = self.tasks.pop(self.random.randrange(len(self.tasks)))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def run(self) -> None:
        self.start()
        for _ in range(40):
            luck = self.random.random()
            if luck < 0.6:
                self.world.admit("bugs", f"k{self.random.randint(0, 2)}")
            elif luck < 0.75 and self.tasks:
                await self.crash()
            elif len(self.tasks) < 2:
                self.start()
            await asyncio.sleep(self.random.expovariate(0.5))
        self.healed = True
        if not self.tasks:
            self.start()
        await until(lambda: not self.world.ledger.unfinished, within_s=3_000, every_s=0.5)
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.check_lanes()

    def check_lanes(self) -> None:
        """With `wait`, nothing of a key begins before what came before it has ended, wherever that is on its chain."""
        if self.lane != "wait":
            return
        lanes: dict[str, list[str]] = {}
        for ident, row in self.world.ledger.rows.items():
            lanes.setdefault(row.invocation.ordering_key, []).append(ident)
        for idents in lanes.values():
            for before, after in itertools.pairwise(idents):
                if after in self.begun_s and self.begun_s[after] < self.ended_s[before]:
                    self.problems.append(f"{after} began before {before} had ended")


@pytest.mark.parametrize("tens", range(4))
def test_no_schedule_breaks_a_chain(tens: int) -> None:
    for seed in range(FIRST + tens * 10, FIRST + tens * 10 + 10):

        @virtually
        async def scenario(world: World, seed: int = seed) -> None:
            schedule = Schedule(world, seed)
            await schedule.run()
            assert schedule.problems == [], f"replay with NBTEST_SEED={seed}"

        scenario()


def test_the_schedules_reach_every_kind_of_link() -> None:
    kinds: set[Kind] = set()

    for seed in range(12):

        @virtually
        async def scenario(world: World, seed: int = seed) -> None:
            schedule = Schedule(world, seed)
            await schedule.run()
            kinds.update(schedule.chain[step - 1].kind for steps in schedule.steps.values() for step in steps)

        scenario()

    assert kinds == set(Kind)
