"""Contexts as agents get them from a served installation: history, facts, lookups and what is missing, in the signed body."""

from __future__ import annotations

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from curator.tokens import default_counter
from examples import senders
from tests.flow.running import Running, served, until

AGENTS_OF_ONE_EVENT = 50
CONFIG = """\
version: 1
sources:
  github-acme: {provider: github, secrets: ["${GITHUB_ACME_SECRET}"]}
agents:
  triage: {url: "${AGENTS_URL}/triage", secret: "${AGENT_SECRET}", allow_private: true}
  thinker: {url: "${AGENTS_URL}/thinker", secret: "${AGENT_SECRET}", allow_private: true}
  crowd: {url: "${AGENTS_URL}/crowd", secret: "${AGENT_SECRET}", allow_private: true, max_concurrency: 64}
subscriptions:
  full:
    agent: triage
    pattern: {type: [github.issues.opened]}
    context:
      view: "{title: data.issue.title}"
      history: {}
      facts: ["*"]
      max_tokens: 1500
      enrich:
        crm: {url: "CRM/customers/{data.issue.number}", headers: {authorization: "Bearer ${secret.crm}"}, allow_private: true, cache: 0}
        lost: {url: "http://127.0.0.1:9/", allow_private: true}
  counted:
    agent: thinker
    pattern: {type: [github.issues.closed]}
    context: {view: "{title: data.issue.title}", model: claude-opus-4}
  strict:
    agent: triage
    pattern: {type: [github.issues.opened]}
    context: {view: "{title: data.issue.title}", facts: [plan], required: [facts.plan], on_missing: refuse}
"""
ONE_OF_MANY = """\
  many-NUMBER:
    agent: crowd
    pattern: {type: [github.issues.edited]}
    context:
      view: "{title: data.issue.title}"
      enrich: {crm: {url: "CRM/shared", allow_private: true}}
"""
numbers = itertools.count(1)


