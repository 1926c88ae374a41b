"""Applying, and looking at what was applied, over a real store."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tests.fakes.api_world import DOCUMENT, SIGNING, World


def actions(plan: dict[str, Any]) -> dict[str, str]:
    return {f"{change['kind']}/{change['name']}": change["action"] for change in plan["changes"]}


def edited(section: str, name: str, **fields: Any) -> dict[str, Any]:
    document = deepcopy(DOCUMENT)
    document[section].setdefault(name, {}).update(fields)
    return document


async def test_an_apply_creates_what_the_document_names(world: World) -> None:
    plan = await world.applied()

    assert actions(plan) == {"source/gh": "create", "agent/triage": "create", "subscription/bugs": "create"}
    status, source = await world.call("GET", "/v1/sources/gh")
    assert status == 200
    assert source["url"] == "https://in.example.com/in/gh"
    assert source["managed_by"] == "file"


async def test_the_same_apply_again_changes_nothing(world: World) -> None:
    await world.applied()
    before = await world.desk.sources.version()

    plan = await world.applied()

    assert set(actions(plan).values()) == {"unchanged"}
    assert plan["counts"]["unchanged"] == 3
    assert await world.desk.sources.version() == before


async def test_a_dry_run_shows_the_plan_and_changes_nothing(world: World) -> None:
    plan = await world.applied(dry_run="true")

    assert plan["dry_run"] is True
    assert set(actions(plan).values()) == {"create"}
    status, listed = await world.call("GET", "/v1/sources")
    assert (status, listed) == (200, {"items": [], "next_cursor": None})


async def test_an_update_names_the_fields_that_differ_and_shows_no_secret(world: World) -> None:
    await world.applied()

    plan = await world.applied(edited("sources", "gh", secrets=["another-canary"], rate_per_s=5))

    change = next(change for change in plan["changes"] if change["name"] == "gh")
    assert change["fields"] == ["rate_per_s", "secrets"]
    assert change["diff"][1] == {"field": "secrets", "before": ["(secret)"], "after": ["(another secret)"]}
    assert "canary" not in str(plan)


async def test_an_agent_without_a_secret_gets_one_shown_once_and_kept(world: World) -> None:
    document = deepcopy(DOCUMENT)
    del document["agents"]["triage"]["secret"]

    first = await world.applied(document)
    second = await world.applied(document)

    assert first["secrets"]["triage"].startswith("whsec_")
    assert second["secrets"] == {}
    assert actions(second)["agent/triage"] == "unchanged"
    assert await _present_secret(world) == first["secrets"]["triage"]


async def _present_secret(world: World) -> str:
    await world.call("POST", "/v1/agents/triage/ping")
    secrets = world.pinged[-1].secrets
    return secrets[0]


async def test_a_changed_agent_secret_lives_beside_the_one_before_for_a_day(world: World) -> None:
    await world.applied()
    other = "whsec_" + "b3RoZXItc2VjcmV0LW90aGVyLXNlY3JldC0wMDE="

    await world.applied(edited("agents", "triage", secret=other))

    await world.call("POST", "/v1/agents/triage/ping")
    assert world.pinged[-1].secrets == (other, SIGNING)
    world.now.ms += 25 * 3_600_000
    await world.call("POST", "/v1/agents/triage/ping")
    assert world.pinged[-1].secrets == (other,)


async def test_a_rotation_shows_the_new_secret_and_keeps_the_old_one_live(world: World) -> None:
    await world.applied()

    status, rotated = await world.call("POST", "/v1/agents/triage/rotate-secret")

    assert status == 200
    await world.call("POST", "/v1/agents/triage/ping")
    assert world.pinged[-1].secrets == (rotated["secret"], SIGNING)


@pytest.mark.parametrize(
    ("fields", "raises"),
    [
        ({"pattern": {"type": ["x"]}}, True),
        ({"order": "latest"}, True),
        ({"context": {"max_tokens": 9}}, True),
        ({"retry": {"max_attempts": 3}}, False),
        ({"state": "paused"}, False),
    ],
)
async def test_only_a_change_of_pattern_order_or_context_raises_the_generation(
    world: World, fields: dict[str, Any], raises: bool
) -> None:
    await world.applied()

    await world.applied(edited("subscriptions", "bugs", **fields))

    _, found = await world.call("GET", "/v1/subscriptions/bugs")
    assert found["generation"] == 1 + raises


async def test_prune_removes_what_the_file_once_made_and_nothing_else(world: World) -> None:
    await world.applied()
    await world.call("PUT", "/v1/sources/mine", {"provider": "github", "secrets": ["s3cret"]})
    document = deepcopy(DOCUMENT)
    document["sources"] = {}
    document["subscriptions"] = {}

    kept = await world.applied(document)
    pruned = await world.applied(document, prune="true")

    assert "source/gh" not in actions(kept)
    assert actions(pruned) == {"source/gh": "delete", "agent/triage": "unchanged", "subscription/bugs": "drain"}
    _, listed = await world.call("GET", "/v1/sources")
    assert [source["name"] for source in listed["items"]] == ["mine"]


async def test_an_agent_stays_while_its_queue_drains(world: World) -> None:
    await world.applied()
    await world.admit("one")

    plan = await world.applied({"version": 1}, prune="true")
    refused, problem = await world.call("DELETE", "/v1/agents/triage", force="true")

    assert actions(plan)["subscription/bugs"] == "drain"
    assert actions(plan)["agent/triage"] == "keep"
    assert refused == 409
    assert "queue" in problem["detail"]


async def test_deleting_with_cancel_ends_what_is_queued(world: World) -> None:
    await world.applied()
    await world.admit("one")

    status, plan = await world.call("DELETE", "/v1/subscriptions/bugs", force="true", cancel="true")

    assert (status, actions(plan)) == (200, {"subscription/bugs": "delete"})
    _, listed = await world.call("GET", "/v1/invocations")
    assert [found["state"] for found in listed["items"]] == ["canceled"]
    again = await world.applied({"version": 1}, prune="true")
    assert actions(again)["agent/triage"] == "delete"


async def test_deleting_drains_by_default_and_frees_the_name(world: World) -> None:
    await world.applied()
    await world.admit("one")

    await world.call("DELETE", "/v1/subscriptions/bugs", force="true")

    gone, _ = await world.call("GET", "/v1/subscriptions/bugs")
    _, listed = await world.call("GET", "/v1/invocations")
    again = await world.applied()
    assert gone == 404
    assert [found["state"] for found in listed["items"]] == ["queued"]
    assert actions(again)["subscription/bugs"] == "create"


async def test_an_object_of_the_file_is_changed_through_the_api_only_by_force(world: World) -> None:
    await world.applied()
    spec = {"provider": "github", "secrets": ["other"]}

    refused, problem = await world.call("PUT", "/v1/sources/gh", spec)
    forced, plan = await world.call("PUT", "/v1/sources/gh", spec, force="true")
    undone = await world.applied()

    assert (refused, problem["code"], problem["managed_by"]) == (409, "conflict", "file")
    assert (forced, actions(plan)) == (200, {"source/gh": "update"})
    assert actions(undone)["source/gh"] == "update"


async def test_the_file_takes_over_what_it_names(world: World) -> None:
    await world.call("PUT", "/v1/sources/gh", DOCUMENT["sources"]["gh"])

    plan = await world.applied()

    change = next(change for change in plan["changes"] if change["name"] == "gh")
    assert change["diff"] == [{"field": "managed_by", "before": "api", "after": "file"}]


async def test_an_agent_that_a_subscription_names_cannot_be_deleted(world: World) -> None:
    await world.applied()

    status, problem = await world.call("DELETE", "/v1/agents/triage", force="true")

    assert status == 409
    assert "bugs" in problem["detail"]


@pytest.mark.parametrize(
    ("document", "place", "word"),
    [
        ([], "", "mapping"),
        ({"sources": {}}, "/version", "version: 1"),
        ({"version": 2}, "/version", "version 1"),
        ({"version": 1, "agent": {}}, "/agent", "`agents`"),
        (edited("sources", "gh", provider="gitlob"), "/sources/gh/provider", "gitlob"),
        (edited("sources", "gh", secrets=["  "]), "/sources/gh/secrets/0", "blank"),
        (edited("sources", "gh", secret="x"), "/sources/gh/secret", "`secrets`"),
        (edited("sources", "Bad Name", provider="github"), "/sources/Bad Name", "name"),
        (edited("agents", "triage", url="http://127.0.0.1/x"), "/agents/triage/url", "loopback"),
        (edited("agents", "triage", secret="whsec_short"), "/agents/triage/secret", "whsec_"),
        (edited("agents", "triage", headers={"webhook-id": "1"}), "/agents/triage/headers/webhook-id", "itself"),
        (edited("agents", "triage", protocol="pigeon"), "/agents/triage/protocol", "pigeon"),
        (edited("subscriptions", "bugs", pattern={"bogus": 1}), "/subscriptions/bugs/pattern/bogus", "operator"),
        (edited("subscriptions", "bugs", context={"view": "{a"}), "/subscriptions/bugs/context/view", "early"),
        (edited("subscriptions", "bugs", context={"veiw": "a"}), "/subscriptions/bugs/context/veiw", "`view`"),
        (edited("subscriptions", "bugs", retry={"max_age": "1y"}), "/subscriptions/bugs/retry/max_age", "span"),
        (edited("subscriptions", "bugs", agent="nobody"), "/subscriptions/bugs/agent", "nobody"),
    ],
)
async def test_a_flaw_is_named_with_its_place_and_nothing_is_applied(
    world: World, document: Any, place: str, word: str
) -> None:
    status, problem = await world.call("POST", "/v1/apply", document)

    assert (status, problem["code"]) == (422, "invalid")
    found = {flaw["place"]: flaw["message"] for flaw in problem["errors"]}
    assert word in found[place]
    _, listed = await world.call("GET", "/v1/sources")
    assert listed["items"] == []


async def test_all_flaws_of_a_document_are_told_at_once(world: World) -> None:
    document = edited("sources", "gh", secrets=[""], provider="github")
    document["subscriptions"]["bugs"]["pattern"] = {"bogus": []}

    _, problem = await world.call("POST", "/v1/apply", document)

    assert [flaw["place"] for flaw in problem["errors"]] == ["/sources/gh/secrets/0", "/subscriptions/bugs/pattern/bogus"]


async def test_a_subscription_disabled_by_a_410_is_not_enabled_by_an_apply(world: World) -> None:
    await world.applied()
    await disable(world)

    plan = await world.applied()
    _, after_apply = await world.call("GET", "/v1/subscriptions/bugs")
    status, enabled = await world.call("POST", "/v1/subscriptions/bugs/enable")
    twice, _ = await world.call("POST", "/v1/subscriptions/bugs/enable")

    notes = next(change["notes"] for change in plan["changes"] if change["name"] == "bugs")
    assert "stays disabled" in notes[0]
    assert (after_apply["state"], after_apply["wanted_state"]) == ("disabled", "live")
    assert (status, enabled["state"], twice) == (200, "live", 409)


async def disable(world: World) -> None:
    from dataclasses import replace

    from store.subscriptions import mend_subscription, subscriptions_of

    row = (await subscriptions_of(world.store.engine, "default"))["bugs"]
    await world.store.engine.write(lambda: mend_subscription(replace(row, state="disabled", disabled_reason="gone")))


async def test_lists_are_paged_by_name(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.call("PUT", f"/v1/sources/{name}", {"provider": "github", "secrets": ["s"]})

    _, first = await world.call("GET", "/v1/sources", limit=2)
    _, second = await world.call("GET", "/v1/sources", limit=2, cursor=first["next_cursor"])

    assert [source["name"] for source in first["items"]] == ["a", "b"]
    assert [source["name"] for source in second["items"]] == ["c"]
    assert second["next_cursor"] is None


async def test_a_source_shows_its_last_refusals_with_the_step_that_failed(world: World) -> None:
    from ingest.ports import Refusal

    await world.applied()
    refusal = Refusal(
        "default", "gh", world.now.ms, "refused", "signature", "does not match", "POST", {"x": "y"}, "ab", 3, "::1"
    )

    await world.desk.refusals.keep([refusal])

    _, found = await world.call("GET", "/v1/sources/gh")
    _, listed = await world.call("GET", "/v1/sources")
    assert [(line["step"], line["reason"]) for line in found["refusals"]] == [("signature", "does not match")]
    assert listed["items"][0]["refusals_24h"] == 1
