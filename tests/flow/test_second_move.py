"""A second move through the real process: another agent, a person who is told, a restart in the middle, an open breaker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples import senders
from tests.flow.running import AGENT_SECRET, Running, served, until

CONFIG = """\
version: 1
sources:
  github-acme: {provider: github, secrets: ["${GITHUB_ACME_SECRET}"]}
  stripe-acme: {provider: stripe, secrets: ["${STRIPE_ACME_SECRET}"]}
  shopify-acme: {provider: shopify, secrets: ["${SHOPIFY_ACME_SECRET}"]}
agents:
  triage: {url: "${AGENTS_URL}/triage", secret: "${AGENT_SECRET}", allow_private: true}
  backup: {url: "${AGENTS_URL}/backup", secret: "${AGENT_SECRET}", allow_private: true}
  oncall: {url: "${AGENTS_URL}/oncall", secret: "${AGENT_SECRET}", allow_private: true}
  lost: {url: "${AGENTS_URL}/lost", secret: "${AGENT_SECRET}", allow_private: true}
subscriptions:
  bugs:
    agent: triage
    pattern: {source: [github-acme]}
    retry: {max_attempts: 2, first_delay: 0.1, max_delay: 0.2}
    fallback: [{wait: 0.3}, {agent: backup, attempts: 2}, {notify: oncall}, bury]
  asked:
    agent: triage
    pattern: {source: [stripe-acme]}
    fallback: [{notify: oncall, answer_within: 1h}]
  held: {agent: lost, pattern: {source: [shopify-acme]}, retry: {first_delay: 60}}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("second-move")
    with served(folder, CONFIG) as found:
        yield found


def of_subscription(running: Running, name: str, state: str) -> list[dict[str, Any]]:
    return running.api("GET", f"/v1/invocations?subscription={name}&state={state}")[1]["items"]


def test_a_chain_ends_with_a_person_told_and_a_burial_that_says_why(running: Running) -> None:
    running.agents.answers |= {"triage": [500], "backup": [500]}
    running.post(senders.github(number=1))

    (buried,) = until(lambda: of_subscription(running, "bugs", "buried"))

    calls = [call.agent for call in sorted(running.agents.calls, key=lambda call: call.at)]
    notice = running.agents.of("oncall")[-1]
    shown = running.api("GET", f"/v1/invocations/{buried['id']}")[1]
    assert calls == ["triage", "triage", "triage", "backup", "backup", "oncall"]
    assert notice.document["type"] == "nightbell.invocation.needs_human"
    assert notice.document["invocation"]["id"] == buried["id"]
    assert notice.document["context"]["title"]
    assert [(fall["kind"], fall["agent"]) for fall in shown["fallbacks"]] == [
        ("wait", "triage"),
        ("agent", "backup"),
        ("notify", "oncall"),
    ]
    assert "max_attempts" in buried["reason"]
    told = running.ok("trace", buried["event_id"])
    assert "a person is told by oncall" in told
    assert "fallback" in running.ok("trace", buried["event_id"])


def test_a_dead_letter_shows_what_was_said_on_the_wire_and_no_secret(running: Running) -> None:
    (letter,) = running.lines("dead", "list", "--subscription", "bugs")
    counts = running.lines("dead", "counts")

    shown = running.ok("dead", "show", letter["id"])
    found = json.loads(running.ok("dead", "show", letter["id"], "--json"))

    call = running.agents.of("triage")[0]
    first = found["exchanges"][0]
    headers = {header["name"]: header["value"] for header in first["headers"]}
    assert (letter["kind"], counts[0]["kind"], counts[0]["count"]) == ("max_attempts", "max_attempts", 1)
    assert [exchange["status"] for exchange in found["exchanges"]] == [500] * 5 + [200]
    assert json.loads(first["body"])["invocation"] == call.document["invocation"], "the bytes that the agent got"
    assert (headers["webhook-id"], headers["webhook-signature"]) == (letter["id"], "(hidden)")
    assert "content-length" in {header["name"].lower() for header in first["answer_headers"]}
    assert call.headers["webhook-signature"] not in shown
    assert call.token not in shown
    assert AGENT_SECRET not in shown
    assert "< HTTP 500" in shown
    assert [fall["kind"] for fall in found["fallbacks"]] == ["wait", "agent", "notify"]