class Crm:
    """A source of facts on loopback, which remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        crm = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                crm.asked.append((self.path, self.headers.get("authorization", "")))
                body = b'{"plan":"pro"}'
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def crm():
    found = Crm()
    yield found
    found.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, crm: Crm):
    many = "".join(ONE_OF_MANY.replace("NUMBER", str(number)) for number in range(AGENTS_OF_ONE_EVENT))
    config = (CONFIG + many).replace("CRM", crm.url).replace("${secret.crm}", "$${secret.crm}")
    with served(tmp_path_factory.mktemp("contexts"), config) as found:
        assert found.api("PUT", "/v1/secrets/crm", {"value": "s3cret"})[0] == 200
        yield found


def opened(running: Running, agent: str = "triage", action: str = "opened") -> dict:
    """Open issue 7 once more; what the agent of `full` got."""
    before = len(running.agents.of(agent))
    issue = json.loads(senders.github(7).body)
    issue["action"] = action
    issue["issue"]["comments"] = next(numbers)  # an equal body would be the same news again
    assert running.post(senders.signed_github(json.dumps(issue).encode()))[0] == 202
    [call] = until(lambda: running.agents.of(agent)[before:])
    return call.document


def test_an_agent_gets_facts_history_and_lookups_and_is_told_what_is_missing(running: Running, crm: Crm):
    first = opened(running)
    thing = first["invocation"]["ordering_key"]
    running.ok("facts", "put", thing, "tier", '"gold"')
    until(lambda: running.api("GET", f"/v1/invocations/{first['invocation']['id']}")[1]["state"] == "done")

    second = opened(running)

    assert first["context"]["title"] == second["context"]["title"]
    assert "history" not in first
    assert [line.endswith("(1 buried, 1 done)") for line in second["history"]] == [True]
    assert second["facts"]["tier"]["value"] == "gold"
    assert second["enrich"]["crm"]["value"] == {"plan": "pro"}
    assert [each.split(":")[0] for each in second["missing"]] == ["lost"]
    assert crm.asked[0] == ("/customers/7", "Bearer s3cret")
    assert default_counter().count(json.dumps(second, separators=(",", ":"), ensure_ascii=False)) <= 1500


def test_a_required_fact_that_nobody_wrote_keeps_the_agent_asleep(running: Running):
    call = opened(running)

    def refused() -> dict | None:
        trace = running.api("GET", f"/v1/events/{call['event']['id']}/trace")[1]
        return next((one for one in trace["invocations"] if one["subscription"] == "strict" and one["state"] == "buried"), None)

    assert "facts.plan" in until(refused)["attempts"][0]["error"]


def test_curating_shows_the_bytes_that_were_sent(running: Running):
    call = opened(running)
    asked = {"event": call["event"]["id"], "subscription": "full"}
    until(lambda: running.api("GET", f"/v1/invocations/{call['invocation']['id']}")[1]["state"] == "done")

    found = running.api("POST", "/v1/curate", asked)[1]

    assert found["context"] == call["context"]
    assert found["beside"]["facts"] == call["facts"]
    assert found["sent"][0]["tokens"] > 0


def test_fifty_agents_of_one_event_cost_their_views_and_ask_once(running: Running, crm: Crm):
    delivery = senders.github(9, version=1)
    assert running.post(delivery)[0] == 202

    calls = until(lambda: calls if len(calls := running.agents.of("crowd")) == AGENTS_OF_ONE_EVENT else None)

    assert [path for path, _ in crm.asked].count("/shared") == 1
    assert {json.dumps(call.document["enrich"]["crm"]["value"]) for call in calls} == {'{"plan": "pro"}'}
    running.settled()
    rows = [row for row in running.lines("context", "stats") if row["subscription"].startswith("many-")]
    assert len(rows) == AGENTS_OF_ONE_EVENT
    assert len({row["tokens"] for row in rows}) == 1
    assert sum(row["tokens"] for row in rows) * 3 < sum(row["raw_tokens"] for row in rows)


def test_what_an_agent_fetches_by_reference_becomes_a_suggestion(running: Running):
    call = opened(running)
    ref = f"/v1/events/{call['event']['id']}/body?pointer=/issue/number"
    for _ in range(20):
        assert running.api("GET", ref, key=call["links"]["token"])[1] == b"7"

    [row] = [row for row in running.lines("context", "stats", "--price", "3") if row["subscription"] == "full"]

    assert row["fetched"] == {"/issue/number": 20}
    assert "data.issue.number" in row["suggested_view"]
    assert row["saved_money"] > 0


def test_what_was_sent_is_kept_and_compared_with_what_would_be_sent_now(running: Running):
    first, second = opened(running), opened(running)
    ids = [call["invocation"]["id"] for call in (first, second)]
    running.settled()

    [sent] = running.api("GET", f"/v1/invocations/{ids[0]}/sent")[1]["items"]
    masked = json.loads(json.dumps(first).replace(first["links"]["token"], "(token)"))
    assert json.loads(sent["body"]) == masked
    assert sent["bytes_sent"] == len(sent["body"].encode()) + len(first["links"]["token"]) - len("(token)")
    assert sent["body"] in running.ok("curate", "-i", ids[0]).replace("\n", "")

    same = running.run("curate", "-i", ids[0], "-i", ids[0])
    assert (same.exit_code, same.stdout.strip()) == (0, "the same")

    running.ok("facts", "put", first["invocation"]["ordering_key"], "asked", '"again"')
    now = running.run("curate", "-i", ids[1], "--diff")
    assert now.exit_code == 1
    assert any(line.startswith("+") and '"again"' in line for line in now.stdout.splitlines())
    assert not any(line.startswith("-") and '"title"' in line for line in now.stdout.splitlines())

    two = json.loads(running.run("curate", "-i", ids[0], "-i", ids[1], "--json").stdout)
    assert two["same"] is False
    assert any(line.startswith("+") and "issues.opened" in line for line in two["diff"])  # the first is history to the second


def test_what_agents_report_calibrates_the_counts_of_their_models_family(running: Running):
    running.agents.answers["thinker"] = [202]
    for number in range(5):
        call = opened(running, "thinker", "closed")
        assert call["manifest"]["counter"] == "o200k_base*1.4"
        told = {name: call[name] for name in ("context", "provenance", "manifest") if name in call}
        tokens = default_counter().count(json.dumps(told, separators=(",", ":"), ensure_ascii=False))
        report = {
            "outcome": "done",
            "usage": {"context_tokens": round(tokens * (1.1 + number / 100)), "model": "claude-opus-4"},
        }
        path = f"/v1/invocations/{call['invocation']['id']}/complete"

        def reported(path=path, report=report, token=call["links"]["token"]) -> bool:
            return running.api("POST", path, report, key=token)[0] == 200

        assert until(reported)
        assert reported()  # told twice, learnt once

    [found] = running.lines("context", "calibration")
    assert (found["family"], found["factor"], found["version"], found["samples"]) == ("claude", 1.15, 1, 5)
    manifest = opened(running, "thinker", "closed")["manifest"]
    assert (manifest["counter"], manifest["calibration"]) == ("o200k_base*1.15", 1)
