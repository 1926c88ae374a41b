"""Every route of the API against one running system: a good call and a bad one, and the faces beside `/v1`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from control.auth import Role
from control.routes import ROUTES
from tests.flow.running import AGENT_SECRET
from tests.flow.world import World, happened

TOKEN = "the invocation's token"
ADMIN = "the admin's key"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with happened(tmp_path_factory.mktemp("routes")) as found:
        yield found


@dataclass(frozen=True)
class Ask:
    """One call: `path` has the names of the world in braces, `{progress}` and `{key}` are made by the calls before."""

    method: str
    route: str
    path: str
    status: int
    body: Any = None
    by: str = ADMIN
    holds: str = ""  # stands in the answer

    def __str__(self) -> str:
        return f"{self.method} {self.path} → {self.status}"


AGENT = {"url": "http://127.0.0.1:9/", "secret": AGENT_SECRET, "allow_private": True}
SUBSCRIPTION = {"agent": "good", "pattern": {"type": ["github.push"]}}
SOURCE = {"provider": "github", "secrets": ["another secret"]}
INV = "/v1/invocations/{invocation_id}"
DEAD = "/v1/dead-letters/{invocation_id}"
ASKS = [
    Ask("POST", "/v1/apply", "/v1/apply?dry_run=true", 200, {"version": 1, "agents": {"new": AGENT}}, holds='"create": 1'),
    Ask("POST", "/v1/apply", "/v1/apply", 200, {"version": 1, "subscriptions": {"pushes": SUBSCRIPTION}}, holds="pushes"),
    Ask("POST", "/v1/apply", "/v1/apply", 422, {"version": 1, "agents": {"new": {}}}, holds="/agents/new/url"),
    Ask("POST", "/v1/apply", "/v1/apply", 422, None, holds="mapping"),
    Ask("GET", "/v1/sources", "/v1/sources", 200, holds="github-acme"),
    Ask("GET", "/v1/sources", "/v1/sources?limit=0", 422, holds="/limit"),
    Ask("GET", "/v1/sources/{name}", "/v1/sources/github-acme", 200, holds="signature_mismatch"),
    Ask("GET", "/v1/sources/{name}", "/v1/sources/nobody", 404),
    Ask("PUT", "/v1/sources/{name}", "/v1/sources/by-hand", 200, SOURCE, holds="create"),
    Ask("PUT", "/v1/sources/{name}", "/v1/sources/by-hand", 422, {"provider": "github"}, holds="secrets"),
    Ask("PUT", "/v1/sources/{name}", "/v1/sources/by-hand", 422, {"provider": "no-such-vendor"}, holds="no-such-vendor"),
    Ask("DELETE", "/v1/sources/{name}", "/v1/sources/by-hand", 200, holds="delete"),
    Ask("DELETE", "/v1/sources/{name}", "/v1/sources/by-hand", 404),
    Ask("GET", "/v1/agents", "/v1/agents", 200, holds="picky"),
    Ask("GET", "/v1/agents", "/v1/agents?cursor=nonsense", 422, holds="/cursor"),
    Ask("GET", "/v1/agents/{name}", "/v1/agents/good", 200, holds="queued"),
    Ask("GET", "/v1/agents/{name}", "/v1/agents/nobody", 404),
    Ask("PUT", "/v1/agents/{name}", "/v1/agents/by-hand", 200, AGENT, holds="create"),
    Ask("PUT", "/v1/agents/{name}", "/v1/agents/by-hand", 422, {**AGENT, "allow_private": False}, holds="/url"),
    Ask("DELETE", "/v1/agents/{name}", "/v1/agents/by-hand", 200, holds="delete"),
    Ask("DELETE", "/v1/agents/{name}", "/v1/agents/runner?force=true", 409, holds="runs"),
    Ask("POST", "/v1/agents/{name}/ping", "/v1/agents/good/ping", 200, holds='"ok": true'),
    Ask("POST", "/v1/agents/{name}/ping", "/v1/agents/nobody/ping", 404),
    Ask("POST", "/v1/agents/{name}/rotate-secret", "/v1/agents/runner/rotate-secret", 200, holds="whsec_"),
    Ask("POST", "/v1/agents/{name}/rotate-secret", "/v1/agents/nobody/rotate-secret", 404),
    Ask("GET", "/v1/subscriptions", "/v1/subscriptions", 200, holds="leavers"),
    Ask("GET", "/v1/subscriptions", "/v1/subscriptions?page=2", 422, holds="/page"),
    Ask("GET", "/v1/subscriptions/{name}", "/v1/subscriptions/paused", 200, holds='"queued": 2'),
    Ask("GET", "/v1/subscriptions/{name}", "/v1/subscriptions/nobody", 404),
    Ask("PUT", "/v1/subscriptions/{name}", "/v1/subscriptions/by-hand", 200, SUBSCRIPTION, holds="create"),
    Ask("PUT", "/v1/subscriptions/{name}", "/v1/subscriptions/by-hand", 422, {**SUBSCRIPTION, "pattern": {"type": [{"x": 1}]}}, holds="/pattern"),
    Ask("PUT", "/v1/subscriptions/{name}", "/v1/subscriptions/by-hand", 422, {**SUBSCRIPTION, "when": "1 +"}, holds="/when"),
    Ask("PUT", "/v1/subscriptions/{name}", "/v1/subscriptions/by-hand", 422, {**SUBSCRIPTION, "dedup": {"key": "data.[", "window": "1h"}}, holds="/dedup/key"),
    Ask("PUT", "/v1/subscriptions/{name}", "/v1/subscriptions/by-hand", 422, {**SUBSCRIPTION, "agent": "nobody"}, holds="nobody"),
    Ask("PUT", "/v1/subscriptions/{name}", "/v1/subscriptions/bugs", 409, SUBSCRIPTION, holds="force"),
    Ask("DELETE", "/v1/subscriptions/{name}", "/v1/subscriptions/by-hand?cancel=true", 200, holds="by-hand"),
    Ask("DELETE", "/v1/subscriptions/{name}", "/v1/subscriptions/by-hand", 404),
    Ask("POST", "/v1/subscriptions/{name}/enable", "/v1/subscriptions/leavers/enable", 200, holds="live"),
    Ask("POST", "/v1/subscriptions/{name}/enable", "/v1/subscriptions/nobody/enable", 404),
    Ask("GET", "/v1/events", "/v1/events?source=github-acme&since=1h", 200, holds="{event}"),
    Ask("GET", "/v1/events", "/v1/events?since=yesterday", 422, holds="/since"),
    Ask("GET", "/v1/events/{event_id}", "/v1/events/{event}", 200, holds="Checkout charges twice"),
    Ask("GET", "/v1/events/{event_id}", "/v1/events/{event}", 200, by=TOKEN, holds="Checkout charges twice"),
    Ask("GET", "/v1/events/{event_id}", "/v1/events/{buried_event}", 404, by=TOKEN),
    Ask("GET", "/v1/events/{event_id}", "/v1/events/evt_none", 404),
    Ask("GET", "/v1/events/{event_id}/body", "/v1/events/{event}/body", 200, holds="Checkout charges twice"),
    Ask("GET", "/v1/events/{event_id}/body", "/v1/events/evt_none/body", 404),
    Ask("GET", "/v1/events/{event_id}/trace", "/v1/events/{event}/trace", 200, holds="admitted"),
    Ask("GET", "/v1/events/{event_id}/trace", "/v1/events/{event}/trace", 403, by=TOKEN),
    Ask("GET", "/v1/events/{event_id}/explain", "/v1/events/{event}/explain?subscription=runs", 200, holds='"matched": false'),
    Ask("GET", "/v1/events/{event_id}/explain", "/v1/events/{event}/explain?subscription=nobody", 404),
    Ask("POST", "/v1/match", "/v1/match", 200, {"pattern": {"source": ["crm"]}, "event": {"source": "crm"}}, holds='"matched": true'),
    Ask("POST", "/v1/match", "/v1/match", 422, {"pattern": {"source": "crm"}, "event": {}}),
    Ask("POST", "/v1/curate", "/v1/curate", 200, {"event": "{event}", "subscription": "bugs"}, holds="raw_tokens"),
    Ask("POST", "/v1/curate", "/v1/curate", 404, {"event": "evt_none"}),
    Ask("GET", "/v1/counts", "/v1/counts", 200, holds='"events": 5'),
    Ask("GET", "/v1/counts", "/v1/counts?all=yes", 422),
    Ask("GET", "/v1/rejected", "/v1/rejected", 200, holds="items"),
    Ask("GET", "/v1/rejected", "/v1/rejected?limit=x", 422),
    Ask("GET", "/v1/invocations", "/v1/invocations?state=buried", 200, holds="{buried}"),
    Ask("GET", "/v1/invocations", "/v1/invocations?state=lost", 422, holds="/state"),
    Ask("GET", INV, "/v1/invocations/{buried}", 200, holds='"status": 400'),
    Ask("GET", INV, "/v1/invocations/inv_none", 404),
    Ask("GET", f"{INV}/sent", "/v1/invocations/{buried}/sent", 200, holds='"is_kept": true'),
    Ask("GET", f"{INV}/sent", "/v1/invocations/{run}/sent", 403, by=TOKEN),
    Ask("GET", f"{INV}/context", "/v1/invocations/{run}/context", 200, by=TOKEN, holds='"type"'),
    Ask("GET", f"{INV}/context", "/v1/invocations/{buried}/context", 404, by=TOKEN),
    Ask("POST", f"{INV}/redrive", "/v1/invocations/{buried}/redrive?dry_run=true", 200, holds='"dry_run": true'),
    Ask("POST", f"{INV}/redrive", "/v1/invocations/{done}/redrive", 409, holds="done"),
    Ask("POST", f"{INV}/cancel", "/v1/invocations/{waiting}/cancel", 200, holds="canceled"),
    Ask("POST", f"{INV}/cancel", "/v1/invocations/{done}/cancel", 409, holds="done"),
    Ask("POST", f"{INV}/skip", "/v1/invocations/{blocked}/skip", 200, holds="{blocked}"),
    Ask("POST", f"{INV}/skip", "/v1/invocations/{buried}/skip", 409, holds="blocks nothing"),
    Ask("PUT", "/v1/quota", "/v1/quota", 200, {"attempts": 600_000, "per": "1m"}, holds='"create": 1'),
    Ask("PUT", "/v1/quota", "/v1/quota", 422, {"attempts": 0, "per": "1m"}, holds="/attempts"),
    Ask("GET", "/v1/quota", "/v1/quota", 200, holds='"attempts": 600000'),
    Ask("GET", "/v1/quota", "/v1/quota", 401, by="nobody"),
    Ask("DELETE", "/v1/quota", "/v1/quota", 403, by="viewer"),
    Ask("DELETE", "/v1/quota", "/v1/quota", 200, holds='"delete": 1'),
    Ask("GET", "/v1/lanes", "/v1/lanes?blocked=true", 200, holds='"items": []'),
    Ask("GET", "/v1/lanes", "/v1/lanes?blocked=maybe", 422, holds="/blocked"),
    Ask("POST", "/v1/lanes/unblock", "/v1/lanes/unblock", 200, {"how": "skip", "dry_run": True}, holds='"count": 0'),
    Ask("POST", "/v1/lanes/unblock", "/v1/lanes/unblock", 422, {"how": "ask"}, holds="/how"),
    Ask("POST", f"{INV}/cancel", "/v1/invocations/{run}/cancel", 200, holds="accepted"),
    Ask("POST", f"{INV}/resolve", "/v1/invocations/{done}/resolve", 409, {"outcome": "done"}),
    Ask("POST", "/v1/agents/{name}/leases", "/v1/agents/puller/leases", 200, {"wait_s": 0, "max": 3}, holds='"items": []'),
    Ask("POST", "/v1/agents/{name}/leases", "/v1/agents/good/leases", 409, {"wait_s": 0}, holds="webhook"),
    Ask("GET", "/v1/agents/{name}/leases/stream", "/v1/agents/nobody/leases/stream", 404),
    Ask("GET", "/v1/dead-letters", "/v1/dead-letters?agent=picky", 200, holds="{buried}"),
    Ask("GET", "/v1/dead-letters", "/v1/dead-letters?reason=lost", 422, holds="/reason"),
    Ask("GET", "/v1/dead-letters/counts", "/v1/dead-letters/counts", 200, holds='"agent": "picky"'),
    Ask("GET", "/v1/dead-letters/counts", "/v1/dead-letters/counts?x=1", 422),
    Ask("GET", DEAD, "/v1/dead-letters/{buried}", 200, holds='"status": 400'),
    Ask("GET", DEAD, "/v1/dead-letters/{done}", 404, holds="no dead letter"),
    Ask("DELETE", DEAD, "/v1/dead-letters/{buried}?dry_run=true", 200, holds='"dry_run": true'),
    Ask("DELETE", DEAD, "/v1/dead-letters/{done}", 409),
    Ask("POST", "/v1/purges", "/v1/purges", 202, {"agent": "nobody"}, holds="prg_"),
    Ask("POST", "/v1/purges", "/v1/purges", 422, {"reason": "lost"}, holds="/reason"),
    Ask("GET", "/v1/purges/{progress_id}", "/v1/purges/{prg}", 200, holds='"total": 0'),
    Ask("GET", "/v1/purges/{progress_id}", "/v1/purges/prg_none", 404),
    Ask("POST", "/v1/redrives", "/v1/redrives", 202, {"state": "buried", "subscription": "refused"}, holds="rdv_"),
    Ask("POST", "/v1/redrives", "/v1/redrives", 422, {"state": "done"}, holds="/state"),
    Ask("GET", "/v1/redrives/{progress_id}", "/v1/redrives/{rdv}", 200, holds='"total": 1'),
    Ask("GET", "/v1/redrives/{progress_id}", "/v1/redrives/rdv_none", 404),
    Ask("POST", "/v1/replays", "/v1/replays", 202, {"event": "{event}"}, holds="rpl_"),
    Ask("POST", "/v1/replays", "/v1/replays", 404, {"event": "evt_none"}),
    Ask("GET", "/v1/replays/{progress_id}", "/v1/replays/{rpl}", 200, holds='"total": 1'),
    Ask("GET", "/v1/replays/{progress_id}", "/v1/replays/{rdv}", 404),
    Ask("POST", f"{INV}/heartbeat", "/v1/invocations/{run}/heartbeat", 200, {}, by=TOKEN, holds='"signal": "cancel"'),
    Ask("POST", f"{INV}/heartbeat", "/v1/invocations/{run}/heartbeat", 403, {}),
    Ask("POST", f"{INV}/checkpoint", "/v1/invocations/{run}/checkpoint", 200, {"checkpoint": 1}, by=TOKEN, holds='"kept": true'),
    Ask("POST", f"{INV}/checkpoint", "/v1/invocations/{run_2}/checkpoint", 404, {"checkpoint": 1}, by=TOKEN),
    Ask("POST", f"{INV}/status", "/v1/invocations/{run}/status", 200, {"tried": "twice"}, by=TOKEN, holds='"kept": true'),
    Ask("POST", f"{INV}/status", "/v1/invocations/{run}/status", 422, {"cried": "twice"}, by=TOKEN, holds="/cried"),
    Ask("POST", f"{INV}/complete", "/v1/invocations/{run}/complete", 200, {"outcome": "needs_human"}, by=TOKEN, holds="human"),
    Ask("POST", f"{INV}/resolve", "/v1/invocations/{run}/resolve", 200, {"outcome": "done"}, holds='"state": "done"'),
    Ask("POST", f"{INV}/complete", "/v1/invocations/{run}/complete", 409, {"outcome": "failed"}, by=TOKEN),
    Ask("POST", f"{INV}/fail", "/v1/invocations/{run_2}/fail", 200, {"retryable": False}, by=TOKEN, holds='"retried": false'),
    Ask("POST", f"{INV}/fail", "/v1/invocations/{run_2}/fail", 401, {}, by="nobody"),
    Ask("GET", "/v1/keys", "/v1/keys", 200, holds="admin"),
    Ask("GET", "/v1/keys", "/v1/keys", 403, by="viewer"),
    Ask("POST", "/v1/keys", "/v1/keys", 201, {"name": "ci", "role": "operator"}, holds="nbk_"),
    Ask("POST", "/v1/keys", "/v1/keys", 422, {"name": "ci", "role": "king"}, holds="/role"),
    Ask("DELETE", "/v1/keys/{key_id}", "/v1/keys/ci", 200, holds='"revoked": 1'),
    Ask("DELETE", "/v1/keys/{key_id}", "/v1/keys/nobody", 404),
    Ask("GET", "/v1/audit", "/v1/audit", 200, holds="agents.ping"),
    Ask("GET", "/v1/audit", "/v1/audit?limit=9999", 422),
    Ask("GET", "/v1/audit/check", "/v1/audit/check", 200, holds='"whole": true'),
    Ask("GET", "/v1/audit/check", "/v1/audit/check", 401, by="nobody"),
    Ask("PUT", "/v1/facts", "/v1/facts", 200, body={"thing": "a/b/c", "name": "tier", "value": "gold"}, holds='"version": 1'),
    Ask("PUT", "/v1/facts", "/v1/facts", 422, body={"name": "tier", "value": "gold"}, holds="which thing"),
    Ask("GET", "/v1/facts", "/v1/facts?thing=a/b/c&name=tier", 200, holds='"gold"'),
    Ask("GET", "/v1/facts", "/v1/facts", 422, holds="which thing"),
    Ask("PUT", "/v1/secrets/{name}", "/v1/secrets/crm", 200, body={"value": "a-secret"}, holds='"crm"'),
    Ask("PUT", "/v1/secrets/{name}", "/v1/secrets/crm", 422, body={}),
    Ask("GET", "/v1/secrets", "/v1/secrets", 200, holds='"crm"'),
    Ask("GET", "/v1/secrets", "/v1/secrets", 401, by="nobody"),
    Ask("DELETE", "/v1/secrets/{name}", "/v1/secrets/crm", 200, holds='"crm"'),
    Ask("DELETE", "/v1/secrets/{name}", "/v1/secrets/none", 404),
    Ask("GET", "/v1/contexts/stats", "/v1/contexts/stats", 200, holds='"saved_tokens"'),
    Ask("GET", "/v1/contexts/stats", "/v1/contexts/stats?since=never", 422),
    Ask("GET", "/v1/contexts/calibrations", "/v1/contexts/calibrations", 200, holds='"items": []'),
    Ask("GET", "/v1/contexts/calibrations", "/v1/contexts/calibrations", 401, by="nobody"),
]  # fmt: skip


@pytest.fixture(scope="module")
def made(world: World) -> dict[str, str]:
    """Names that calls gave, for the calls after them."""
    found = dict(world.names)
    status, viewer = world.running.api("POST", "/v1/keys", {"name": "onlooker", "role": "viewer"})
    assert status == 201
    return found | {"viewer": viewer["key"]}


@pytest.mark.parametrize("ask", ASKS, ids=str)
def test_a_route_answers(ask: Ask, world: World, made: dict[str, str]):
    def filled(text: str) -> str:
        for name, value in made.items():
            text = text.replace("{" + name + "}", value)
        return text

    path = filled(ask.path)
    body = {k: filled(v) if isinstance(v, str) else v for k, v in ask.body.items()} if isinstance(ask.body, dict) else ask.body
    if ask.by == TOKEN:
        owner = made["run"] if ask.route.startswith(INV) else made["done"]
        if ask.route == f"{INV}/fail":
            owner = made["run_2"]
        key = world.token(owner)
    else:
        key = {ADMIN: None, "viewer": made["viewer"], "nobody": ""}[ask.by]

    status, answer = world.running.api(ask.method, path, body, key=key)

    shown = answer.decode() if isinstance(answer, bytes) else json.dumps(answer, ensure_ascii=False)
    assert status == ask.status, shown
    assert filled(ask.holds) in shown
    if status >= 400:
        assert {"type", "title", "status", "detail", "code"} <= set(answer)
    if status == 202:
        made[answer["id"][:3]] = answer["id"]


def test_every_route_has_a_good_and_a_bad_call():
    good = {(ask.method, ask.route) for ask in ASKS if ask.status < 400}
    bad = {(ask.method, ask.route) for ask in ASKS if ask.status >= 400}
    routes = {(route.method, route.path) for route in ROUTES}

    assert good == routes - {("GET", "/v1/agents/{name}/leases/stream")}  # which goes on for ever: it has a test of its own
    assert bad == routes


def test_no_route_answers_without_a_key(world: World):
    for route in ROUTES:
        path = route.path
        for name in route.parameters:
            path = path.replace("{" + name + "}", "x")
        assert world.running.api(route.method, path, key="")[0] == 401, path


def test_a_viewer_changes_nothing(world: World, made: dict[str, str]):
    for route in ROUTES:
        if route.role is not Role.VIEWER:
            path = route.path
            for name in route.parameters:
                path = path.replace("{" + name + "}", "x")
            assert world.running.api(route.method, path, key=made["viewer"])[0] == 403, path


def test_the_faces_beside_the_api_answer(world: World):
    api = world.running.api

    assert api("GET", "/livez", key="")[0] == 200
    assert api("GET", "/readyz", key="")[1]["ready"] is True
    assert api("GET", "/openapi.json", key="")[1]["openapi"] == "3.1.0"
    metrics = api("GET", "/metrics", key="")[1].decode()
    for name in (
        "nightbell_ingest_requests_total", "nightbell_route_events_total", "nightbell_dispatch_attempts_total", "nightbell_log_lag_events",
        "nightbell_log_lag_seconds", "nightbell_log_end_offset", "nightbell_log_retention_used_ratio", "nightbell_build_info",
        'nightbell_conservation_gap{stage="route"} 0.0', 'nightbell_conservation_gap{stage="dispatch"} 0.0',
    ):  # fmt: skip
        assert name in metrics, name
    assert api("GET", "/no-such-page", key="")[0] == 404
    assert api("PATCH", "/v1/events")[0] == 405


def test_the_ingest_listener_answers_what_is_no_webhook(world: World):
    running = world.running
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    def status(method: str, path: str) -> int:
        try:
            with urlopen(Request(f"{running.ingest_url}{path}", method=method), timeout=10) as answer:
                return answer.status
        except HTTPError as exc:
            exc.close()
            return exc.code

    assert status("DELETE", "/in/github-acme") == 405
    assert status("GET", "/in/github-acme") == 405
    assert status("POST", "/in/nobody") == 404
    assert status("POST", "/in/other-team/github-acme") == 404
    assert status("POST", "/") == 404
    assert status("POST", "/in/github-acme") == 401  # nothing signed
