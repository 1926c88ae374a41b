"""The life of an invocation against a model of it: the real scripts on SQLite in memory, every order of events that hypothesis finds.

What the machine does must be drawn in docs/delivery.md: each change of state that is seen has its letter there.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schemas.invocation import END_STATES, Invocation, Planned, State, Wait
from schemas.ledger import Opening
from store.admission import Admission
from store.mending import closed_stale
from store.moves import REDRIVEN, Move, move_of, moved
from store.openings import opened
from store.redress import REDRIVABLE, Redress
from store.releases import Waiters, released, superseded
from tests.fakes.clock import START_MS, VirtualClock
from tests.simulation.database import Database
from tests.store.plans import LOG, PLACE, a_plan, a_settlement

DOCUMENT = (Path(__file__).parents[2] / "docs/delivery.md").read_text()
LANES = ("k0", "k1")
TIMEOUT_MS = 30_000
OUTCOMES = {
    "c": (State.DONE, "delivered", "", 0),
    "d": (State.WAITING, "failed", Wait.RETRY, 5_000),
    "e": (State.BURIED, "rejected", "rejected: answered 400", 0),
    "g": (State.WAITING, "misconfigured", Wait.HOLD, 60_000),
}


def drawn() -> set[tuple[str, str, str]]:
    """(letter, from, to) of every change in the document's table; an end stands for every end."""
    table = DOCUMENT.partition("## The life of an invocation")[2].partition("\n## ")[0]
    ends = sorted(state.value for state in END_STATES)
    found = set()
    for letter, change in re.findall(r"^\| (\w) \| (.+?) \|", table, re.MULTILINE):
        before, _, after = change.partition("→")
        befores = re.findall(r"`(\w+)`", before) or (ends if "an end" in before else [""])
        afters = ends if "an end" in after else [name for name in re.findall(r"`(\w+)`", after) if name in set(State)]
        found |= {(letter, one, other) for one in befores for other in afters}
    return found


@dataclass
class Life:
    """What the model knows of one invocation."""

    planned: Invocation
    state: State
    attempts: int = 0
    deadline_ms: int = 0
    epoch: int = 0
    reason: str = ""
    last: Any = None  # the settlement that was written last
    path: list[str] = field(default_factory=list)


