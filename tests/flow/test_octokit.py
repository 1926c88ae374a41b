"""Real payloads: every example of the npm package `@octokit/webhooks-examples`, from the signed request to the agent's call.

The package is fetched with the node of a wheel (`tests/npm` has its lock) into `.cache/`; nothing of it is committed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from examples.senders import SECRETS
from tests.flow.running import ROOT, Running, served, until
from tests.npm.fetch import installed

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]
SOURCE = "github-acme"
CONFIG = """\
version: 1
sources:
  github-acme: {provider: github, secrets: ["${GITHUB_ACME_SECRET}"]}
agents:
  reader: {url: "${AGENTS_URL}/reader", secret: "${AGENT_SECRET}", allow_private: true, max_concurrency: 16}
subscriptions:
  everything: {agent: reader, pattern: {source: [github-acme], type: [{prefix: github.}]}}
"""


@dataclass(frozen=True)
class Example:
    """One payload, as GitHub would send it."""

    name: str
    number: int
    body: bytes

    @property
    def delivery(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.name}/{self.number}"))

    @property
    def headers(self) -> dict[str, str]:
        mac = hmac.new(SECRETS[SOURCE].encode(), self.body, hashlib.sha256).hexdigest()
        return {
            "content-type": "application/json", "x-github-event": self.name, "x-github-delivery": self.delivery,
            "x-hub-signature-256": f"sha256={mac}",
        }  # fmt: skip

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def type(self) -> str:
        action = self.document.get("action")
        return f"github.{self.name}.{action}" if action else f"github.{self.name}"


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    folder = installed(ROOT / "tests/npm") / "node_modules/@octokit/webhooks-examples"
    found = json.loads((folder / "api.github.com/index.json").read_text())
    all_of = [
        Example(event["name"], number, json.dumps(payload).encode())
        for event in found
        for number, payload in enumerate(event["examples"])
    ]
    return list({example.body: example for example in all_of}.values())  # a body that comes twice is a duplicate, and folded


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with served(tmp_path_factory.mktemp("octokit"), CONFIG) as found:
        yield found


@dataclass(frozen=True)
class Arrived:
    """What became of all of them."""

    events: dict[str, dict[str, Any]]  # by delivery id
    contexts: dict[str, dict[str, Any]]  # what the agent got, by event id


@pytest.fixture(scope="module")
def arrived(running: Running, examples: list[Example]) -> Arrived:
    statuses = asyncio.run(_posted(running, examples))
    assert set(statuses) == {202}
    wanted = sum(example.name != "ping" for example in examples)
    until(lambda: running.api("GET", "/v1/counts")[1]["invocations"].get("done", 0) >= wanted, within_s=120, pause_s=0.3)
    events: dict[str, dict[str, Any]] = {}
    cursor = ""
    while True:
        page = running.api("GET", f"/v1/events?limit=500{cursor}")[1]
        events |= {event["deliveryid"]: event for event in page["items"]}
        if not page["next_cursor"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    return Arrived(events, {call.event: call.document for call in running.agents.of("reader")})


async def _posted(running: Running, examples: list[Example]) -> list[int]:
    left = iter(examples)
    statuses: list[int] = []

    async def sender(session: aiohttp.ClientSession) -> None:
        for example in left:
            async with session.post(f"{running.ingest_url}/in/{SOURCE}", data=example.body, headers=example.headers) as answer:
                expected = 200 if example.name == "ping" else 202
                statuses.append(202 if answer.status == expected else answer.status)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(sender(session) for _ in range(8)))
    return statuses


def events_of(examples: list[Example]) -> list[Example]:
    return [example for example in examples if example.name != "ping"]  # a handshake: answered, and no event


def test_there_are_as_many_examples_as_the_package_is_known_for(examples: list[Example]):
    assert len(examples) > 250
    assert len({example.name for example in examples}) > 50


def test_each_is_verified_and_becomes_one_event_of_its_type(examples: list[Example], arrived: Arrived):
    wrong = [
        (example.name, example.number, arrived.events.get(example.delivery, {}).get("type"))
        for example in events_of(examples)
        if arrived.events.get(example.delivery, {}).get("type") != example.type
    ]

    assert wrong == []
    assert len(arrived.events) == len(events_of(examples))


def test_each_has_what_people_and_lanes_need(examples: list[Example], arrived: Arrived):
    wrong = []
    for example in events_of(examples):
        event = arrived.events[example.delivery]
        lacks = [name for name in ("subject", "partitionkey", "time", "summary", "actor") if not event.get(name)]
        if "sender" not in example.document and "actor" in lacks:
            lacks.remove("actor")
        if not event["partitionkey"].startswith(f"default/{SOURCE}/"):
            lacks.append("its own ordering key")
        if lacks:
            wrong.append((example.type, example.number, lacks))

    assert wrong == []


def test_events_about_one_thing_have_one_ordering_key(examples: list[Example], arrived: Arrived):
    keys: dict[str, set[str]] = {}
    for example in events_of(examples):
        for thing in ("pull_request", "issue"):
            node = (example.document.get(thing) or {}).get("node_id")
            if node and example.name in {"issues", "pull_request"}:
                keys.setdefault(node, set()).add(arrived.events[example.delivery]["partitionkey"])

    assert keys
    assert all(len(found) == 1 for found in keys.values()), keys


def test_each_was_delivered_with_a_context_within_its_budget(examples: list[Example], arrived: Arrived):
    for example in events_of(examples):
        event = arrived.events[example.delivery]
        call = arrived.contexts[event["id"]]
        assert call["event"]["type"] == example.type
        assert call["context"], example.type
        assert event["states"] == {"done": 1}
    raw = sum(len(example.body) for example in events_of(examples))
    given = sum(len(json.dumps(call["context"])) for call in arrived.contexts.values())
    assert given < raw / 4, f"{given} of {raw} bytes"


def test_each_body_is_kept_byte_for_byte(running: Running, examples: list[Example], arrived: Arrived):
    for example in events_of(examples)[::20]:
        event = arrived.events[example.delivery]
        assert running.api("GET", f"/v1/events/{event['id']}/body")[1] == example.body


def test_a_changed_byte_is_refused(running: Running, examples: list[Example]):
    example = events_of(examples)[0]

    async def status() -> int:
        async with aiohttp.ClientSession() as session:
            body = example.body.replace(b'"', b"'", 1)
            async with session.post(f"{running.ingest_url}/in/{SOURCE}", data=body, headers=example.headers) as answer:
                return answer.status

    assert asyncio.run(status()) == 401
