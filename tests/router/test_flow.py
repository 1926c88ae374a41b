"""What flow control needs of an event, as the router works it out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.plan import plan
from router.ruleset import build_ruleset
from schemas.config import SubscriptionConfig, SubscriptionSpec
from schemas.ids import shards_of
from schemas.invocation import Invocation
from schemas.ranks import Rank, older_by
from tests.store.plans import NOW, an_event


def planned(data: Any, *, key: str = "k", identity: str = "a", shards: int = 1, replay: str = "", **spec: Any) -> Invocation:
    made = SubscriptionSpec(agent="triage", pattern={"type": ["github.issues.opened"]}, **spec)
    config = SubscriptionConfig("default", "s", "sub-1", 1, made, agent_shards=shards)
    event = replace(an_event(identity, key=key), version=str(data.get("v", "")))
    (found,) = plan(event, data, build_ruleset(1, [config]), position=0, now_ms=NOW, replay_id=replay).invocations
    return found


def test_a_subscription_without_flow_control_plans_none() -> None:
    assert planned({}).flow is None


def test_a_debounced_event_waits_in_the_lane_of_its_key() -> None:
    found = planned({}, debounce={"wait": 30, "max_wait": 300, "max_events": 7})

    assert (found.lane, found.due_ms) == ("sub-1/default/gh/k", NOW + 30_000)
    assert found.flow is not None
    assert found.flow.full_at == 7


def test_a_batch_without_a_key_gathers_the_whole_subscription() -> None:
    one, other = (planned({}, key=key, identity=key, batch={"max_events": 5, "max_wait": 60}) for key in "kl")

    assert one.lane == other.lane == "sub-1/"
    assert one.due_ms == NOW + 60_000


def test_a_keyed_digest_gathers_equal_keys_and_leaves_events_without_one_to_their_ordering_key() -> None:
    batch = {"max_events": 5, "max_wait": 60, "key": "data.org"}
    one, same, other, none = (
        planned(data, key=f"k{number}", identity=str(number), batch=batch)
        for number, data in enumerate(({"org": "a"}, {"org": "a"}, {"org": "b"}, {}))
    )

    assert one.lane == same.lane
    assert one.lane != other.lane
    assert none.lane == "sub-1/default/gh/k3"


def test_equal_limit_keys_are_equal_for_one_subscription_or_for_an_agent() -> None:
    def key(uid: str, org: str, scope: str) -> str:
        made = SubscriptionSpec(
            agent="triage", pattern={"type": ["github.issues.opened"]}, concurrency={"key": "data.org", "scope": scope}
        )
        rules = build_ruleset(1, [SubscriptionConfig("default", uid, uid, 1, made)])
        (found,) = plan(an_event("a"), {"org": org}, rules, position=0, now_ms=NOW).invocations
        assert found.flow is not None
        return found.flow.limit_key

    assert key("one", "a", "subscription") != key("two", "a", "subscription")
    assert key("one", "a", "agent") == key("two", "a", "agent") != key("one", "b", "agent")


def test_an_events_version_is_the_vendors_or_what_an_expression_finds() -> None:
    own = planned({"v": 5}, stale={"then": "drop"})
    found = planned({"updated": "2026-11-21T10:00:00Z"}, stale={"version": "data.updated"})
    replayed = planned({"v": 5}, replay="rpl_x", stale={"then": "drop"})

    assert own.flow is not None
    assert (own.flow.version, own.flow.drops, bool(own.flow.seen_key)) == ("5", True, True)
    assert found.flow is not None
    assert found.flow.version == "2026-11-21T10:00:00Z"
    assert replayed.flow is not None
    assert replayed.flow.seen_key == "", "what is replayed was asked for"


def test_keys_of_a_spread_agent_are_spread_and_each_stays_where_it_is() -> None:
    found = [planned({}, key=f"k{number}", identity=f"{number}", shards=4) for number in range(64)]
    again = [planned({}, key=f"k{number}", identity=f"again {number}", shards=4) for number in range(64)]

    assert {each.shard for each in found} == set(shards_of("default", "triage", 4))
    assert [each.shard for each in found] == [each.shard for each in again]


@pytest.mark.parametrize(
    ("mine", "seen", "by"),
    [
        (Rank("3", 9), Rank("7", 1), "version"),
        (Rank("10", 0), Rank("9", 5), ""),
        (Rank("7", 0), Rank("7", 5), ""),
        (Rank("2026-11-21T10:00:00Z", 9), Rank("2026-11-21T12:00:00+01:00", 1), "version"),
        (Rank("v2", 1), Rank("v10", 5), "time"),
        (Rank("3", 5), Rank("2026-11-21T10:00:00Z", 5), ""),
        (Rank("", 1), Rank("5", 2), "time"),
    ],
)
def test_versions_decide_where_they_can_be_compared_and_times_where_not(mine: Rank, seen: Rank, by: str) -> None:
    # 12:00+01:00 is 11:00Z: an hour after.
    assert older_by(mine, seen) == by


@given(st.text(max_size=70), st.text(max_size=70), st.integers(0, 10), st.integers(0, 10))
def test_of_two_events_at_most_one_is_older(one: str, other: str, one_ms: int, other_ms: int) -> None:
    mine, seen = Rank(one, one_ms), Rank(other, other_ms)

    assert not (older_by(mine, seen) and older_by(seen, mine))
    assert older_by(mine, mine) == ""
