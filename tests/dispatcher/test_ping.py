"""`agents ping`."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.ping import ping
from schemas.config import AgentConfig, AgentSpec
from schemas.errors import AddressRefused, AgentTimedOut
from tests.dispatcher.world import SECRET, Said

NOW = 1_795_255_200_000


class OneAnswer:
    def __init__(self, answer: Said | Exception) -> None:
        self.answer = answer
        self.calls: list[dict[str, Any]] = []

    async def request(self, method: str, url: str, **call: Any) -> Said:
        self.calls.append(call)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def config(**spec: Any) -> AgentConfig:
    return AgentConfig("default", "triage", "uid", 3, AgentSpec(url="https://agent.test/wake", **spec), (SECRET,))


async def steps(answer: Said | Exception, agent: AgentConfig | None = None) -> list[tuple[str, bool]]:
    found = await ping(agent or config(), OneAnswer(answer), now_ms=NOW, api_url="https://nb.test", user_agent="Nightbell/1")
    return [(step.name, step.ok) for step in found]


async def test_a_good_agent_passes_every_step() -> None:
    assert await steps(Said(204)) == [("setting", True), ("sign", True), ("send", True), ("answer", True)]


@pytest.mark.parametrize("status", [301, 404, 410, 422, 429, 500])
async def test_an_answer_that_is_no_2xx_fails_at_the_answer(status: int) -> None:
    assert (await steps(Said(status)))[2:] == [("send", True), ("answer", False)]


@pytest.mark.parametrize("error", [AgentTimedOut("x", kind="timeout", sent=True), AddressRefused("private", kind="address")])
async def test_no_answer_fails_at_the_sending(error: Exception) -> None:
    assert (await steps(error))[2:] == [("send", False), ("answer", False)]


async def test_a_setting_that_cannot_work_is_said_before_anything_is_sent() -> None:
    caller = OneAnswer(Said())

    [step] = await ping(config(protocol="pigeon"), caller, now_ms=NOW, api_url="https://nb.test", user_agent="N/1")

    assert (step.name, step.ok) == ("setting", False)
    assert "webhook" in step.detail
    assert caller.calls == []
