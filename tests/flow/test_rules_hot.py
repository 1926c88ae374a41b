"""Rules change while events flow; what an agent's answers and an operator's hand do is seen at once, and explained afterwards."""

from __future__ import annotations

import itertools
import time

import pytest

from examples import senders
from tests.flow.running import Running, served, until

CONFIG = """\
version: 1
sources:
  github-acme: {provider: github, secrets: ["${GITHUB_ACME_SECRET}"]}
  stripe-acme: {provider: stripe, secrets: ["${STRIPE_ACME_SECRET}"]}
  crm: {provider: standard_webhooks, secrets: ["${CRM_SECRET}"]}
agents:
  triage: {url: "${AGENTS_URL}/triage", secret: "${AGENT_SECRET}", allow_private: true}
  gone: {url: "${AGENTS_URL}/gone", secret: "${AGENT_SECRET}", allow_private: true}
  flaky: {url: "${AGENTS_URL}/flaky", secret: "${AGENT_SECRET}", allow_private: true}
subscriptions:
  bugs:
    agent: triage
    pattern: {type: [github.issues.opened]}
"""
HEAD = "version: 1\nsubscriptions:\n"
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory):
    with served(tmp_path_factory.mktemp("hot"), CONFIG) as found:
        found.agents.answers |= {"gone": [410], "flaky": [503, 500, 200]}
        yield found


def ring(running: Running, make=senders.github, **more) -> str:
    """Post one; the id of its event, which is kept by then."""
    delivery = make(next(numbers), **more)
    status, _ = running.post(delivery)
    assert status == 202
    return until(lambda: _event_with(running, delivery.body))


def _event_with(running: Running, body: bytes) -> str | None:
    for event in running.api("GET", "/v1/events?limit=5")[1]["items"]:
        if running.api("GET", f"/v1/events/{event['id']}/body")[1] == body:
            return event["id"]
    return None


def states(running: Running, event: str) -> dict[str, str]:
    trace = running.api("GET", f"/v1/events/{event}/trace")[1]
    return {found["subscription"]: found["state"] for found in trace["invocations"]}


def test_a_new_subscription_is_in_force_within_a_second(running: Running):
    running.apply(HEAD + "  twin: {agent: triage, pattern: {type: [github.issues.opened]}}\n")
    applied = time.monotonic()
    first = ring(running)
    while "twin" not in states(running, first):
        first = ring(running)
        assert time.monotonic() - applied < 5
    took = time.monotonic() - applied

    assert took < 2, took  # one second, and the rings in between
    until(lambda: {"bugs", "twin"} == {call.subscription for call in running.agents.calls if call.event == first})


def test_a_changed_pattern_is_in_force_within_a_second(running: Running):
    running.apply(HEAD + '  edits: {agent: triage, pattern: {type: ["github.issues.closed"]}}\n')
    running.apply(HEAD + '  edits: {agent: triage, pattern: {type: ["github.issues.edited"]}}\n')
    time.sleep(1)

    event = ring(running, version=3)

    until(lambda: states(running, event).get("edits") == "done")


def test_a_deleted_subscription_wakes_nobody_a_second_later(running: Running):
    running.apply(HEAD + "  brief: {agent: triage, pattern: {type: [github.issues.opened]}}\n")
    time.sleep(1)
    with_it = ring(running)
    assert running.api("DELETE", "/v1/subscriptions/brief?force=true")[0] == 200
    time.sleep(1)

    without = ring(running)

    assert "brief" in states(running, with_it)
    assert "brief" not in states(running, without)


def test_a_410_disables_the_subscription_until_it_is_enabled(running: Running):
    running.apply(HEAD + "  leavers: {agent: gone, pattern: {source: [crm]}}\n")
    time.sleep(1)
    event = ring(running, senders.crm)

    until(lambda: running.api("GET", "/v1/subscriptions/leavers")[1]["state"] == "disabled")
    assert states(running, event)["leavers"] in {"buried", "canceled", "waiting"}
    assert any("disabled" in line for line in running.ok("check").splitlines())
    quiet = ring(running, senders.crm)
    assert "leavers" not in states(running, quiet)
    assert len(running.agents.of("gone")) == 1
    running.agents.answers["gone"] = [200]
    assert running.ok("subscriptions", "enable", "leavers") == "leavers is live\n"
    time.sleep(1)
    again = ring(running, senders.crm)

    until(lambda: states(running, again).get("leavers") == "done")


