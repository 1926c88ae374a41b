"""Outcomes wake agents, through the real process; a ring of agents is cut, and says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples import senders
from examples.senders import Delivery
from tests.flow.running import Running, served, until

CONFIG = """\
version: 1
sources:
  github-acme: {provider: github, secrets: ["${GITHUB_ACME_SECRET}"]}
  stripe-acme: {provider: stripe, secrets: ["${STRIPE_ACME_SECRET}"]}
agents:
  triage: {url: "${AGENTS_URL}/triage", secret: "${AGENT_SECRET}", allow_private: true}
  review: {url: "${AGENTS_URL}/review", secret: "${AGENT_SECRET}", allow_private: true}
  greedy: {url: "${AGENTS_URL}/greedy", secret: "${AGENT_SECRET}", allow_private: true}
  undertaker: {url: "${AGENTS_URL}/undertaker", secret: "${AGENT_SECRET}", allow_private: true}
  ping: {url: "${AGENTS_URL}/ping", secret: "${AGENT_SECRET}", allow_private: true}
  pong: {url: "${AGENTS_URL}/pong", secret: "${AGENT_SECRET}", allow_private: true}
subscriptions:
  bugs: {agent: triage, pattern: {type: [github.issues.opened]}}
  after-triage:
    agent: review
    pattern: {type: [nightbell.invocation.done], data: {invocation: {agent: [triage]}}}
  everything: {agent: greedy, pattern: {team: [default]}}
  burials: {agent: undertaker, pattern: {type: [nightbell.invocation.buried]}}
  ring-starts: {agent: ping, pattern: {source: [stripe-acme]}}
  ring-there: {agent: pong, pattern: {source: [nightbell], data: {invocation: {agent: [ping]}}}}
  ring-back: {agent: ping, pattern: {source: [nightbell], data: {invocation: {agent: [pong]}}}}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("outcomes")
    with served(folder, CONFIG, NIGHTBELL_MAX_OUTCOME_HOPS="4") as found:
        yield found


def posted(running: Running, delivery: Delivery) -> str:
    """Post it; the delivery's id."""
    assert running.post(delivery)[0] == 202
    return delivery.headers["X-GitHub-Delivery"]


def metric(running: Running, name: str) -> float:
    text = running.api("GET", "/metrics")[1].decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


def trace(running: Running, event_id: str) -> dict[str, Any]:
    return running.api("GET", f"/v1/events/{event_id}/trace")[1]


def test_what_became_of_one_agents_work_wakes_another(running: Running) -> None:
    sent = posted(running, senders.github(number=1))

    (call,) = until(lambda: running.agents.of("review"))

    event = running.event_of(sent)
    outcome = running.api("GET", f"/v1/events/{call.event}")[1]
    cause = next(found for found in trace(running, event["id"])["invocations"] if found["subscription"] == "bugs")
    assert (outcome["type"], outcome["causationid"]) == ("nightbell.invocation.done", cause["id"])
    assert outcome["data"]["event"]["id"] == event["id"]
    assert outcome["data"]["chain"] == {"root": event["id"], "hops": 1}
    assert outcome["traceparent"] == event["traceparent"]
    told = [step["detail"] for step in trace(running, event["id"])["steps"] if step["step"] == "outcome told"]
    assert f"nightbell.invocation.done as {call.event}: 1 subscription matched" in told


def test_who_takes_everything_is_not_woken_by_what_it_leads_to(running: Running) -> None:
    event = running.event_of(posted(running, senders.github(number=2)))
    until(lambda: len(running.agents.of("review")) >= 2)
    running.settled()

    outcome = running.agents.of("review")[-1].event
    verdicts = {found["subscription"]: found for found in trace(running, outcome)["misses"]}
    assert {call.event for call in running.agents.of("greedy")} >= {event["id"]}
    assert outcome not in {call.event for call in running.agents.of("greedy")}
    assert [later["step"] for later in verdicts["everything"]["later"]] == ["unheard"]


def test_a_burial_wakes_who_asked_for_burials(running: Running) -> None:
    running.agents.answers["triage"] = [422]
    running.post(senders.github(number=3))

    (call,) = until(lambda: running.agents.of("undertaker"))

    assert call.document["event"]["type"] == "nightbell.invocation.buried"
    running.agents.answers["triage"] = [200]


def test_a_ring_of_agents_is_cut_and_says_so(running: Running) -> None:
    before = metric(running, "nightbell_loops_cut_total")
    running.post(senders.stripe(number=9))

    cut = until(lambda: running.logged("loop_cut"), within_s=30)

    running.settled()
    root = running.event_of("evt_9")["id"]
    assert [
        call.agent for call in sorted(running.agents.calls, key=lambda call: call.at) if call.agent in {"ping", "pong"}
    ] == [
        "ping",
        "pong",
        "ping",
        "pong",
        "ping",
    ], "the event itself, and four outcomes"
    assert (cut[0]["reason"], cut[0]["root"], cut[0]["hops"]) == ("depth", root, 5)
    assert metric(running, "nightbell_loops_cut_total") == before + 1
    end = trace(running, cut[0]["event_id"])
    assert end["invocations"] == []
    assert "loop_cut" in end["event"]["flags"]
    assert "the loop guard cut the chain here" in next(step["detail"] for step in end["steps"] if step["step"] == "admitted")
    verdicts = {found["subscription"]: found for found in end["misses"]}
    assert [later["step"] for later in verdicts["ring-there"]["later"]] == ["loop_cut"]
    assert "loop guard" in running.ok("trace", cut[0]["event_id"])
