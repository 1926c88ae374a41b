"""Planning is pure: the same event and rules give the same invocations for ever."""

from __future__ import annotations

from router.plan import plan
from router.ruleset import build_ruleset
from schemas.config import DedupSpec, SubscriptionConfig, SubscriptionSpec
from schemas.invocation import Order
from tests.router.test_service import event, rule


def config(name: str, spec: SubscriptionSpec, generation: int = 1) -> SubscriptionConfig:
    return SubscriptionConfig("default", name, f"uid-{name}", generation, spec)


def test_the_same_input_gives_the_same_plan_whatever_the_order_of_the_rules():
    configs = [config("a", rule()), config("b", rule()), config("c", rule("stripe."))]

    one = plan(event(1), {}, build_ruleset(1, configs), position=5, now_ms=9)
    two = plan(event(1), {}, build_ruleset(2, reversed(configs)), position=5, now_ms=9)

    assert one == two
    assert [item.subscription for item in one.invocations] == ["a", "b"]


def test_ids_do_not_depend_on_the_generation():
    before = plan(event(1), {}, build_ruleset(1, [config("a", rule(), 1)]), position=5, now_ms=9)
    after = plan(event(1), {}, build_ruleset(2, [config("a", rule(), 2)]), position=5, now_ms=9)

    assert before.invocations[0].id == after.invocations[0].id
    assert after.invocations[0].generation == 2


def test_without_order_every_invocation_is_a_lane_of_its_own():
    spec = rule().model_copy(update={"order": Order.NONE})

    invocation = plan(event(1), {}, build_ruleset(1, [config("a", spec)]), position=5, now_ms=9).invocations[0]

    assert invocation.lane == invocation.id


def test_other_teams_rules_see_nothing():
    foreign = SubscriptionConfig("other", "a", "uid-a", 1, rule())

    assert plan(event(1), {}, build_ruleset(1, [foreign]), position=5, now_ms=9).invocations == ()


def test_a_stored_pattern_that_no_longer_compiles_is_shown_and_plans_nothing():
    bad = rule().model_copy(update={"pattern": {"type": [{"sounds-like": "push"}]}})

    ruleset = build_ruleset(1, [config("a", bad), config("b", rule())])

    assert list(ruleset.rules) == ["uid-b"]
    assert "sounds-like" in ruleset.broken["uid-a"]


def test_unchanged_rules_are_taken_over():
    first = build_ruleset(1, [config("a", rule()), config("b", rule())])
    second = build_ruleset(2, [config("a", rule()), config("b", rule("stripe."), 2)], before=first)

    assert second.rules["uid-a"] is first.rules["uid-a"]
    assert [r.name for r in second.matching("default", event(1).document({}))] == ["a"]


def test_equal_dedup_keys_give_one_digest_of_their_subscription_and_replay():
    spec = rule().model_copy(update={"dedup": DedupSpec(key="data.sha", window="1h")})
    ruleset = build_ruleset(1, [config("a", spec), config("b", spec), config("c", rule())])

    def digests(number: int, sha: object, replay: str = "") -> list[tuple[str, int]]:
        planned = plan(event(number), {"sha": sha}, ruleset, position=5, now_ms=9, replay_id=replay)
        return [(item.dedup_digest, item.dedup_window_ms) for item in planned.invocations]

    (one, other, without), again = digests(1, "x"), digests(2, "x")
    assert again == [one, other, without]
    assert len({one[0], other[0], digests(1, "y")[0][0], digests(1, "x", "rpl_1")[0][0]}) == 4
    assert (one[1], without) == (3_600_000, ("", 0))
    assert digests(1, None) == [("", 0)] * 3
    assert digests(1, "\ud800")[0][0]
