"""Runs under supervision and pull delivery through the real process: agents that vanish, Nightbell killed meanwhile, plain curl."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from examples import senders
from tests.flow.running import AGENT_SECRET, ROOT, Agents, Running, until

pytestmark = pytest.mark.slow
WATCH = "supervision: {lease: 3s, max_run: 2m}"
PATIENT = "supervision: {lease: 30s, max_run: 2m}"
RETRY = "retry: {first_delay: 100ms, max_delay: 100ms}"
CONFIG = f"""\
version: 1
sources:
  github-acme: {{provider: github, secrets: ["${{GITHUB_ACME_SECRET}}"]}}
  stripe-acme: {{provider: stripe, secrets: ["${{STRIPE_ACME_SECRET}}"]}}
  shopify-acme: {{provider: shopify, secrets: ["${{SHOPIFY_ACME_SECRET}}"]}}
  crm: {{provider: standard_webhooks, secrets: ["${{CRM_SECRET}}"]}}
agents:
  fetcher: {{protocol: pull, {WATCH}}}
  accepter: {{url: "http://127.0.0.1:${{ACCEPTER_PORT}}/", secret: "${{AGENT_SECRET}}", allow_private: true, {WATCH}}}
  survivor: {{url: "${{AGENTS_URL}}/survivor", secret: "${{AGENT_SECRET}}", allow_private: true, {PATIENT}}}
  curler: {{protocol: pull, {PATIENT}}}
subscriptions:
  fetched: {{agent: fetcher, pattern: {{source: [github-acme]}}, {RETRY}}}
  accepted: {{agent: accepter, pattern: {{source: [stripe-acme]}}, {RETRY}}}
  survives: {{agent: survivor, pattern: {{source: [shopify-acme]}}, {RETRY}}}
  curled: {{agent: curler, pattern: {{source: [crm]}}, {RETRY}}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder, agents = tmp_path_factory.mktemp("runs"), Agents()
    agents.answers["survivor"] = [202]
    extra = {
        "ACCEPTER_PORT": str(free_port()),
        "NIGHTBELL_API_BIND": f"127.0.0.1:{free_port()}",
        "NIGHTBELL_INGEST_BIND": f"127.0.0.1:{free_port()}",
    }
    found = Running(folder, agents, CONFIG, extra)
    try:
        found.start()
        yield found
    finally:
        found.close()


def agent_key(running: Running, agent: str) -> str:
    status, made = running.api("POST", "/v1/keys", {"name": f"key-{agent}", "role": "agent", "agent": agent})
    assert status == 201
    return str(made["key"])


@contextmanager
def started(module: str, *words: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-m", module, *words], cwd=ROOT, env={**os.environ, **environment})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def of(running: Running, subscription: str) -> dict[str, Any]:
    """The one invocation of a subscription, with its attempts and its run."""

    def found() -> dict[str, Any] | None:
        items = running.api("GET", f"/v1/invocations?subscription={subscription}")[1]["items"]
        return running.api("GET", f"/v1/invocations/{items[0]['id']}")[1] if items else None

    return until(found, within_s=30)


def done(running: Running, subscription: str, *, within_s: float = 60) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        shown = of(running, subscription)
        return shown if shown["state"] == "done" else None

    return until(found, within_s=within_s, pause_s=0.3)


def test_a_fetching_agent_that_is_killed_is_followed_by_one_that_goes_on_where_it_was(running: Running):
    environment = {"NIGHTBELL_API": running.api_url, "NIGHTBELL_AGENT_KEY": agent_key(running, "fetcher"), "STEP_S": "0.6"}
    with started("examples.fetching_agent", **environment):
        assert running.post(senders.github(1))[0] == 202
        until(lambda: len((of(running, "fetched")["run"] or {}).get("checkpoint") or []) >= 2, within_s=60)
    with started("examples.fetching_agent", **environment):
        shown = done(running, "fetched")

    steps = shown["run"]["report"]["result"]["steps"]
    assert [step[0] for step in steps] == list("12345")
    assert steps[0].endswith("attempt 1")
    assert steps[-1].endswith("attempt 2")
    assert [attempt["outcome"] for attempt in shown["attempts"]] == ["stalled", "accepted"]
    _, trace = running.api("GET", f"/v1/events/{shown['event_id']}/trace")
    told = [step["step"] for step in trace["steps"]]
    assert {"run 1 fetched", "run 1 checkpoint", "run 1 status", "run 1 stalled", "run 2 done"} <= set(told)
    assert "run 2 done" in running.ok("trace", shown["event_id"])


def test_a_called_agent_that_crashes_after_its_202_gets_its_checkpoint_back(running: Running):
    environment = {"AGENT_SECRET": AGENT_SECRET, "CRASH_ONCE": "1"}
    port = running.extra["ACCEPTER_PORT"]
    with started("examples.accepting_agent", port, **environment) as agent:
        until(lambda: _listens(int(port)), within_s=60)
        assert running.post(senders.stripe(2))[0] == 202
        assert agent.wait(timeout=60) == 1
    with started("examples.accepting_agent", port, **environment):
        shown = done(running, "accepted")

    assert shown["run"]["report"]["result"]["first"] == "first step by attempt 1"
    assert shown["attempts"][0]["outcome"] == "stalled"
    assert shown["run"]["attempt"] > 1


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_plain_curl_fetches_works_and_reports(running: Running, tmp_path: Path):
    environment = {**os.environ, "NIGHTBELL_API": running.api_url, "NIGHTBELL_AGENT_KEY": agent_key(running, "curler")}
    assert running.post(senders.crm(3))[0] == 202

    script = str(ROOT / "examples/curl_agent.sh")
    command = ["sh", script, "pull", "curler", "sh", "-c", "cat > /dev/null; sleep 2; echo looked at it"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)

    shown = done(running, "curled")
    assert json.loads(told.stdout)["state"] == "done"
    assert shown["run"]["report"]["result"] == "looked at it\n"
    assert shown["run"]["heartbeats"] >= 2


def test_nightbell_killed_during_a_run_loses_nothing_of_it(running: Running):
    assert running.post(senders.shopify(4))[0] == 202
    call = until(lambda: next(iter(running.agents.of("survivor")), None), within_s=60)
    until(lambda: of(running, "survives")["state"] == "accepted", within_s=30)
    beats, over = [], threading.Event()
    url = call.document["links"]["complete"].rpartition("/")[0]

    def beat() -> None:
        while not over.wait(0.5):
            with suppress(OSError):
                beats.append(_say(url, call.token, "heartbeat"))

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    until(lambda: beats, within_s=30)

    assert running.process is not None
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()
    before = len(beats)
    running.start()
    until(lambda: len(beats) > before + 1, within_s=60)
    over.set()
    heart.join()
    ended = _say(url, call.token, "complete", {"result": {"survived": True}})

    shown = of(running, "survives")
    assert ended["state"] == shown["state"] == "done"
    assert len(shown["attempts"]) == len(running.agents.of("survivor")) == 1
    assert {beat["stop"] for beat in beats} == {False}
    assert shown["run"]["report"]["result"] == {"survived": True}


def _say(url: str, token: str, what: str, body: Any = None) -> Any:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    request = urllib.request.Request(f"{url}/{what}", json.dumps(body or {}).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)