def test_dead_letters_are_purged_by_query_after_a_dry_run(running: Running) -> None:
    (letter,) = running.lines("dead", "list", "--subscription", "bugs")

    tried = running.ok("dead", "purge", "--reason", "max_attempts", "--dry-run")
    young = running.ok("dead", "purge", "--older-than", "1d")
    done = running.ok("dead", "purge", "--reason", "max_attempts")

    assert "1 would be purged" in tried
    assert "0 purged" in young
    assert "1 purged" in done
    assert running.lines("dead", "list", "--subscription", "bugs") == []
    assert "purged: max_attempts" in running.ok("invocations", "show", letter["id"])
    assert running.run("redrive", letter["id"]).exit_code == 1


def test_another_agent_does_it_after_all(running: Running) -> None:
    running.agents.answers |= {"triage": [422], "backup": [200]}
    running.agents.calls.clear()
    running.post(senders.github(number=2))

    until(lambda: of_subscription(running, "bugs", "done"))

    assert [call.agent for call in running.agents.calls] == ["triage", "triage", "backup"]


def test_the_person_who_was_told_answers_by_a_redrive(running: Running) -> None:
    running.agents.answers |= {"triage": [422]}
    running.agents.calls.clear()
    running.post(senders.stripe(number=3))
    notice = until(lambda: running.agents.of("oncall"))[0].document
    waiting = until(lambda: of_subscription(running, "asked", "waiting"))[0]
    running.agents.answers |= {"triage": [200]}

    status, _ = running.api("POST", notice["links"]["redrive"].removeprefix(running.api_url))

    assert (waiting["reason"], status) == ("human", 200)
    until(lambda: of_subscription(running, "asked", "done"))
    assert notice["answer_until"]


def test_a_kill_in_the_middle_loses_neither_the_chain_nor_what_was_known_of_an_agent(running: Running) -> None:
    running.agents.answers |= {"triage": [422], "lost": [403]}
    running.post(senders.stripe(number=4))
    running.post(senders.shopify(number=5))
    until(lambda: of_subscription(running, "asked", "waiting"))
    until(lambda: running.api("GET", "/v1/agents/lost")[1]["state"] == "held")
    assert running.process is not None

    running.process.kill()
    running.process.wait()
    running.start()

    lost = running.api("GET", "/v1/agents/lost")[1]
    assert (lost["state"], lost["hold_reason"]) == ("held", "misconfigured")
    running.post(senders.shopify(number=6))
    (waiting,) = of_subscription(running, "asked", "waiting")
    assert waiting["reason"] == "human"
    assert running.ok("invocations", "show", waiting["id"])
    running.agents.answers |= {"triage": [200]}
    running.ok("redrive", waiting["id"])
    until(lambda: not of_subscription(running, "asked", "waiting"))
    first, *later = [call.at for call in running.agents.of("lost")]
    assert all(at - first > 29 for at in later), "held over the restart: its next probe was due in half a minute at the soonest"


def test_a_chain_that_names_an_agent_that_is_not_there_is_refused(running: Running) -> None:
    done = running.run("apply", "-f", str(_written(running, "fallback: [{agent: nobody}]")))

    assert done.exit_code == 2
    assert "there is no agent `nobody`" in done.stderr


def test_a_notice_to_an_agent_that_fetches_its_work_is_refused(running: Running) -> None:
    path = _written(running, "fallback: [{notify: fetcher}]")
    path.write_text(path.read_text().replace("agents:\n", "agents:\n  fetcher: {protocol: pull}\n"))

    done = running.run("apply", "-f", str(path))

    assert done.exit_code == 2
    assert "it fetches" in done.stderr


def test_the_name_of_our_own_events_is_no_sources(running: Running) -> None:
    path = _written(running, "fallback: []")
    path.write_text(path.read_text().replace("  stripe-acme: {provider", "  nightbell: {provider"))

    done = running.run("apply", "-f", str(path))

    assert done.exit_code == 2
    assert "our own events" in done.stderr


def test_an_agent_that_a_chain_needs_is_not_deleted(running: Running) -> None:
    status, problem = running.api("DELETE", "/v1/agents/backup?force=true")

    assert status == 409
    assert "bugs" in problem["detail"]


def _written(running: Running, line: str) -> Path:
    path = running.folder / "broken.yaml"
    text = CONFIG.replace("fallback: [{notify: oncall, answer_within: 1h}]", line)
    path.write_text(text)
    return path
