"""Lanes over the API: which keys wait, and letting blocked ones go on."""

from __future__ import annotations

from tests.control.test_api_work import ended
from tests.fakes.api_world import World


async def test_blocked_keys_are_listed_each_with_its_head(world: World) -> None:
    await world.applied()
    blocked = await ended(world, "a", "waiting", reason="blocked")
    await world.admit("b")

    _, everything = await world.call("GET", "/v1/lanes")
    _, only = await world.call("GET", "/v1/lanes", blocked="true")

    assert len(everything["items"]) == 2
    (lane,) = only["items"]
    head = blocked.invocations[0]
    assert (lane["head"], lane["blocked"], lane["queued"], lane["ordering_key"]) == (head.id, True, 1, head.ordering_key)
    assert lane["due_at"] is None


async def test_a_blocked_head_is_skipped_into_the_dead_letters(world: World) -> None:
    await world.applied()
    head = (await ended(world, "a", "waiting", reason="blocked")).invocations[0]

    tried, _ = await world.call("POST", f"/v1/invocations/{head.id}/skip", dry_run="true")
    done, _ = await world.call("POST", f"/v1/invocations/{head.id}/skip")
    again, said = await world.call("POST", f"/v1/invocations/{head.id}/skip")

    assert (tried, done, again, said["code"]) == (200, 200, 409, "conflict")
    _, shown = await world.call("GET", f"/v1/invocations/{head.id}")
    assert (shown["state"], shown["reason"]) == ("buried", "skipped by an operator")


async def test_a_blocked_head_is_tried_again_by_a_redrive(world: World) -> None:
    await world.applied()
    head = (await ended(world, "a", "waiting", reason="blocked")).invocations[0]

    status, _ = await world.call("POST", f"/v1/invocations/{head.id}/redrive")

    _, shown = await world.call("GET", f"/v1/invocations/{head.id}")
    assert (status, shown["state"], shown["reason"]) == (200, "queued", "redriven")


async def test_all_blocked_keys_of_a_kind_go_on_at_once(world: World) -> None:
    await world.applied()
    for name in "abc":
        head = (await ended(world, name, "waiting", reason="blocked")).invocations[0]

    _, counted = await world.call("POST", "/v1/lanes/unblock", {"how": "skip", "dry_run": True})
    _, one = await world.call("POST", "/v1/lanes/unblock", {"how": "skip", "key": head.ordering_key})
    _, rest = await world.call("POST", "/v1/lanes/unblock", {"how": "redrive", "subscription": head.subscription})
    _, none = await world.call("GET", "/v1/lanes", blocked="true")

    assert (counted["count"], one["count"], rest["count"], none["items"]) == (3, 1, 2, [])
