"""A running installation in which something of everything has happened: done, buried, accepted, waiting, refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from examples import senders
from examples.senders import Delivery
from tests.flow.running import Running, served, until

CONFIG = """\
version: 1
sources:
  github-acme: {provider: github, secrets: ["${GITHUB_ACME_SECRET}"]}
  stripe-acme: {provider: stripe, secrets: ["${STRIPE_ACME_SECRET}"]}
  shopify-acme: {provider: shopify, secrets: ["${SHOPIFY_ACME_SECRET}"]}
  crm: {provider: standard_webhooks, secrets: ["${CRM_SECRET}"]}
agents:
  good: {url: "${AGENTS_URL}/good", secret: "${AGENT_SECRET}", allow_private: true}
  picky: {url: "${AGENTS_URL}/picky", secret: "${AGENT_SECRET}", allow_private: true}
  runner: {url: "${AGENTS_URL}/runner", secret: "${AGENT_SECRET}", allow_private: true}
  stuck: {url: "${AGENTS_URL}/stuck", secret: "${AGENT_SECRET}", allow_private: true}
  asker: {url: "${AGENTS_URL}/asker", secret: "${AGENT_SECRET}", allow_private: true}
  puller: {protocol: pull}
  gone: {url: "${AGENTS_URL}/gone", secret: "${AGENT_SECRET}", allow_private: true}
subscriptions:
  bugs:
    agent: good
    pattern: {type: [github.issues.opened]}
    context: {view: "{title: data.issue.title}"}
  refused: {agent: picky, pattern: {source: [crm]}}
  runs: {agent: runner, pattern: {source: [stripe-acme]}}
  paused: {agent: good, pattern: {source: [stripe-acme]}, state: paused}
  careful: {agent: stuck, pattern: {source: [crm]}, on_burial: block}
  asks: {agent: asker, pattern: {source: [crm]}}
  leavers: {agent: gone, pattern: {source: [shopify-acme]}}
"""


STATES = {
    "bugs": {"done"}, "refused": {"buried"}, "runs": {"accepted"}, "paused": {"waiting"}, "careful": {"waiting"},
    "asks": {"accepted"},
}  # fmt: skip


@dataclass
class World:
    """The installation, and the names of what happened in it."""

    running: Running
    done_event: str
    done: str
    buried: str
    buried_event: str
    runs: list[str]  # invocations that their agent accepted
    waiting: list[str]
    blocked: str  # what would have been buried, before its key
    asked: str  # its agent wants a human's word

    @property
    def names(self) -> dict[str, str]:
        return {
            "event": self.done_event, "done": self.done, "buried": self.buried, "buried_event": self.buried_event,
            "run": self.runs[0], "run_2": self.runs[1], "waiting": self.waiting[0], "waiting_2": self.waiting[1],
            "blocked": self.blocked, "asked": self.asked, "folder": str(self.running.folder), "ingest": self.running.ingest_url,
        }  # fmt: skip

    def token(self, invocation: str) -> str:
        """What the agent was given with an invocation."""
        return next(call.token for call in self.running.agents.calls if call.document["invocation"]["id"] == invocation)


@contextmanager
def happened(folder: Path) -> Iterator[World]:
    """The world, for as long as the block lasts."""
    with served(folder, CONFIG) as running:
        running.agents.answers |= {"picky": [400], "runner": [202], "gone": [410], "stuck": [400], "asker": [202]}
        deliveries = [senders.github(1), senders.crm(2), senders.stripe(3), senders.stripe(4), senders.shopify(5)]
        for delivery in deliveries:
            assert running.post(delivery)[0] == 202
        assert running.post(senders.github(6, secret="guessed"))[0] == 401
        until(lambda: running.api("GET", "/v1/counts")[1]["events"] == len(deliveries))
        until(lambda: _states(running) == STATES)
        until(lambda: running.api("GET", "/v1/subscriptions/leavers")[1]["state"] == "disabled")
        until(lambda: running.api("GET", "/v1/sources/github-acme")[1]["refusals"])
        world = _world(running)
        answer = {"outcome": "needs_human"}
        said, _ = running.api("POST", f"/v1/invocations/{world.asked}/complete", answer, key=world.token(world.asked))
        assert said == 200
        yield world


def _states(running: Running) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for invocation in running.api("GET", "/v1/invocations")[1]["items"]:
        state = "waiting" if invocation["state"] == "queued" and invocation["subscription"] == "paused" else invocation["state"]
        found.setdefault(invocation["subscription"], set()).add(state)
    found.pop("leavers", None)
    return found


def _world(running: Running) -> World:
    of: dict[str, list[dict[str, str]]] = {}
    for invocation in running.api("GET", "/v1/invocations")[1]["items"]:
        of.setdefault(invocation["subscription"], []).append(invocation)
    return World(
        running,
        done_event=of["bugs"][0]["event_id"],
        done=of["bugs"][0]["id"],
        buried=of["refused"][0]["id"],
        buried_event=of["refused"][0]["event_id"],
        runs=[found["id"] for found in of["runs"]],
        waiting=[found["id"] for found in of["paused"]],
        blocked=of["careful"][0]["id"],
        asked=of["asks"][0]["id"],
    )


def captured(delivery: Delivery) -> str:
    """A delivery as a raw HTTP/1.1 message."""
    head = "".join(f"{name}: {value}\r\n" for name, value in delivery.headers.items())
    return (
        f"POST /in/{delivery.source} HTTP/1.1\r\nHost: hooks.example.com\r\nContent-Type: application/json\r\n{head}"
        f"Content-Length: {len(delivery.body)}\r\n\r\n{delivery.body.decode()}"
    )