def done(work: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine gives that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited")


class Machine(RuleBasedStateMachine):
    """One agent, two lanes, an owner of its shard and the owners before it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.database = Database(self.clock)
        self.lives: dict[str, Life] = {}
        self.order: list[str] = []
        self.told = self.number = 0
        self.seen: set[tuple[str, str, str]] = set()
        self.admission = Admission(self.database)  # type: ignore[arg-type]  # an engine whose writes and reads are at once
        self.redress = Redress(self.database)  # type: ignore[arg-type]  # as above

    @initialize()
    def begin(self) -> None:
        self.shard = a_plan("x").invocations[0].shard
        self.epoch = 0
        self.take_over()

    def teardown(self) -> None:
        self.database.close()
        unknown = self.seen - drawn()
        assert not unknown, f"docs/delivery.md does not draw {sorted(unknown)}"

    @property
    def now_ms(self) -> int:
        return START_MS + int(self.clock.elapsed_s * 1000)

    def went(self, letter: str, life: Life, after: State) -> None:
        self.seen.add((letter, life.state.value if life.path else "", after.value))
        life.path.append(letter)
        if after in END_STATES:
            self.told += 1
        life.state, life.reason = after, ""

    def lane(self, key: str) -> list[Life]:
        """The unfinished ones of a lane, oldest first."""
        found = [self.lives[name] for name in self.order]
        return [life for life in found if life.planned.ordering_key.endswith(key) and life.state not in END_STATES]

    def a_move(self, life: Life, state: State, reason: str, *, epoch: int | None, due_ms: int = 0) -> bool:
        move = Move(life.planned.id, state, reason, self.now_ms, shard=self.shard, epoch=epoch, due_ms=due_ms)
        [was] = self.database.commit(lambda: moved([move]))
        return bool(was)

    # --- the world ---

    @rule(seconds=st.sampled_from((0.01, 1.0, 31.0, 120.0)))
    def time_passes(self, seconds: float) -> None:
        self.clock.elapsed_s += seconds

    @rule()
    def take_over(self) -> None:
        """Another dispatcher owns the shard; what runs goes on, and its owner does not know yet."""
        self.epoch += 1
        self.database.connection.execute(
            "UPDATE shards SET epoch = ?, owner = ? WHERE id = ?", (self.epoch, f"o{self.epoch}", self.shard)
        )

    # --- changes of state ---

    @rule(key=st.sampled_from(LANES), is_reserved=st.booleans(), is_stale=st.booleans())
    def admitted(self, key: str, is_reserved: bool, is_stale: bool) -> None:
        self.number += 1
        plan = a_plan(f"e{self.number}", key=key)
        planned = plan.invocations[0]
        is_first, epoch = not self.lane(key), self.epoch - is_stale
        opening = Opening(planned.id, 1, self.shard, epoch, "me", self.now_ms, self.now_ms + TIMEOUT_MS)
        [found] = self.admit(plan, {planned.id: opening} if is_reserved else {})
        assert found.is_open == (is_reserved and is_first and not is_stale)
        life = self.lives[planned.id] = Life(planned, State.QUEUED)
        self.order.append(planned.id)
        self.went("a", life, State.RUNNING if found.is_open else State.QUEUED)
        if found.is_open:
            life.attempts, life.deadline_ms, life.epoch = 1, opening.deadline_ms, epoch

    def admit(self, plan: Planned, openings: dict[str, Opening]) -> list[Any]:
        first = self.number - 1
        return done(
            self.admission.admit(LOG, PLACE, first=first, after=first + 1, plans=[plan], now_ms=self.now_ms, openings=openings)
        )

    @precondition(lambda self: self.lives)
    @rule(data=st.data(), is_stale=st.booleans(), skips=st.booleans())
    def opened(self, data: st.DataObject, is_stale: bool, skips: bool) -> None:
        life = self.lives[data.draw(st.sampled_from(self.order))]
        lane = self.lane(life.planned.ordering_key[-2:])
        number = life.attempts + 1 + skips
        deadline_ms = self.now_ms + TIMEOUT_MS
        opening = Opening(life.planned.id, number, self.shard, self.epoch - is_stale, "me", self.now_ms, deadline_ms)
        [was] = self.database.commit(lambda: opened([opening]))
        running = [other for other in lane if other.state is State.RUNNING]
        if life.reason == REDRIVEN and life.state is State.QUEUED:  # what began before the redrive is waited out
            for other in running:
                if other.deadline_ms <= self.now_ms:
                    self.went("f", other, State.QUEUED)
            running = [other for other in running if other.state is State.RUNNING]
        may = lane and lane[0] is life and life.state in {State.QUEUED, State.WAITING} and not is_stale and not skips
        assert was == bool(may and not running)
        if was:
            self.went("b", life, State.RUNNING)
            life.attempts, life.deadline_ms, life.epoch = number, deadline_ms, self.epoch

    @precondition(lambda self: self.lives)
    @rule(data=st.data(), letter=st.sampled_from(sorted(OUTCOMES)), is_late=st.booleans())
    def settled(self, data: st.DataObject, letter: str, is_late: bool) -> None:
        """By whoever opened it; `is_late`: an attempt before the last one."""
        life = self.lives[data.draw(st.sampled_from(self.order))]
        if not life.attempts:
            return
        state, outcome, reason, wait_ms = OUTCOMES[letter]
        settlement = a_settlement(
            life.planned, state, number=life.attempts - is_late, epoch=life.epoch, outcome=outcome, reason=reason,
            due_ms=self.now_ms + wait_ms if wait_ms else 0, ended_ms=self.now_ms + self.number % 7 + 1,
        )  # fmt: skip
        [was] = self.database.commit(lambda: moved([move_of(settlement)]))
        assert was == (life.state is State.RUNNING and life.epoch == self.epoch and not is_late) or self.is_said_again(
            life, settlement
        )
        if was and life.state is State.RUNNING and not is_late:
            self.went(letter, life, state)
            life.last = settlement

    def is_said_again(self, life: Life, settlement: Any) -> bool:
        before = life.last
        return before is not None and (before.number, before.ended_ms) == (settlement.number, settlement.ended_ms)

    @precondition(lambda self: any(life.last for life in self.lives.values()))
    @rule(data=st.data())
    def settled_again(self, data: st.DataObject) -> None:
        """The answer to a settlement was lost, and it is sent again: it counts as written, and changes nothing."""
        life = self.lives[data.draw(st.sampled_from([name for name, life in self.lives.items() if life.last]))]
        [was] = self.database.commit(lambda: moved([move_of(life.last)]))
        assert was == (life.last.epoch == self.epoch and life.last.number == life.attempts and not self.is_closed_since(life))

    def is_closed_since(self, life: Life) -> bool:
        [row] = self.database.rows(
            "SELECT a.ended_ms FROM attempts a JOIN invocations i ON i.seq = a.invocation_seq WHERE i.id = ? AND a.number = ?",
            life.planned.id, life.attempts,
        )  # fmt: skip
        return bool(row["ended_ms"] != life.last.ended_ms)

    @precondition(lambda self: any(life.state is State.RUNNING for life in self.lives.values()))
    @rule()
    def left_open(self) -> None:
        """The new owner closes what the one before left open, once its deadline is over."""
        rows = self.database.rows("SELECT id, seq FROM invocations WHERE state = 'running' ORDER BY seq")
        self.database.commit(lambda: closed_stale([row["seq"] for row in rows], self.now_ms))
        for row in rows:
            life = self.lives[row["id"]]
            if life.deadline_ms <= self.now_ms:
                self.went("f", life, State.QUEUED)

    @precondition(lambda self: self.lives)
    @rule(data=st.data(), is_stale=st.booleans())
    def parked(self, data: st.DataObject, is_stale: bool) -> None:
        life = self.lives[data.draw(st.sampled_from(self.order))]
        was = self.a_move(life, State.WAITING, Wait.PAUSED, epoch=self.epoch - is_stale)
        assert was == (life.state in {State.QUEUED, State.WAITING} and not is_stale)
        if was:
            self.went("h", life, State.WAITING)

    @rule(is_stale=st.booleans())
    def let_go(self, is_stale: bool) -> None:
        """What was paused is live again: its lanes fall due, and no state changes."""
        wanted = Waiters("default", "triage", Wait.PAUSED, "")
        count = self.database.commit(lambda: released(wanted, self.shard, self.epoch - is_stale, self.now_ms, 10))
        assert not (is_stale and count)

    @precondition(lambda self: self.lives)
    @rule(data=st.data(), how=st.sampled_from((State.EXPIRED, State.CANCELED)), is_stale=st.booleans())
    def ended_untried(self, data: st.DataObject, how: State, is_stale: bool) -> None:
        life = self.lives[data.draw(st.sampled_from(self.order))]
        was = self.a_move(life, how, "too old", epoch=None if how is State.CANCELED else self.epoch - is_stale)
        assert was == (life.state in {State.QUEUED, State.WAITING} and not (is_stale and how is State.EXPIRED))
        if was:
            self.went("i", life, how)

    @rule(key=st.sampled_from(LANES), is_stale=st.booleans())
    def a_newer_one_came(self, key: str, is_stale: bool) -> None:
        lane = self.lane(key)
        name = f"sub-1/default/gh/{key}"
        count = self.database.commit(lambda: superseded(name, self.shard, self.epoch - is_stale, self.now_ms, 100))
        pointless = [life for life in lane[:-1] if not life.attempts] if not is_stale else []
        assert count == len(pointless)
        for life in pointless:
            self.went("i", life, State.SUPERSEDED)

    @precondition(lambda self: self.lives)
    @rule(data=st.data())
    def redriven(self, data: st.DataObject) -> None:
        life = self.lives[data.draw(st.sampled_from(self.order))]
        found = done(self.redress.redrive("default", [life.planned.id], now_ms=self.now_ms))
        assert bool(found) == (life.state in REDRIVABLE)
        if found:
            self.went("r", life, State.QUEUED)
            life.reason = REDRIVEN

    # --- what always holds ---

    @invariant()
    def the_rows_are_the_model(self) -> None:
        rows = {row["id"]: row for row in self.database.rows("SELECT id, state, attempts, ended_ms FROM invocations")}
        assert {name: (row["state"], row["attempts"]) for name, row in rows.items()} == {
            name: (life.state.value, life.attempts) for name, life in self.lives.items()
        }
        assert all(bool(row["ended_ms"]) == (State(row["state"]) in END_STATES) for row in rows.values())

    @invariant()
    def a_lane_is_there_while_it_has_work_and_counts_it(self) -> None:
        rows = {row["id"][-2:]: row["queued"] for row in self.database.rows("SELECT id, queued FROM lanes")}
        assert rows == {key: len(self.lane(key)) for key in LANES if self.lane(key)}

    @invariant()
    def one_of_a_lane_runs_and_each_attempt_but_a_running_one_has_ended(self) -> None:
        for key in LANES:
            assert sum(life.state is State.RUNNING for life in self.lane(key)) <= 1
        [row] = self.database.rows("SELECT count(*) AS open FROM attempts WHERE ended_ms = 0")
        assert row["open"] == sum(life.state is State.RUNNING for life in self.lives.values())

    @invariant()
    def every_end_was_told_once(self) -> None:
        [row] = self.database.rows("SELECT count(*) AS told FROM outbox")
        assert row["told"] == self.told

    @invariant()
    def no_zombie_wrote(self) -> None:
        assert self.database.rows("SELECT text FROM faults WHERE text LIKE 'fencing%'") == []


def test_what_is_redriven_waits_for_what_began_behind_it_meanwhile() -> None:
    machine = Machine()
    machine.begin()
    for _ in range(2):
        machine.admitted("k0", is_reserved=False, is_stale=False)
    older, newer = machine.order
    machine.ended_untried(Chosen(older), State.CANCELED, is_stale=False)
    machine.opened(Chosen(newer), is_stale=False, skips=False)
    machine.redriven(Chosen(older))

    machine.opened(Chosen(older), is_stale=False, skips=False)
    while_it_runs = machine.lives[older].state
    machine.take_over()
    machine.time_passes(31.0)
    machine.opened(Chosen(older), is_stale=False, skips=False)
    machine.the_rows_are_the_model()
    machine.one_of_a_lane_runs_and_each_attempt_but_a_running_one_has_ended()
    machine.teardown()

    assert while_it_runs is State.QUEUED
    assert (machine.lives[older].state, machine.lives[newer].state) == (State.RUNNING, State.QUEUED)


class Chosen:
    """What hypothesis would have drawn."""

    def __init__(self, name: str) -> None:
        self.name = name

    def draw(self, _: object) -> str:
        return self.name


Machine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestMachine = Machine.TestCase


def test_every_letter_of_the_drawing_has_its_row() -> None:
    picture, _, table = DOCUMENT.partition("## The life of an invocation")[2].partition("\n| |")

    assert set(re.findall(r"(?<![\w`])([a-z])(?![\w`])", picture)) >= {letter for letter, _, _ in drawn()} - {"a"}
    assert {letter for letter, _, _ in drawn()} >= set("abcdefghir")
    assert table
