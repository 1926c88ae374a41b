"""What contexts draw on, on each engine: history, facts, secrets, sums."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import func, select

from schemas.context import Sent
from schemas.errors import Conflict, Invalid, NotFound
from schemas.ids import invocation_id, shard_of
from schemas.invocation import Invocation, Order, Planned, State
from schemas.ledger import Opening, Settlement
from store.admission import Admission
from store.calibrations import (
    MOST_FAMILIES,
    MOST_SAMPLES,
    Lesson,
    SampleRow,
    calibration_of,
    calibrations_of,
    learnt,
)
from store.credentials import Credentials
from store.engine import Engine, fetch
from store.facts import KEPT_VERSIONS, MOST_NAMES, Facts, NewFact
from store.fetches import context_sums, fetched, note_fetch
from store.history import Histories
from store.ledger import Ledger
from store.prepared import SQLITE, Prepared
from store.retention import Keep, Retention
from store.sent import sent_of
from store.tables import attempts
from store.upkeep import reseal
from store.vault import Vault
from store.work import invocation_row
from tests.store.plans import LOG, PLACE, an_event

NOW = 1_800_000_000_000
THING = "default/github-acme/I_1"


async def admitted(engine: Engine, count: int, *, thing: str = THING) -> list[Invocation]:
    plans = []
    for number in range(count):
        event = replace(
            an_event(f"{thing}-{number}"), partitionkey=thing, received_ms=NOW + number * 1000, summary=f"No {number}"
        )
        ident = invocation_id(event.id, "sub_bugs")
        work = Invocation(
            ident, "default", event.id, "sub_bugs", "bugs", 1, "triage", shard_of("default", "triage"), thing, f"sub_bugs|{thing}",
            Order.STRICT, NOW, NOW,
        )  # fmt: skip
        plans.append(Planned(event, number, (work,)))
    place = replace(PLACE, topic=f"t-{thing}") if hasattr(PLACE, "__dataclass_fields__") else PLACE._replace(topic=f"t-{thing}")
    await Admission(engine).admit(LOG, place, first=0, after=count, plans=plans, now_ms=NOW)
    return [plan.invocations[0] for plan in plans]


async def settled(engine: Engine, work: Invocation, **fields: object) -> None:
    ledger = Ledger(engine)
    [lease, *_] = [one for one in await ledger.hold_shards("me", lease_ms=60_000) if one.shard == work.shard]
    assert await ledger.open(Opening(work.id, 1, work.shard, lease.epoch, "me", NOW, NOW + 30_000))
    whole = {"outcome": "delivered", "state": State.DONE, "reason": "delivered", "ended_ms": NOW + 5, "tries": 1, "sent": True}
    made = Settlement(work.id, "default", work.lane, 1, work.shard, lease.epoch, **(whole | fields))  # type: ignore[arg-type]
    assert await ledger.settle(made)


async def test_the_last_events_of_a_thing_come_newest_first_with_what_came_of_them(engine: Engine) -> None:
    first, *_ = await admitted(engine, 6)
    await admitted(engine, 2, thing="default/github-acme/I_2")
    await settled(engine, first)

    found = await Histories(engine).last(team="default", thing=THING, before_ms=NOW + 3000, after_ms=NOW, limit=9)
    two = await Histories(engine).last(team="default", thing=THING, before_ms=NOW + 3000, after_ms=NOW, limit=2)

    assert [past.summary for past in found] == ["No 2", "No 1", "No 0"]
    assert [past.outcome for past in found] == ["", "", "done by triage"]
    assert two == found[:2]
    assert await Histories(engine).last(team="other", thing=THING, before_ms=NOW + 3000, after_ms=NOW, limit=9) == []


async def test_the_history_of_a_thing_is_read_by_its_index(engine: Engine) -> None:
    if engine.dialect != SQLITE:
        pytest.skip("PostgreSQL plans by its statistics: an empty table is read whole")
    from sqlalchemy import text

    from store.history import _LAST

    plan = await fetch(engine, Prepared(text("EXPLAIN QUERY PLAN " + _LAST.form(SQLITE).text.replace("?", "0"))))

    assert "ix_events_thing" in str([tuple(row) for row in plan])
    assert "TEMP B-TREE" not in str([tuple(row) for row in plan])


def fact(name: str = "tier", value: object = "gold", **fields: object) -> NewFact:
    whole: dict[str, object] = {"team": "default", "thing": THING, "name": name, "value": value, "by": "triage"}
    return NewFact(**(whole | fields))  # type: ignore[arg-type]


async def test_a_fact_says_what_was_done_when_and_in_which_run(engine: Engine) -> None:
    shelf = Facts(engine)

    await shelf.put(fact("refunded", {"amount": 12}, invocation_id="inv_1"), now_ms=NOW)
    [found] = await shelf.versions(team="default", thing=THING, name="refunded")

    assert (found.value, found.by, found.at_ms, found.invocation_id, found.version) == (
        {"amount": 12},
        "triage",
        NOW,
        "inv_1",
        1,
    )


async def test_only_the_last_version_of_a_fact_is_told(engine: Engine) -> None:
    shelf = Facts(engine)
    await shelf.put(fact(value="silver"), now_ms=NOW)
    await shelf.put(fact(value="gold"), now_ms=NOW + 1)
    await shelf.put(fact("plan", "pro"), now_ms=NOW)
    await shelf.put(fact("plan", None), now_ms=NOW + 1)
    await shelf.put(fact("soon", 1, expires_ms=NOW + 10), now_ms=NOW)

    early, late = [await shelf.about(team="default", thing=THING, at_ms=at) for at in (NOW + 9, NOW + 10)]

    assert [(row.name, row.value, row.version) for row in early] == [("soon", 1, 1), ("tier", "gold", 2)]
    assert [row.name for row in late] == ["tier"]
    assert await shelf.about(team="other", thing=THING, at_ms=NOW) == []
    assert await shelf.about(team="default", thing="another", at_ms=NOW) == []


async def test_a_fact_that_must_follow_a_version_follows_no_other(engine: Engine) -> None:
    shelf = Facts(engine)
    await shelf.put(fact(after=0), now_ms=NOW)

    with pytest.raises(Conflict):
        await shelf.put(fact(after=0), now_ms=NOW)
    assert (await shelf.put(fact(after=1), now_ms=NOW)).version == 2


async def test_writers_at_the_same_time_each_get_a_version(engine: Engine) -> None:
    shelf = Facts(engine)

    made = await asyncio.gather(*(shelf.put(fact(value=number), now_ms=NOW) for number in range(2)))

    assert sorted(row.version for row in made) == [1, 2]


async def test_a_pinned_fact_survives_any_number_of_runs_and_old_versions_go(engine: Engine) -> None:
    shelf = Facts(engine)
    await shelf.put(fact("rule", "never refund", pinned=True), now_ms=NOW)
    for number in range(KEPT_VERSIONS + 5):
        await shelf.put(fact("seen", number), now_ms=NOW + number)

    swept = await Retention(engine, Keep(), pause_s=0).sweep(NOW + 400 * 86_400_000)

    assert swept["facts"] == 0
    told = await shelf.about(team="default", thing=THING, at_ms=NOW)
    assert [(row.name, row.pinned) for row in told] == [("rule", True), ("seen", False)]
    versions = await shelf.versions(team="default", thing=THING, name="seen")
    assert [row.version for row in versions] == list(range(KEPT_VERSIONS + 5, 5, -1))


async def test_facts_that_ended_are_swept(engine: Engine) -> None:
    shelf = Facts(engine)
    await shelf.put(fact("soon", 1, expires_ms=NOW + 10), now_ms=NOW)
    await shelf.put(fact(), now_ms=NOW)

    swept = await Retention(engine, Keep(), pause_s=0).sweep(NOW + 11)

    assert swept["facts"] == 1
    assert [row.name for row in await shelf.about(team="default", thing=THING, at_ms=0)] == ["tier"]


async def test_a_thing_has_only_so_many_facts(engine: Engine) -> None:
    shelf = Facts(engine)
    for number in range(MOST_NAMES):
        await shelf.put(fact(f"f{number}"), now_ms=NOW)

    with pytest.raises(Invalid):
        await shelf.put(fact("one-more"), now_ms=NOW)
    assert (await shelf.put(fact("f0", "changed"), now_ms=NOW)).version == 2


async def test_a_named_secret_is_sealed_and_opens_under_a_new_master_key(engine: Engine) -> None:
    old, new = bytes(range(32)), bytes(range(1, 33))
    await Credentials(engine, Vault([old])).put(team="default", name="crm", value="s3cret", actor="ann", now_ms=NOW)

    await reseal(engine, Vault([new, old]), team="default", actor="ann", now_ms=NOW)

    secrets = Credentials(engine, Vault([new]))
    assert await secrets.secret(team="default", name="crm") == "s3cret"
    assert [row.name for row in await secrets.names("default")] == ["crm"]
    with pytest.raises(NotFound):
        await secrets.secret(team="other", name="crm")
    await secrets.drop(team="default", name="crm", actor="ann", now_ms=NOW)
    with pytest.raises(NotFound):
        await secrets.drop(team="default", name="crm", actor="ann", now_ms=NOW)


async def test_contexts_are_summed_by_subscription(engine: Engine) -> None:
    first, second = await admitted(engine, 2)
    await settled(engine, first, tokens=80, raw_tokens=2000, context_digest="d", missing=2, cut=0)
    await settled(engine, second, tokens=70, raw_tokens=1000, context_digest="d", missing=0, cut=3)

    [sums] = await context_sums(engine, "default", since_ms=NOW)

    assert (sums.subscription, sums.contexts, sums.raw_tokens, sums.tokens, sums.missing, sums.cut) == (
        "bugs",
        2,
        3000,
        150,
        1,
        1,
    )
    assert await context_sums(engine, "default", since_ms=NOW + 1) == []
    assert await context_sums(engine, "other", since_ms=0) == []


async def test_what_is_fetched_by_reference_is_counted(engine: Engine) -> None:
    for pointer in ("/issue/body", "/issue/body", "/issue/user/login"):
        await note_fetch(engine, subscription_uid="sub_1", pointer=pointer, now_ms=NOW)

    assert await fetched(engine, "sub_1", since_ms=NOW) == {"/issue/body": 2, "/issue/user/login": 1}
    assert await fetched(engine, "sub_1", since_ms=NOW + 1) == {}


def a_body(number: int, context: bytes = b'{"title":"x"}') -> Sent:
    before = b'{"invocation":{"attempt":%d},"context":' % number
    return Sent(before + context + b',"links":{"token":"(token)"}}', len(before), len(context))


async def tried(engine: Engine, work: Invocation, number: int, **fields: object) -> None:
    ledger = Ledger(engine)
    [lease] = [one for one in await ledger.hold_shards("me", lease_ms=60_000) if one.shard == work.shard]
    assert await ledger.open(Opening(work.id, number, work.shard, lease.epoch, "me", NOW, NOW + 30_000))
    state = fields.pop("state", State.WAITING)
    whole = {"outcome": "failed", "state": state, "reason": "retry", "ended_ms": NOW + number, "tries": number, "sent": True}
    made = Settlement(work.id, "default", work.lane, number, work.shard, lease.epoch, **(whole | fields))  # type: ignore[arg-type]
    assert await ledger.settle(made)


async def seq_of(engine: Engine, work: Invocation) -> int:
    row = await invocation_row(engine, "default", work.id)
    assert row is not None
    return row.seq


async def test_what_each_attempt_sent_is_kept_byte_for_byte(engine: Engine) -> None:
    [work] = await admitted(engine, 1)
    other = b'{"title":"changed"}'
    bodies = {1: a_body(1), 2: a_body(2), 3: a_body(3, other), 4: Sent(b"a=1&b=2"), 6: a_body(6, other)}
    digests = {1: "d1", 2: "d1", 3: "d2", 4: "d1", 5: "d1", 6: "d2"}
    for number, digest in digests.items():
        await tried(engine, work, number, body=bodies.get(number), context_digest=digest)

    found = await sent_of(engine, await seq_of(engine, work))

    assert {row.number: row.body for row in found if row.body} == bodies
    assert {row.number: row.context_digest for row in found} == digests
    assert found[0].body is not None
    assert found[0].body.context == b'{"title":"x"}'


async def test_a_context_that_several_attempts_sent_is_kept_once(engine: Engine) -> None:
    [work] = await admitted(engine, 1)
    context = b'"%b"' % b"".join(hashlib.sha256(bytes([n])).hexdigest().encode() for n in range(200))  # does not pack well
    for number in range(1, 9):
        await tried(engine, work, number, body=a_body(number, context), context_digest="same")

    kept = await fetch(engine, Prepared(select(func.length(attempts.c.sent_body)).order_by(attempts.c.number)))

    sizes = [row[0] for row in kept]
    assert sizes[0] > len(context) / 2
    assert max(sizes[1:]) < 150
    assert (await sent_of(engine, await seq_of(engine, work)))[7].body == a_body(8, context)


async def test_what_was_sent_goes_with_its_event(engine: Engine) -> None:
    [work] = await admitted(engine, 1)
    await tried(engine, work, 1, body=a_body(1), context_digest="d", state=State.DONE, outcome="delivered")
    seq = await seq_of(engine, work)

    await Retention(engine, Keep(events_days=1), pause_s=0).sweep(NOW + 2 * 86_400_000)

    assert await sent_of(engine, seq) == []


def mean(_family: str, samples: Sequence[SampleRow]) -> int:
    return round(1000 * sum(reported / counted for counted, reported, _ in samples) / len(samples))


async def taught(engine: Engine, family: str, sample: SampleRow, judge=mean) -> None:
    await engine.write(lambda: learnt("default", Lesson(family, sample, judge), NOW))


async def test_what_reports_teach_is_kept_by_family_and_bounded(engine: Engine) -> None:
    for _ in range(MOST_SAMPLES + 9):
        await taught(engine, "claude", (100, 120, True))
    await taught(engine, "mistral", (100, 150, False))

    [claude, mistral] = await calibrations_of(engine, "default")

    assert (claude.factor_permille, claude.version, claude.samples) == (1200, 1, MOST_SAMPLES)
    assert (mistral.factor_permille, mistral.version, mistral.samples) == (1500, 1, 1)
    assert await calibration_of(engine, "default", "claude") == (1, 1200)
    assert await calibration_of(engine, "other", "claude") == (0, 0)


async def test_the_version_of_a_factor_rises_when_it_changes(engine: Engine) -> None:
    for reported in (120, 120, 240):
        await taught(engine, "claude", (100, reported, True))

    assert await calibration_of(engine, "default", "claude") == (2, 1600)


async def test_only_so_many_families_are_kept(engine: Engine) -> None:
    for number in range(MOST_FAMILIES + 3):
        await taught(engine, f"family{number}", (100, 120, True))

    assert len(await calibrations_of(engine, "default")) == MOST_FAMILIES
