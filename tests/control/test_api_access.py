"""Who may call what: the whole table of routes against every kind of caller."""

from __future__ import annotations

import pytest

from control.auth import Role
from control.routes import ROUTES, Route
from tests.control.test_api_work import accepted
from tests.fakes.api_world import World

RANK = {"viewer": 1, "operator": 2, "admin": 3}
NEEDED = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


def expected(route: Route, who: str) -> bool:
    """Whether this caller may call the route at all, from the table alone."""
    if who in {"token", "agent"}:
        return route.role is Role.AGENT or route.for_agents
    return route.role is not Role.AGENT and RANK[who] >= NEEDED[route.role]


def path_of(route: Route, invocation: str, event: str) -> str:
    names = {"name": "gh", "event_id": event, "invocation_id": invocation, "progress_id": "none", "key_id": "none"}
    return route.path.format(**names)


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


@pytest.fixture
async def peopled(world: World) -> tuple[World, str, str]:
    await world.applied()
    invocation, plan = await accepted(world)
    await world.key(Role.AGENT, agent="triage")
    return world, invocation, plan.event.id


@pytest.mark.parametrize("who", ["viewer", "operator", "admin", "agent", "token"])
async def test_each_caller_may_call_what_the_table_allows_and_nothing_else(peopled: tuple[World, str, str], who: str) -> None:
    world, invocation, event = peopled

    wrong = []
    for route in ROUTES:
        body = {} if route.method in {"POST", "PUT"} else None
        status, _ = await world.call(route.method, path_of(route, invocation, event), body, who=who)
        if (status != 403) is not expected(route, who) or status in {401, 500}:
            wrong.append((named(route), status))

    assert wrong == []


@pytest.mark.parametrize("who", ["", "nbk_wrong", "nbt_wrong", "nonsense", "nbk_" + "é" * 4, "x" * 3000])
async def test_without_a_valid_credential_every_route_answers_401(peopled: tuple[World, str, str], who: str) -> None:
    world, invocation, event = peopled
    world.keys.pop("", None)

    headers = {"authorization": f"Bearer {who}".encode().decode("latin-1")} if who else {}
    found = set()
    for route in ROUTES:
        async with world.client.request(route.method, path_of(route, invocation, event), headers=headers) as answer:
            found.add((answer.status, (await answer.json(content_type=None))["code"], answer.headers["www-authenticate"]))

    assert found == {(401, "unauthenticated", 'Bearer realm="nightbell"')}


async def test_another_team_finds_nothing_of_this_one(peopled: tuple[World, str, str]) -> None:
    world, invocation, event = peopled

    found = {}
    for route in ROUTES:
        if route.role is Role.AGENT or not route.parameters or route.method == "PUT":
            continue
        body = {"outcome": "done"} if route.path.endswith("/resolve") else None
        status, _ = await world.call(route.method, path_of(route, invocation, event), body, who="others")
        found[named(route)] = status
    _, events = await world.call("GET", "/v1/events", who="others")
    _, invocations = await world.call("GET", "/v1/invocations", who="others")

    assert set(found.values()) == {404}, found
    assert (events["items"], invocations["items"]) == ([], [])


async def test_a_revoked_key_opens_nothing_a_second_later(world: World) -> None:
    _, made = await world.call("POST", "/v1/keys", {"name": "ci", "role": "viewer"})
    world.now.ms += 1000
    before, _ = await world.call("GET", "/v1/events", who=made["key"])

    status, _ = await world.call("DELETE", f"/v1/keys/{made['id']}")
    world.now.ms += 1000
    after, _ = await world.call("GET", "/v1/events", who=made["key"])

    assert (before, status, after) == (200, 200, 401)


async def test_an_expired_key_opens_nothing(world: World) -> None:
    body = {"name": "ci", "role": "viewer", "expires_at": "2027-01-15T09:00:00Z"}
    _, made = await world.call("POST", "/v1/keys", body)
    world.now.ms += 1000
    before, _ = await world.call("GET", "/v1/events", who=made["key"])

    world.now.ms += 3_600_000 * 2
    after, _ = await world.call("GET", "/v1/events", who=made["key"])

    assert (before, after) == (200, 401)


async def test_a_key_is_shown_once_and_only_its_prefix_afterwards(world: World) -> None:
    status, made = await world.call("POST", "/v1/keys", {"name": "ci", "role": "operator"})

    _, listed = await world.call("GET", "/v1/keys")
    assert status == 201
    assert made["key"].startswith("nbk_")
    assert made["key"] not in str(listed)
    assert [key["prefix"] for key in listed["items"] if key["name"] == "ci"] == [made["key"][:12]]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"name": "x", "role": "root"}, 422),
        ({"name": "x", "role": "agent"}, 422),
        ({"name": "x", "role": "agent", "agent": "nobody"}, 404),
        ({"name": "x", "role": "viewer", "agent": "triage"}, 422),
        ({"name": "x", "role": "viewer", "expires_at": "soon"}, 422),
        ({"name": "x", "role": "viewer", "expires_at": "2001-01-01T00:00:00Z"}, 422),
        ({"name": "x", "role": "viewer", "team": "others"}, 422),
        ({"name": "X y", "role": "viewer"}, 422),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(world: World, body: dict[str, str], status: int) -> None:
    await world.applied()

    assert (await world.call("POST", "/v1/keys", body))[0] == status


async def test_keys_are_paged(world: World) -> None:
    _, first = await world.call("GET", "/v1/keys", limit=2)
    _, second = await world.call("GET", "/v1/keys", limit=2, cursor=first["next_cursor"])

    assert [len(first["items"]), len(second["items"]), second["next_cursor"]] == [2, 1, None]
