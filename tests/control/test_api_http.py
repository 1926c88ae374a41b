"""The API's manners: problems, headers, bounds, and the document that describes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

from control.answers import Bytes
from control.api import MAX_BODY_BYTES
from control.openapi import openapi_document
from control.routes import ROUTES
from tests.control.test_api_events import delivered
from tests.control.test_api_work import accepted, ended
from tests.fakes.api_world import DOCUMENT, World

CANARIES = ("canary-source-secret", "Y2FuYXJ5LXNpZ25pbmctc2VjcmV0LTAwMDE", "canary-header-value", "canary-password")


async def test_the_document_is_valid_and_names_exactly_the_routes(world: World) -> None:
    status, document = await world.call("GET", "/openapi.json", who="")

    validate(document)
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    served = {
        (route.method, route.resource.canonical)
        for route in world.client.app.router.routes()
        if route.resource.canonical.startswith("/v1")
    }
    assert status == 200
    assert described == served == {(route.method, route.path) for route in ROUTES}


THINGS = {"sources": "gh", "agents": "triage", "subscriptions": "bugs", "secrets": "crm"}
UNANSWERED = {
    "checkpoint",
    "context",
    "enable",
    "resolve",
    "leases",
    "stream",
    "body",
}  # refused here, but for the last: no JSON


async def test_every_answer_is_as_the_document_says(world: World) -> None:
    await world.applied()
    event_id = await delivered(world)
    _, begun = await world.call("POST", "/v1/replays", {})
    _, redriven = await world.call("POST", "/v1/redrives", {})
    _, purged = await world.call("POST", "/v1/purges", {})
    invocations = {
        "redrive": (await ended(world, "buried", "buried")).invocations[0].id,
        "cancel": (await world.admit("queued")).invocations[0].id,
        "skip": (await ended(world, "blocked", "waiting", reason="blocked")).invocations[0].id,
        "dead-letters": (await ended(world, "dead", "buried")).invocations[0].id,
    }
    for act in ("heartbeat", "status", "complete", "fail"):
        invocations[act], plan = await accepted(world, act)
        world.token(plan, who=act)
    document = openapi_document("1", server="http://x")

    unanswered = set()
    for route in ROUTES:
        kind, last = route.path.split("/")[2], route.path.rpartition("/")[2]
        ident = invocations.get(last, invocations.get(kind, invocations["cancel"]))
        progress = {"redrives": redriven, "purges": purged}.get(kind, begun)["id"]
        names = {"event_id": event_id, "invocation_id": ident, "progress_id": progress, "key_id": "viewer"}
        path = route.path.format(**names, name=THINGS.get(kind, ""))
        query = {"force": "true", "dry_run": "true"} if route.method in {"PUT", "DELETE"} and route.query else {}
        query = {name: value for name, value in query.items() if route.query and name in route.query.model_fields}
        if (route.method, kind) == ("GET", "facts"):
            query = {"thing": "default/gh/1"}
        who = last if route.role == "agent" and last in world.keys else "admin"
        status, found = await world.call(route.method, path, _body(route.path, route.method, event_id), who=who, **query)
        if status != route.status or route.answer is Bytes:
            unanswered.add(last)
            continue
        schema = document["paths"][route.path][route.method.lower()]["responses"][str(status)]["content"]["application/json"]
        jsonschema.validate(found, {**schema["schema"], "components": document["components"]})

    assert unanswered == {*UNANSWERED, "{name}"}


def _body(path: str, method: str, event_id: str) -> Any:
    if method not in {"POST", "PUT"}:
        return None
    return {
        "/v1/apply": {"version": 1},
        "/v1/match": {"pattern": {"type": ["x"]}, "event": event_id},
        "/v1/curate": {"event": event_id},
        "/v1/facts": {"thing": "default/gh/1", "name": "tier", "value": {"plan": "gold"}},
        "/v1/secrets/{name}": {"value": CANARIES[0]},
        "/v1/keys": {"name": "made", "role": "viewer"},
        "/v1/quota": {"attempts": 100, "per": "1m"},
        "/v1/lanes/unblock": {"how": "skip", "dry_run": True},
        "/v1/redrives": {"dry_run": True},
        "/v1/purges": {"dry_run": True},
        "/v1/replays": {"dry_run": True},
        "/v1/sources/{name}": DOCUMENT["sources"]["gh"],
        "/v1/agents/{name}": DOCUMENT["agents"]["triage"],
        "/v1/subscriptions/{name}": DOCUMENT["subscriptions"]["bugs"],
    }.get(path, {})


async def test_no_secret_shows_in_any_answer(world: World) -> None:
    document = {
        "version": 1,
        "sources": {"gh": {"provider": "github", "secrets": [CANARIES[0]], "username": "u", "password": CANARIES[3]}},
        "agents": {
            "triage": {
                "url": "https://agents.example.com/",
                "secret": f"whsec_{CANARIES[1]}=",
                "headers": {"authorization": CANARIES[2]},
            }
        },
        "subscriptions": {"bugs": {"agent": "triage", "pattern": {"type": ["github.issues.opened"]}}},
    }
    seen = [str(await world.applied(document))]
    event_id = await delivered(world)
    document["sources"]["gh"]["secrets"] = [CANARIES[0] + "2"]
    document["agents"]["triage"]["headers"]["authorization"] = CANARIES[2] + "2"
    seen.append(str(await world.applied(document)))
    wrong = {"version": 1, "sources": {"gh": {"provider": "github", "secrets": CANARIES[0], "password": [CANARIES[3]]}}}
    seen.append(str(await world.call("POST", "/v1/apply", wrong)))
    names = {"event_id": event_id, "invocation_id": "none", "progress_id": "none", "key_id": "none"}
    kinds = {"sources": "gh", "agents": "triage", "subscriptions": "bugs"}
    for route in ROUTES:
        if route.method == "GET":
            path = route.path.format(**names, name=kinds.get(route.path.split("/")[2], ""))
            seen.append(str(await world.call("GET", path)))

    assert len(seen) > 20
    assert [canary for canary in CANARIES for text in seen if canary in text] == []


async def test_no_secret_lies_readable_in_the_store(world: World) -> None:
    await world.applied()
    _, made = await world.call("POST", "/v1/keys", {"name": "ci", "role": "viewer"})

    path = world.store.url.removeprefix("sqlite:///")
    content = b"".join(Path(path + suffix).read_bytes() for suffix in ("", "-wal"))

    assert b"github" in content
    assert [text for text in (*CANARIES, made["key"]) if text.encode() in content] == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not_found"),
        ("PATCH", "/v1/events", 405, "method_not_allowed"),
        ("GET", "/v1/events?colour=red", 422, "invalid"),
        ("GET", "/v1/events?limit=1&limit=2", 422, "invalid"),
        ("GET", "/v1/events?limit=0", 422, "invalid"),
        ("GET", "/v1/events?limit=501", 422, "invalid"),
        ("GET", "/v1/events?cursor=nonsense", 422, "invalid"),
        ("GET", "/v1/events?cursor=aW52b2NhdGlvbnM6MQ", 422, "invalid"),
        ("GET", "/v1/events?since=yesterday", 422, "invalid"),
        ("GET", "/v1/events?type=%00", 422, "invalid"),
        ("GET", "/v1/events/evt_%00", 404, "not_found"),
        ("GET", "/v1/events/evt_none", 404, "not_found"),
        ("GET", "/v1/events/evt_none/trace", 404, "not_found"),
        ("GET", "/v1/sources/gh?x=1", 422, "invalid"),
        ("DELETE", "/v1/sources/gh", 404, "not_found"),
        ("POST", "/v1/agents/nobody/ping", 404, "not_found"),
        ("POST", "/v1/agents/nobody/rotate-secret", 404, "not_found"),
        ("POST", "/v1/subscriptions/nobody/enable", 404, "not_found"),
        ("DELETE", "/v1/keys/nobody", 404, "not_found"),
    ],
)
async def test_what_is_asked_wrongly_gets_a_problem(world: World, method: str, path: str, status: int, code: str) -> None:
    from yarl import URL

    headers = {"authorization": f"Bearer {world.keys['admin']}"}
    url = URL(str(world.client.make_url("/")).rstrip("/") + path, encoded=True)
    async with world.client.session.request(method, url, headers=headers) as answer:
        problem = await answer.json(content_type="application/problem+json")

    assert (answer.status, problem["status"], problem["code"]) == (status, status, code)
    assert problem["type"] == f"urn:nightbell:problem:{code}"
    assert {"title", "detail"} <= problem.keys()


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b'{"name": ', "application/json", 400, "malformed"),
        (b"\xff", "application/json", 400, "malformed"),
        (b"name=x", "application/x-www-form-urlencoded", 415, "unsupported_media"),
        (b"{}", "text/plain", 415, "unsupported_media"),
        (b"[]", "application/json", 422, "invalid"),
        (b"null", "application/json", 422, "invalid"),
        (b"[" * 5000, "application/json", 400, "malformed"),
        (b'"' + b"x" * MAX_BODY_BYTES + b'"', "application/json", 413, "too_large"),
    ],
)
async def test_a_body_that_cannot_be_taken_is_refused(world: World, content: bytes, kind: str, status: int, code: str) -> None:
    headers = {"authorization": f"Bearer {world.keys['admin']}", "content-type": kind}

    async with world.client.post("/v1/keys", data=BytesIO(content), headers=headers) as answer:
        problem = await answer.json(content_type="application/problem+json")

    assert (answer.status, problem["code"]) == (status, code)


async def test_a_body_that_does_not_arrive_in_time_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("control.api.READ_S", 0.05)
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"{"
        await ended.wait()

    headers = {"authorization": f"Bearer {world.keys['admin']}", "content-type": "application/json"}
    async with world.client.post("/v1/keys", data=endless(), headers=headers) as answer:
        problem = await answer.json(content_type="application/problem+json")
        ended.set()

    assert (answer.status, problem["code"]) == (408, "request_timeout")


async def test_every_answer_carries_the_security_headers(world: World) -> None:
    for path in ("/v1/events", "/v1/nothing", "/livez", "/openapi.json"):
        async with world.client.get(path) as answer:
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cache-control"] == "no-store"
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["server"] == "Nightbell"


async def test_health_and_metrics_need_no_key(world: World) -> None:
    assert await world.call("GET", "/livez", who="") == (200, {"live": True})
    assert await world.call("GET", "/readyz", who="") == (200, {"ready": True})
    assert await world.call("GET", "/metrics", who="") == (200, b"nightbell_up 1\n")


async def test_a_bug_of_ours_is_told_by_a_number_alone(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    from dataclasses import replace

    from aiohttp.test_utils import TestClient, TestServer

    from control.api import api_app

    def broken() -> bytes:
        raise RuntimeError("canary-detail")

    app = api_app(replace(world.desk), authenticate=None, version="1", metrics=broken, is_live=lambda: True, readiness=None)
    async with TestClient(TestServer(app)) as client, client.get("/metrics") as answer:
        problem = await answer.json(content_type="application/problem+json")

    assert (answer.status, problem["code"]) == (500, "internal")
    assert "canary-detail" not in str(problem)
    assert problem["detail"].removeprefix("incident ") in capsys.readouterr().out


async def test_an_act_that_changes_something_has_its_line_in_the_audit(world: World) -> None:
    await world.applied()
    await world.call("POST", "/v1/agents/triage/ping", who="operator")
    await world.call("POST", "/v1/agents/triage/rotate-secret", who="operator")
    await world.call("DELETE", "/v1/subscriptions/bugs", who="operator", force="true")

    _, audit = await world.call("GET", "/v1/audit", limit=4)
    _, verdict = await world.call("GET", "/v1/audit/check")

    assert [(line["actor"], line["act"]) for line in audit["items"]] == [
        ("operator", "subscriptions.delete"),
        ("operator", "agents.rotate_secret"),
        ("operator", "agents.ping"),
        ("admin", "apply"),
    ]
    assert verdict["whole"] is True
    assert verdict["head"] == audit["items"][0]["hash"]
