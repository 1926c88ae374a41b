"""Windows, late events and blocked keys against models that know no tables."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from schemas.invocation import Flow, State, Wait
from schemas.ledger import Window
from schemas.ranks import Rank, older_by
from store.connect import connect
from store.conservation import gaps
from store.lateness import Seen, judged
from store.redress import Redress
from store.schema import migrate
from store.tables import invocations
from tests.store.plans import NOW, a_plan, a_settlement, an_opening
from tests.store.test_flowing import FlowDesk

ranks = st.builds(Rank, st.sampled_from(("", "1", "2", "10", "x", "2026-11-21T10:00:00Z")), st.integers(0, 4))


@given(st.lists(st.tuples(st.sampled_from("kl"), ranks), max_size=12), st.integers(1, 4))
def test_late_events_are_the_same_however_the_log_is_cut_into_batches(events: list[tuple[str, Rank]], size: int) -> None:
    wanted = []
    for number, (key, rank) in enumerate(events):
        plan = a_plan(f"e{number}", key=key)
        flow = Flow(seen_key=key, version=rank.version, time_ms=rank.time_ms)
        wanted.append((plan, replace(plan.invocations[0], flow=flow)))
    expected, newest = [], dict[str, Rank]()
    for key, rank in events:
        is_late = key in newest and bool(older_by(rank, newest[key]))
        expected.append(is_late)
        if not is_late:
            newest[key] = rank

    found: list[bool] = []
    seen: dict[str, Seen] = {}
    for first in range(0, len(wanted), size):
        left, dropped, seen = judged(wanted[first : first + size], seen)
        assert dropped == []
        found += [bool(each.flow and each.flow.stale) for _, each in left]

    assert found == expected
    assert {key: mark.rank for key, mark in seen.items()} == newest


WINDOW = Window(wait_ms=1_000, max_wait_ms=3_000, max_events=3)
acts = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.integers(0, 1_500)),
        st.tuples(st.just("look"), st.integers(0, 2_000)),
        st.tuples(st.just("fail"), st.integers(0, 500)),
        st.tuples(st.just("block"), st.integers(0, 500)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=25,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "store.db"
    asyncio.run(migrate(f"sqlite:///{path}"))
    return path


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(acts)
def test_every_event_of_a_key_is_handed_over_once_in_order_whatever_happens(
    template: Path, wanted: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_played(wanted, Path(shutil.copy(template, folder))))


class _Play:
    """One key's life, and what its agent got."""

    def __init__(self, desk: FlowDesk) -> None:
        self.desk = desk
        self.now_ms = NOW
        self.admitted: list[str] = []
        self.canceled: set[str] = set()
        self.sent: dict[str, list[str]] = {}
        self.delivered: list[str] = []

    async def admit(self, after_ms: int) -> None:
        self.now_ms += after_ms
        (found,) = await self.desk.let_in(f"e{len(self.admitted)}", at_ms=self.now_ms, due_in_ms=WINDOW.wait_ms, full_at=3)
        self.admitted.append(found.event_id)

    async def look(self, after_ms: int, *, becomes: State = State.DONE) -> None:
        """What a dispatcher does with what is due: close the window, or attempt what hands one over."""
        self.now_ms += after_ms
        for head in await self.desk.due(self.now_ms):
            if not head.digest and not head.attempts:
                assert await self.desk.ledger.gather(head, WINDOW, epoch=1, now_ms=self.now_ms) is not None
        for head in await self.desk.due(self.now_ms):
            if head.digest:
                await self._attempted(head, becomes)

    async def _attempted(self, head, becomes: State) -> None:
        invocation, number = head.invocation, head.attempts + 1
        events = [event.id for event in head.digest]
        assert self.sent.setdefault(invocation.id, events) == events, "a retry hands over the same"
        assert len(events) <= WINDOW.max_events
        assert await self.desk.ledger.open(an_opening(invocation, number=number))
        words = {"number": number, "ended_ms": self.now_ms, "outcome": "x"}
        if becomes is State.DONE:
            self.delivered += events
            assert await self.desk.ledger.settle(a_settlement(invocation, State.DONE, **words))
        else:
            words |= {"reason": Wait.BLOCKED, "due_ms": 0}
            assert await self.desk.ledger.settle(a_settlement(invocation, State.WAITING, **words))

    async def unblock(self) -> None:
        rows = await self.desk.rows(select(invocations.c.id).where(invocations.c.reason == Wait.BLOCKED.value))
        await Redress(self.desk.engine).redrive("default", [str(row[0]) for row in rows], now_ms=self.now_ms)

    async def cancel(self, number: int) -> None:
        rows = await self.desk.rows(
            select(invocations.c.id, invocations.c.event_id).where(invocations.c.state == "queued", invocations.c.reason == "")
        )
        if rows:
            ident, event_id = rows[number % len(rows)]
            done = await Redress(self.desk.engine).cancel("default", [str(ident)], reason="by hand", now_ms=self.now_ms)
            self.canceled |= {str(event_id)} if done else set()


async def _played(wanted: list[tuple[str, int]], path: Path) -> None:
    store = connect(f"sqlite:///{path}")
    await store.start()
    desk = FlowDesk(store.engine)
    await desk.ledger.hold_shards("me", lease_ms=600_000)
    play = _Play(desk)
    for act, number in [*wanted, ("settle", 0)]:
        if act == "admit":
            await play.admit(number)
        elif act == "look":
            await play.look(number)
        elif act in {"fail", "block"}:
            await play.look(number, becomes=State.WAITING)
        elif act == "cancel":
            await play.cancel(number)
        elif act == "restart":
            await store.aclose()
            store = connect(f"sqlite:///{path}")
            await store.start()
            play.desk = FlowDesk(store.engine)
            play.desk.position = desk.position = len(play.admitted)
        else:
            for _ in range(2 * len(play.admitted) + 2):
                await play.unblock()
                await play.look(WINDOW.max_wait_ms)
    open_rows = await play.desk.rows(select(invocations.c.id).where(invocations.c.ended_ms == 0))
    ends = dict(await play.desk.rows(select(invocations.c.state, invocations.c.id)))
    missing = await gaps(store.engine, since_ms=0, until_ms=play.now_ms + 1)
    await store.aclose()
    assert open_rows == []
    assert play.delivered == [event for event in play.admitted if event not in play.canceled]
    assert set(ends) <= {"done", "digested", "canceled"}
    assert missing == {"route": 0, "dispatch": 0}
