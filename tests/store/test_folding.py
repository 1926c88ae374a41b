from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from schemas.errors import Conflict
from schemas.invocation import Invocation, Planned
from schemas.topics import Place
from store.admission import Admission
from store.connect import Store, connect
from store.conservation import gaps
from store.engine import Call, Engine, OneStep
from store.folding import decided, folds_of
from store.prepared import Prepared
from store.retention import DAY_MS, Keep, Retention
from store.tables import dedups, folds, invocations
from tests.servers.postgres import PostgresServer, fresh_database
from tests.store.plans import LOG, NOW, PLACE, an_event, an_invocation

WINDOW_MS = 60_000


def a_keyed_plan(identity: str, *, key: str = "sha-1", after_ms: int = 0, uids: tuple[str, ...] = ("sub-1",)) -> Planned:
    event = replace(an_event(identity), received_ms=NOW + after_ms)
    return Planned(event, 0, tuple(keyed(an_invocation(event, uid=uid), key) for uid in uids))


def keyed(invocation: Invocation, key: str) -> Invocation:
    digest = f"{invocation.subscription_uid}/{invocation.replay_id}/{key}" if key else ""
    return replace(invocation, dedup_digest=digest, dedup_window_ms=WINDOW_MS if key else 0)


class Log:
    """Admits plans at the next positions of one place."""

    def __init__(self, engine: Engine, place: Place = PLACE) -> None:
        self.admission, self.place, self.position = Admission(engine), place, 0

    async def admit(self, *plans: Planned, now_ms: int = NOW) -> list[str]:
        first, self.position = self.position, self.position + len(plans)
        found = await self.admission.admit(LOG, self.place, first=first, after=self.position, plans=plans, now_ms=now_ms)
        return [item.event.id for item in found]


async def count(engine: Engine, table: object) -> int:
    rows = await engine.read(OneStep(Call(Prepared(select(func.count()).select_from(table)))))
    return int(rows[0][0])


def ids(*identities: str) -> list[str]:
    return [an_event(identity).id for identity in identities]


async def test_a_known_key_within_its_window_wakes_nobody_again(engine: Engine) -> None:
    log = Log(engine)

    first = await log.admit(a_keyed_plan("a"), a_keyed_plan("b", after_ms=1), a_keyed_plan("other", key="sha-2"))
    later = await log.admit(a_keyed_plan("c", after_ms=WINDOW_MS - 1))

    assert (first, later) == (ids("a", "other"), [])
    assert await count(engine, invocations) == 2


async def test_the_window_ends_by_the_receipt_of_events_and_not_by_the_clock(engine: Engine) -> None:
    log = Log(engine)
    await log.admit(a_keyed_plan("a"))

    read_late = await log.admit(a_keyed_plan("b", after_ms=WINDOW_MS - 1), now_ms=NOW + DAY_MS)
    over = await log.admit(a_keyed_plan("c", after_ms=WINDOW_MS), a_keyed_plan("d", after_ms=WINDOW_MS + 1))

    assert (read_late, over) == ([], ids("c"))


async def test_an_event_that_came_much_too_late_is_news_and_leaves_the_window_as_it_was(engine: Engine) -> None:
    log = Log(engine)
    await log.admit(a_keyed_plan("a"))

    late = await log.admit(a_keyed_plan("b", after_ms=-WINDOW_MS), a_keyed_plan("c", after_ms=-WINDOW_MS + 1))

    assert late == ids("b")
    assert await log.admit(a_keyed_plan("d", after_ms=1)) == []


async def test_what_was_folded_says_whose_duplicate_it_is(engine: Engine) -> None:
    log = Log(engine)
    first, second = a_keyed_plan("a", uids=("sub-1", "sub-2")), a_keyed_plan("b", after_ms=5)

    await log.admit(first, second)

    (fold,) = await folds_of(engine, second.event.id)
    assert (fold.subscription_uid, fold.invocation_id, fold.of_event) == ("sub-1", first.invocations[0].id, first.event.id)
    assert await folds_of(engine, first.event.id) == []


