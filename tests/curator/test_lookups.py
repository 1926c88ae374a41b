"""Lookups: only pieces of a URL come from an event, one answer serves many, and a failure loses nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from curator.enrich import NoUrl, found_in, url_for
from curator.lookups import BREAK_AFTER, BREAK_MS, Lookups
from curator.ports import Found
from schemas.config import LookupSpec
from schemas.errors import AddressRefused, AgentTimedOut, NotFound

DOCUMENT = {
    "actor": "nora",
    "data": {"customer": {"id": "c/../1?x=y#z", "n": 42}, "dots": "..", "list": [1], "long": "x" * 500, "no": ""},
}


@dataclass
class Answer:
    status: int = 200
    body: bytes = b'{"plan": "pro", "name": "Acme"}'
    truncated: bool = False


class Crm:
    """A source that remembers what it was asked, and answers when it is let."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers) or [Answer()]
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, method, url, *, headers, timeout_s, allow_private, max_answer_bytes):
        self.asked.append((url, dict(headers)))
        await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def secret(self, *, team, name):
        if name == "unknown":
            raise NotFound(name)
        return f"s3cret-{name}"


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


def spec(url="https://crm.example/customers/{data.customer.n}", **wanted) -> LookupSpec:
    return LookupSpec(url=url, **wanted)


def lookups(crm, clock=None) -> Lookups:
    return Lookups(crm, crm, clock or Clock())


def test_a_value_is_encoded_whole_and_cannot_leave_its_place():
    assert url_for(spec("https://crm.example/c/{data.customer.id}"), DOCUMENT) == "https://crm.example/c/c%2F..%2F1%3Fx%3Dy%23z"
    assert url_for(spec("https://crm.example/{data.dots}/admin"), DOCUMENT) == "https://crm.example/%2E%2E/admin"
    assert url_for(spec("https://crm.example/c?q={actor}&n={data.customer.n}"), DOCUMENT) == "https://crm.example/c?q=nora&n=42"


@pytest.mark.parametrize(
    "hole", ["data.nothing", "data.list", "data.customer", "data.long", "data.no", "length(data.customer.n)"]
)
def test_what_is_not_one_short_value_gives_no_url(hole):
    with pytest.raises(NoUrl):
        url_for(spec(f"https://crm.example/{{{hole}}}"), DOCUMENT)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (Answer(status=404), "status 404"),
        (Answer(status=302), "status 302"),
        (Answer(truncated=True), "too large"),
        (Answer(body=b"<html>"), "no JSON"),
        (Answer(body=b"null"), "empty"),
        (Answer(body=b"[" * 253 + b"]" * 253), "nested too deeply"),
    ],
)
def test_an_answer_that_is_no_document_is_a_failure_with_its_reason(answer, failure):
    assert found_in(answer, spec(), fetched_ms=1) == Found(fetched_ms=1, failure=failure)


def test_a_view_projects_the_answer():
    assert found_in(Answer(), spec(view="{plan: plan}"), fetched_ms=1).value == {"plan": "pro"}
    assert found_in(Answer(), spec(view="length(plan.x)"), fetched_ms=1).failure == "the view failed"


async def test_secrets_go_into_headers_and_nowhere_else():
    crm = Crm()

    await lookups(crm).all_of(
        {"crm": spec(headers={"authorization": "Bearer ${secret.crm}"})}, team="default", document=DOCUMENT
    )

    assert crm.asked == [("https://crm.example/customers/42", {"authorization": "Bearer s3cret-crm"})]


async def test_fifty_agents_of_one_event_ask_once():
    crm = Crm()
    crm.gate.clear()
    shared = lookups(crm)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(shared.all_of({"crm": spec()}, team="default", document=DOCUMENT)) for _ in range(50)]
        await asyncio.sleep(0)
        crm.gate.set()

    assert len(crm.asked) == 1
    assert all(task.result()["crm"].value == {"plan": "pro", "name": "Acme"} for task in running)


async def test_an_answer_is_cached_for_its_time_and_carries_its_age():
    crm, clock = Crm(), Clock()
    shared = lookups(crm, clock)
    first = await shared.all_of({"crm": spec(cache=60)}, team="default", document=DOCUMENT)
    clock.now_ms += 60_000
    again = await shared.all_of({"crm": spec(cache=60)}, team="default", document=DOCUMENT)
    clock.now_ms += 1
    await shared.all_of({"crm": spec(cache=60)}, team="default", document=DOCUMENT)

    assert again["crm"].fetched_ms == first["crm"].fetched_ms
    assert len(crm.asked) == 2


async def test_teams_do_not_share_answers():
    crm = Crm()
    shared = lookups(crm)
    for team in ("one", "two"):
        await shared.all_of({"crm": spec()}, team=team, document=DOCUMENT)

    assert len(crm.asked) == 2


@pytest.mark.parametrize("failure", [AgentTimedOut(), AddressRefused()])
async def test_a_failure_is_a_reason_and_never_raised(failure):
    found = await lookups(Crm(failure)).all_of({"crm": spec()}, team="default", document=DOCUMENT)

    assert found["crm"].failure == failure.code


async def test_an_unknown_secret_is_a_reason():
    found = await lookups(Crm()).all_of({"crm": spec(headers={"a": "${secret.unknown}"})}, team="default", document=DOCUMENT)

    assert found["crm"].failure == "not_found"


async def test_a_source_that_keeps_failing_is_left_in_peace_and_tried_again():
    crm, clock = Crm(Answer(status=500)), Clock()
    shared = lookups(crm, clock)
    for _ in range(BREAK_AFTER):
        await shared.all_of({"crm": spec()}, team="default", document=DOCUMENT)
    resting = await shared.all_of({"crm": spec()}, team="default", document=DOCUMENT)
    asked = len(crm.asked)
    clock.now_ms += BREAK_MS
    crm.answers = [Answer()]
    healed = await shared.all_of({"crm": spec()}, team="default", document=DOCUMENT)

    assert resting["crm"].failure == "resting after failures"
    assert asked == BREAK_AFTER
    assert healed["crm"].value


async def test_a_customer_that_is_not_there_does_not_rest_the_source():
    crm = Crm(Answer(status=404))
    shared = lookups(crm)
    for _ in range(BREAK_AFTER + 2):
        await shared.all_of({"crm": spec()}, team="default", document=DOCUMENT)

    assert len(crm.asked) == BREAK_AFTER + 2


async def test_one_that_is_canceled_does_not_hang_the_others():
    crm = Crm()
    crm.gate.clear()
    shared = lookups(crm)
    first = asyncio.create_task(shared.all_of({"crm": spec()}, team="default", document=DOCUMENT))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.create_task(shared.all_of({"crm": spec()}, team="default", document=DOCUMENT))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()

    assert (await second)["crm"].failure == "canceled"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_no_lookups_ask_nothing():
    assert await lookups(Crm()).all_of({}, team="default", document=DOCUMENT) == {}
