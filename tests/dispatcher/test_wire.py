"""The webhook protocol against a real server that verifies with the reference library."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from standardwebhooks.webhooks import Webhook as Reference

from dispatcher.metrics import DispatchMetrics
from dispatcher.service import Dispatcher, DispatcherConfig
from egress.client import Client
from schemas.invocation import State
from tests.dispatcher.world import SECRET, FakeTokens, Running, World, until
from tests.fakes.clock import VirtualClock
from tests.fakes.ledger import FakeLedger


class RealWorld(World):
    """The same world with the machine's clock and a real way out."""

    def __init__(self) -> None:
        super().__init__()
        from dispatcher.clock import SystemClock

        self.clock: Any = SystemClock()
        self.ledger = FakeLedger(self.clock.now_ms)


@pytest.fixture
async def agent() -> AsyncIterator[Any]:
    got: list[Any] = []
    answers: list[int] = []

    async def wake(request: web.Request) -> web.Response:
        body = await request.read()
        got.append((dict(request.headers), body, Reference(SECRET).verify(body, dict(request.headers))))
        return web.Response(status=answers.pop(0) if answers else 204)

    app = web.Application()
    app.router.add_post("/wake", wake)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    yield got, answers, f"http://127.0.0.1:{port}/wake"
    await runner.cleanup()


async def test_a_real_agent_verifies_what_it_gets_on_every_attempt(agent: Any) -> None:
    got, answers, url = agent
    answers += [500, 503]
    world = RealWorld()
    world.roster.agent("triage", headers={"Authorization": "Bearer of-the-operator", "Webhook-Id": "not-theirs-to-set"})
    config = world.roster.agents_now["triage"]
    object.__setattr__(config.spec, "url", url)
    world.roster.subscription("bugs", "triage", retry={"first_delay": 0.01, "max_delay": 0.02})
    async with Client() as client:
        dispatcher = Dispatcher(
            world.ledger, world.roster, client, curate=world.curator, tokens=FakeTokens(), say=lambda *_, **__: None,
            metrics=DispatchMetrics(CollectorRegistry()),
            config=DispatcherConfig(owner="one", api_url="https://nightbell.test", user_agent="Nightbell/9.9"),
        )  # fmt: skip
        async with Running(dispatcher):
            offered = world.admit("bugs", "default/src/I_1")
            dispatcher.offer([offered])
            await until(lambda: not world.ledger.unfinished, within_s=10)

    assert world.ledger.states() == {offered.invocation.id: State.DONE}
    assert [document["invocation"]["attempt"] for _, _, document in got] == [1, 2, 3]
    headers, _body, document = got[0]
    names = {name.lower(): value for name, value in headers.items()}
    assert names["webhook-id"] == names["idempotency-key"] == offered.invocation.id
    assert names["user-agent"] == "Nightbell/9.9"
    assert names["content-type"] == "application/json"
    assert names["authorization"] == "Bearer of-the-operator"
    assert list(document) == ["invocation", "event", "context", "links"]
    assert len({headers["traceparent"] for headers, _, _ in got}) == 3
    assert {headers["traceparent"].split("-")[1] for headers, _, _ in got} == {"4bf92f3577b34da6a3ce929d0e0e4736"}


async def test_an_agent_that_is_not_there_is_unreachable_and_nothing_was_sent() -> None:
    world = RealWorld()
    world.roster.agent("triage")
    object.__setattr__(world.roster.agents_now["triage"].spec, "url", "http://127.0.0.1:9/wake")
    world.roster.subscription("bugs", "triage", retry={"max_attempts": 1})
    said: list[dict[str, Any]] = []
    async with Client() as client:
        dispatcher = Dispatcher(
            world.ledger, world.roster, client, curate=world.curator, tokens=FakeTokens(),
            say=lambda name, **fields: said.append({"name": name, **fields}),
            metrics=DispatchMetrics(CollectorRegistry()),
            config=DispatcherConfig(owner="one", api_url="https://nightbell.test"),
        )  # fmt: skip
        async with Running(dispatcher):
            dispatcher.offer([world.admit("bugs", "k")])
            await until(lambda: not world.ledger.unfinished, within_s=10)

    [line] = [line for line in said if line["name"] == "attempt"]
    assert (line["outcome"], line["status"], line["bytes_sent"]) == ("unreachable", 0, 0)
    assert VirtualClock  # the fakes share their module