def test_a_paused_subscription_queues_and_goes_on_in_order(running: Running):
    subscription = "  pausing: {{agent: triage, pattern: {{type: [github.issues.edited]}}, state: {state}}}\n"
    running.apply(HEAD + subscription.format(state="paused"))
    time.sleep(1)
    bodies = [senders.github(9100, version=version) for version in range(1, 4)]
    events = []
    for delivery in bodies:
        assert running.post(delivery)[0] == 202
        events.append(until(lambda sent=delivery: _event_with(running, sent.body)))
    until(lambda: states(running, events[-1]).get("pausing") in {"waiting", "queued"})
    time.sleep(0.5)
    assert not [call for call in running.agents.calls if call.subscription == "pausing"]
    assert running.api("GET", "/v1/subscriptions/pausing")[1]["queued"] == 3

    running.apply(HEAD + subscription.format(state="live"))

    until(lambda: len([call for call in running.agents.calls if call.subscription == "pausing"]) == 3)
    assert [call.event for call in running.agents.calls if call.subscription == "pausing"] == events


def test_retries_and_their_pauses_are_seen_in_the_trace(running: Running):
    running.apply(
        HEAD + "  payments: {agent: flaky, pattern: {source: [stripe-acme]}, retry: {first_delay: 200ms, max_delay: 1s}}\n"
    )
    time.sleep(1)
    event = ring(running, senders.stripe)
    until(lambda: states(running, event).get("payments") == "done")

    trace = running.api("GET", f"/v1/events/{event}/trace")[1]
    (invocation,) = [found for found in trace["invocations"] if found["subscription"] == "payments"]
    steps = [step["step"] for step in trace["steps"]]
    shown = running.ok("trace", event)

    assert [(attempt["number"], attempt["status"]) for attempt in invocation["attempts"]] == [(1, 503), (2, 500), (3, 200)]
    assert steps[:2] == ["received", "appended"]
    assert {"planned", "admitted"} == set(steps[2:4])
    assert steps[-1] == "done"
    assert {call.headers["webhook-id"] for call in running.agents.calls if call.event == event} == {invocation["id"]}
    assert {call.headers["idempotency-key"] for call in running.agents.calls if call.event == event} == {invocation["id"]}
    for told in ("attempt 1", "HTTP 503", "attempt 2", "HTTP 500", "attempt 3", "delivered", "bugs: ", "did not match"):
        assert told in shown, shown


def test_refusals_are_shown_to_the_operator_and_told_to_nobody_else(running: Running):
    forged = senders.github(77, secret="guessed")
    status, problem = running.post(forged)
    unknown, _ = running.post(senders.github(77), source="nobody")
    shown = until(lambda: [r for r in running.api("GET", "/v1/sources/github-acme")[1]["refusals"] if r["code"] == "refused"])

    assert (status, unknown) == (401, 404)
    assert "signature" not in str(problem).lower()
    assert shown[0]["step"] == "signature_mismatch"
    assert not any("guessed" in str(refusal) or "sha256=" in str(refusal) for refusal in shown)
    assert "signature_mismatch" in running.ok("sources", "show", "github-acme")


def test_a_token_opens_its_event_and_invocation_and_nothing_else(running: Running):
    event = ring(running)
    other = ring(running)
    call = until(lambda: next((call for call in running.agents.calls if call.event == event), None))
    invocation = call.document["invocation"]["id"]
    links = call.document["links"]

    def status(method: str, path: str, body: object = None) -> int:
        return running.api(method, path, body, key=call.token)[0]

    assert links["event"] == f"{running.api_url}/v1/events/{event}"
    assert links["complete"] == f"{running.api_url}/v1/invocations/{invocation}/complete"
    assert running.api("GET", f"/v1/events/{event}", key=call.token)[1]["id"] == event
    assert status("GET", f"/v1/invocations/{invocation}") == 200
    assert status("GET", f"/v1/events/{other}") == 404
    for path in ("events", "invocations", "sources", "agents", "subscriptions", "keys", f"events/{event}/trace", "audit"):
        assert status("GET", f"/v1/{path}") == 403, path
    assert status("POST", f"/v1/invocations/{invocation}/redrive") == 403
    assert status("DELETE", "/v1/subscriptions/bugs") == 403
    assert running.api("GET", f"/v1/events/{event}", key=call.token[:-2] + "aa")[0] == 401
