"""The life of runs, model-checked: every call of an agent, an operator or the shard's owner, in any order, over the real store.

The model knows the table of `schemas.runs` and what an answer, a lease and an operator do; it does not know how the store does it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select

from dispatcher.runs import judged
from schemas.config import SubscriptionConfig, SubscriptionSpec, SupervisionSpec
from schemas.errors import Conflict
from schemas.ids import shard_of
from schemas.invocation import END_STATES, Invocation, State, Wait
from schemas.ledger import RunTerms
from schemas.runs import Effect, Said, effect_of, phase_of
from store.admission import Admission
from store.asks import Word, ask_to_stop, resolve
from store.connect import Store, connect
from store.conservation import gaps
from store.engine import Call, OneStep
from store.ledger import Ledger
from store.prepared import Prepared
from store.pulls import Poller, take
from store.redress import REDRIVABLE, Redress
from store.reports import Decided, Ending, Report, Seen, report
from store.schema import migrate
from store.tables import attempts, invocations, lanes, outbox, runs
from tests.servers.postgres import fresh_database
from tests.store.plans import LOG, NOW, PLACE, a_plan, a_settlement, an_opening

TRIAGE = ("default", "triage", shard_of("default", "triage"))
LEASE_MS, LONGEST_MS = 10_000, 60_000
WATCH = SupervisionSpec(lease=LEASE_MS / 1000, max_run=LONGEST_MS / 1000)
RETRY = {"first_delay": 0, "max_delay": 0, "max_attempts": 3}
RULES = SubscriptionConfig("default", "sub-1", "sub-1", 1, SubscriptionSpec(agent="triage", pattern={}, retry=RETRY))
VERDICTS = ("done", "declined", "needs_human", "failed")
LIVING = frozenset({State.RUNNING, State.ACCEPTED, State.QUEUED, State.WAITING})


@dataclass
class Expected:
    """What the model believes of one invocation."""

    invocation: Invocation
    state: State = State.QUEUED
    reason: str = ""
    attempts: int = 0
    has_answer: bool = True  # whether the last attempt's call has ended
    lease_ms: int = 0
    ends_ms: int = 0
    ends: int = 0
    checkpoint: bytes = b""
    said: tuple[str, str] | None = None  # the last report of this attempt


def _decide(verdict: str, note: str) -> Any:
    states = {"done": State.DONE, "declined": State.DECLINED, "needs_human": State.WAITING, "failed": State.BURIED}
    reason = Wait.HUMAN if verdict == "needs_human" else f"reported: {note}"
    return lambda _seen, _phase: Decided(states[verdict], reason)


@cache
def migrated() -> bytes:
    """A file with the newest schema: migrating takes longer than an example."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(migrate(f"sqlite:///{folder}/store.db"))
        return (Path(folder) / "store.db").read_bytes()