async def test_a_redelivery_neither_folds_nor_lengthens_anything(engine: Engine) -> None:
    log = Log(engine)
    await log.admit(a_keyed_plan("a"))

    again = await log.admit(a_keyed_plan("a", after_ms=30_000), a_keyed_plan("a", after_ms=WINDOW_MS + 1))

    assert (again, await count(engine, folds)) == ([], 0)
    assert await log.admit(a_keyed_plan("b", after_ms=WINDOW_MS)) == ids("b")


async def test_a_key_that_is_held_does_not_outlive_an_admission_that_was_undone(engine: Engine) -> None:
    log = Log(engine)
    plan = a_keyed_plan("a")
    twice = replace(plan, invocations=(plan.invocations[0], replace(plan.invocations[0], dedup_digest="")))

    with pytest.raises(Conflict):
        await log.admit(twice)

    assert await count(engine, dedups) == 0
    log.position = 0
    assert await log.admit(plan) == ids("a")


async def test_without_a_key_nothing_is_held(engine: Engine) -> None:
    log = Log(engine)

    admitted = await log.admit(a_keyed_plan("a", key=""), a_keyed_plan("b", key=""))

    assert admitted == ids("a", "b")
    assert await count(engine, dedups) == 0


async def test_a_replay_folds_its_own_events_and_the_same_ones_when_it_is_run_again(engine: Engine) -> None:
    log = Log(engine)
    plans = [a_keyed_plan(name, after_ms=at) for name, at in (("a", 0), ("b", 50_000), ("c", 70_000))]
    await log.admit(*plans)
    replayed = [
        Planned(plan.event, 0, (keyed(an_invocation(plan.event, replay="rpl_1"), "sha-1"),), appended_ms=NOW) for plan in plans
    ]

    once, twice = await log.admission.admit_replay(replayed), await log.admission.admit_replay(replayed)

    assert [item.event.id for item in once] == ids("a", "c")
    assert twice == []


async def test_folded_events_are_no_gap(engine: Engine) -> None:
    await Log(engine).admit(a_keyed_plan("a"), a_keyed_plan("b", after_ms=1), a_keyed_plan("c", after_ms=2))

    assert await gaps(engine, since_ms=NOW - 1, until_ms=NOW + 1) == {"route": 0, "dispatch": 0}


async def test_held_keys_go_when_the_log_can_hold_no_event_of_their_window(engine: Engine) -> None:
    await Log(engine).admit(a_keyed_plan("a"))
    retention = Retention(engine, Keep(dedups_days=7), pause_s=0)

    early, late = [(await retention.sweep(NOW + at))["dedups"] for at in (7 * DAY_MS, 7 * DAY_MS + WINDOW_MS + 1)]

    assert (early, late, await count(engine, dedups)) == (0, 1, 0)


async def test_the_note_of_a_fold_goes_with_its_event(engine: Engine) -> None:
    await Log(engine).admit(a_keyed_plan("a", key=""), a_keyed_plan("b"), a_keyed_plan("c", after_ms=1))

    await Retention(engine, Keep(events_days=30), pause_s=0).sweep(NOW + 31 * DAY_MS)

    assert await count(engine, folds) == 0


@pytest.fixture
async def pair(postgres_server: PostgresServer, postgres_template: str) -> AsyncIterator[tuple[Store, Store]]:
    url = await fresh_database(postgres_server, f"t{uuid4().hex}", template=postgres_template)
    found = connect(url), connect(url)
    for each in found:
        await each.start(may_migrate=True)
    yield found
    for each in found:
        await each.aclose()


@pytest.mark.postgres
async def test_two_routers_at_once_let_one_event_of_a_key_through(pair: tuple[Store, Store]) -> None:
    logs = [Log(pair[number % 2].engine, Place(PLACE.topic, number)) for number in range(8)]
    rounds = []

    for at in range(3):
        found = await asyncio.gather(
            *(
                log.admit(
                    a_keyed_plan(f"{at}-{number}", after_ms=at * WINDOW_MS),
                    a_keyed_plan(f"{at}-{number}-b", key=f"k{number % 3}", after_ms=at * WINDOW_MS),
                )
                for number, log in enumerate(logs)
            )
        )
        rounds.append(sum(map(len, found)))

    assert rounds == [4, 4, 4]


def test_deciding_does_not_touch_what_it_was_given() -> None:
    held: dict[str, object] = {}
    plan = a_keyed_plan("a")

    decided([(plan, plan.invocations[0])], held)

    assert held == {}