class Runs(RuleBasedStateMachine):
    """One team, one agent, three keys; two dispatchers that take its shard from each other; an agent that says anything."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "store.db"
        if not self.url:
            path.write_bytes(migrated())
        self.store: Store = connect(self.url or f"sqlite:///{path}")
        self.do(self.store.start())
        self.engine = self.store.engine
        self.ledger, self.admission, self.redress = Ledger(self.engine), Admission(self.engine), Redress(self.engine)
        self.known: dict[str, Expected] = {}
        self.now, self.position = NOW, 0
        self.epochs: dict[int, int] = {}
        self.tick = 0

    def do(self, awaited: Any) -> Any:
        return self.loop.run_until_complete(awaited)

    def teardown(self) -> None:
        self.do(self.store.aclose())
        self.loop.close()
        self.folder.cleanup()

    @initialize()
    def begin(self) -> None:
        self.own("one")

    def own(self, who: str) -> None:
        for each in ("one", "two"):
            self.do(self.ledger.release_shards(each))
        leases = self.do(self.ledger.hold_shards(who, lease_ms=600_000))
        self.epochs = {lease.shard: lease.epoch for lease in leases}

    def epoch(self, one: Expected) -> int:
        return self.epochs[one.invocation.shard]

    def head_of(self, one: Expected) -> bool:
        lane = [each for each in self.known.values() if each.invocation.lane == one.invocation.lane]
        return next((each is one for each in lane if each.state not in END_STATES), False)

    def any_of(self, data: Any, *states: State) -> Expected | None:
        found = [each for each in self.known.values() if each.state in states]
        return data.draw(st.sampled_from(found)) if found else None

    # what the house does

    @rule(key=st.sampled_from(["a", "a", "b"]))
    @precondition(lambda self: len(self.known) < 6)
    def admit(self, key: str) -> None:
        plan = a_plan(f"e{len(self.known)}", key=key)
        self.position += 1
        place = {"first": self.position - 1, "after": self.position}
        admitted = self.do(self.admission.admit(LOG, PLACE, **place, plans=[plan], now_ms=self.now))
        for each in admitted:
            self.known[each.invocation.id] = Expected(each.invocation)

    @rule(who=st.sampled_from(["one", "two"]))
    def move_the_shard(self, who: str) -> None:
        self.own(who)

    @rule(seconds=st.integers(1, 70))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * 1000

    @rule(data=st.data())
    def open(self, data: Any) -> None:
        one = self.any_of(data, *LIVING)
        if one is None:
            return
        wants = one.state in {State.QUEUED, State.WAITING} and self.head_of(one)
        opening = an_opening(one.invocation, number=one.attempts + 1, epoch=self.epoch(one), started_ms=self.now)
        assert self.do(self.ledger.open(opening)) is wants
        if wants:
            one.state, one.reason, one.attempts = State.RUNNING, "", one.attempts + 1
            one.has_answer, one.said = False, None

    @rule(
        data=st.data(), answer=st.sampled_from(["delivered", "accepted", "offered", "failed", "unknown"]), zombie=st.booleans()
    )
    def answer(self, data: Any, answer: str, zombie: bool) -> None:
        waiting = [each for each in self.known.values() if not each.has_answer]
        if not waiting:
            return
        self.answers(data.draw(st.sampled_from(waiting)), answer, zombie=zombie)

    def answers(self, one: Expected, answer: str, *, zombie: bool) -> None:
        states = {"delivered": State.DONE, "accepted": State.ACCEPTED, "offered": State.ACCEPTED}
        state = states.get(answer, State.WAITING)
        self.tick += 1
        settlement = a_settlement(
            one.invocation, state, number=one.attempts, epoch=self.epoch(one) - zombie, ended_ms=self.now + self.tick % 7,
            outcome="accepted" if answer == "offered" else answer, reason={"failed": "retry", "unknown": "retry"}.get(answer, ""),
            due_ms=self.now, duration_ms=1.5,
        )  # fmt: skip
        if state is State.ACCEPTED:
            offer = b'{"n":1}' if answer == "offered" else None
            terms = RunTerms(LEASE_MS, self.now + LONGEST_MS, offer)
            reason = "offered" if offer else ""
            settlement = replace(settlement, run=terms, due_ms=self.now + LEASE_MS, reason=reason)
        moved = self.do(self.ledger.settle(settlement))
        lives = one.state is State.ACCEPTED
        counts = not zombie and (one.state is State.RUNNING or (lives and answer != "unknown"))
        assert moved is counts
        if zombie:
            return
        one.has_answer = True
        if counts:
            one.state, one.reason = state, settlement.reason
            if state is State.ACCEPTED:
                one.lease_ms, one.ends_ms = self.now + LEASE_MS, self.now + LONGEST_MS
            one.ends += state in END_STATES

    @rule(data=st.data())
    def find_what_is_over(self, data: Any) -> None:
        heads = self.do(self.ledger.over_runs([TRIAGE], now_ms=self.now, limit=50))
        over = {
            each.invocation.id for each in self.known.values()
            if each.state is State.ACCEPTED and min(each.lease_ms, each.ends_ms) <= self.now
        }  # fmt: skip
        assert {head.invocation.id for head in heads} == over
        for head in heads:
            one = self.known[head.invocation.id]
            stall = judged(head, RULES, WATCH, epoch=self.epoch(one), now_ms=self.now)
            assert not self.do(self.ledger.end_run(replace(stall, epoch=stall.epoch - 1)))
            assert self.do(self.ledger.end_run(stall))
            one.state, one.reason, one.has_answer = stall.state, stall.reason, True
            one.said = (stall.verdict, stall.reason)
            one.ends += stall.state in END_STATES

    @rule()
    def fetch(self) -> None:
        taken = self.do(take(self.engine, Poller("default", "triage", "p", "w"), limit=2, now_ms=self.now))
        offered = [e for e in self.known.values() if e.state is State.ACCEPTED and e.reason == "offered"]
        assert [each.invocation_id for each in taken] == [each.invocation.id for each in offered[:2]]
        for each in taken:
            one = self.known[each.invocation_id]
            one.reason, one.lease_ms, one.ends_ms = "", each.lease_ms, each.ends_ms

    # what the agent says

    def say(self, one: Expected, told: Report) -> tuple[bool, Any]:
        try:
            return True, self.do(report(self.engine, told, now_ms=self.now))
        except Conflict:
            return False, None

    @rule(
        data=st.data(),
        said=st.sampled_from(list(Said)),
        back=st.sampled_from([0, 0, 0, 0, 1, 2]),
        verdict=st.sampled_from(VERDICTS),
        note=st.sampled_from("xy"),
    )
    def agent_says(self, data: Any, said: Said, back: int, verdict: str, note: str) -> None:
        one = data.draw(st.sampled_from(list(self.known.values()))) if self.known else None
        if one is not None:
            self.says(one, said, max(one.attempts - back, 0), verdict, note)

    def says(self, one: Expected, said: Said, number: int, verdict: str, note: str) -> None:
        verdict = "failed" if said is Said.FAIL else verdict
        ending = Ending(verdict, note, {"n": 1}, _decide(verdict, note)) if said in {Said.COMPLETE, Said.FAIL} else None
        terms = RunTerms(LEASE_MS, self.now + LONGEST_MS)
        kept = orjson.dumps({"at": self.now}).decode()
        told = Report("default", one.invocation.id, said, number, terms, kept if said is Said.CHECKPOINT else "", ending=ending)
        phase = phase_of(one.state, one.reason, attempts=one.attempts, number=number)
        effect = effect_of(phase, said)
        before = replace(one)

        went, answer = self.say(one, told)

        repeats = ending is not None and one.said == (verdict, note) and phase.value in {"ended", "parked", "between"}
        assert went is (repeats or effect not in {Effect.REFUSE, Effect.REPEAT})
        if repeats or effect in {Effect.STOP, Effect.REFUSE, Effect.REPEAT}:
            pass
        elif effect is Effect.END:
            decided = _decide(verdict, note)(None, phase)
            one.state, one.reason, one.said = decided.state, decided.reason, (verdict, note)
            one.ends += decided.state in END_STATES
        else:
            if effect is Effect.BEGIN:
                one.state, one.reason = State.ACCEPTED, ""
                one.ends_ms = self.now + LONGEST_MS
            if one.state is State.ACCEPTED:
                one.lease_ms = min(self.now + LEASE_MS, one.ends_ms)
            if said is Said.CHECKPOINT:
                one.checkpoint = kept.encode()
        if went and number and number < before.attempts:
            assert (one.state, one.reason) == (before.state, before.reason), "an attempt that is over changed something"
        if went:
            self.check_answer(one, answer[0])

    def check_answer(self, one: Expected, seen: Seen) -> None:
        assert (State(seen.state), seen.reason) == (one.state, one.reason)

    @rule(
        data=st.data(), said=st.sampled_from([Said.HEARTBEAT, Said.CHECKPOINT]), answer=st.sampled_from(["unknown", "accepted"])
    )
    def speaks_before_it_answers(self, data: Any, said: Said, answer: str) -> None:
        """What is rare by chance alone: a sign of life during the call, and then its end."""
        self.open(data)
        calling = [each for each in self.known.values() if each.state is State.RUNNING and not each.has_answer]
        if not calling:
            return
        one = data.draw(st.sampled_from(calling))
        self.says(one, said, one.attempts, "done", "x")
        self.answers(one, answer, zombie=False)

    # what people do

    @rule(data=st.data(), force=st.booleans())
    def cancel(self, data: Any, force: bool) -> None:
        one = self.any_of(data, State.RUNNING, State.ACCEPTED)
        if one is None or not (force or one.reason == "offered"):
            return  # a request to stop is heard by the next heartbeat: the tests of the API show it
        state = self.do(ask_to_stop(self.engine, "default", one.invocation.id, actor="p", force=force, now_ms=self.now))
        assert state == State.CANCELED
        one.state, one.reason, one.said = State.CANCELED, "canceled by an operator", ("canceled", "canceled by an operator")
        one.ends += 1

    @rule(data=st.data(), state=st.sampled_from([State.DONE, State.QUEUED]))
    def resolve(self, data: Any, state: State) -> None:
        parked = [each for each in self.known.values() if (each.state, each.reason) == (State.WAITING, Wait.HUMAN)]
        if not parked:
            return
        one = data.draw(st.sampled_from(parked))
        self.do(resolve(self.engine, "default", one.invocation.id, word=Word(state, state.value, "", "p"), now_ms=self.now))
        one.state, one.reason = state, "resolved by p"
        one.ends += state in END_STATES

    @rule(data=st.data())
    def redrive(self, data: Any) -> None:
        one = self.any_of(data, *REDRIVABLE)
        if one is None:
            return
        assert self.do(self.redress.redrive("default", [one.invocation.id], now_ms=self.now)) == [one.invocation.id]
        one.state, one.reason = State.QUEUED, "redriven"

    # what always holds

    def rows(self, statement: Any) -> list[Any]:
        return [tuple(row) for row in self.do(self.engine.read(OneStep(Call(Prepared(statement)))))]

    @invariant()
    def the_ledger_is_as_the_model(self) -> None:
        found = self.rows(select(invocations.c.id, invocations.c.state, invocations.c.reason, invocations.c.attempts))
        assert {row[0]: row[1:] for row in found} == {
            each.invocation.id: (each.state.value, str(each.reason), each.attempts) for each in self.known.values()
        }

    @invariant()
    def lanes_hold_what_is_open(self) -> None:
        open_ones = Counter(each.invocation.lane for each in self.known.values() if each.state not in END_STATES)
        assert dict(self.rows(select(lanes.c.id, lanes.c.queued))) == dict(open_ones)
        assert set(self.do(gaps(self.engine, since_ms=0, until_ms=self.now + 1)).values()) == {0}

    @invariant()
    def one_of_a_lane_runs_at_a_time(self) -> None:
        running = [each.invocation.lane for each in self.known.values() if each.state in {State.RUNNING, State.ACCEPTED}]
        assert len(running) == len(set(running))

    @invariant()
    def attempts_that_are_over_are_closed(self) -> None:
        joined = select(invocations.c.id, attempts.c.number, attempts.c.outcome).join(
            attempts, attempts.c.invocation_seq == invocations.c.seq
        )
        for ident, number, _ in self.rows(joined.where(attempts.c.ended_ms == 0)):
            one = self.known[ident]
            assert number == one.attempts
            assert one.state in {State.RUNNING, State.ACCEPTED}

    @invariant()
    def open_runs_are_those_that_the_owner_counts(self) -> None:
        found = self.do(self.ledger.open_runs([TRIAGE], now_ms=self.now))[TRIAGE]
        accepted = {each.invocation.id for each in self.known.values() if each.state is State.ACCEPTED}
        assert found.runs == accepted
        kept = dict(
            self.rows(select(invocations.c.id, runs.c.checkpoint).join(runs, runs.c.invocation_seq == invocations.c.seq))
        )
        assert {ident: text.encode() for ident, text in kept.items() if text} == {
            each.invocation.id: each.checkpoint for each in self.known.values() if each.checkpoint
        }

    @invariant()
    def every_end_is_told(self) -> None:
        told = Counter(
            orjson.loads(row[0])["invocation"] for row in self.rows(select(outbox.c.body))
            if orjson.loads(row[0])["state"] in {state.value for state in END_STATES}
        )  # fmt: skip
        assert told == Counter({each.invocation.id: each.ends for each in self.known.values() if each.ends})


BOUNDS = settings(max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
TestRuns = Runs.TestCase
TestRuns.settings = BOUNDS


@pytest.mark.postgres
def test_the_same_on_postgresql(postgres_server: Any) -> None:
    async def template() -> None:
        await migrate(await fresh_database(postgres_server, "machine"))

    asyncio.run(template())
    made = iter(range(10_000))

    class OnPostgres(Runs):
        def __init__(self) -> None:
            type(self).url = asyncio.run(fresh_database(postgres_server, f"machine{next(made)}", template="machine"))
            super().__init__()

    run_state_machine_as_test(OnPostgres, settings=settings(BOUNDS, max_examples=6, stateful_step_count=30))
