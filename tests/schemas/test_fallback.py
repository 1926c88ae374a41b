from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.config import FallbackStep, RetryPolicy, SubscriptionSpec
from schemas.fallback import NOTICE_POLICY, Kind, agent_at, chain_of, link_at, onward, policy_at

NAMES = ["second", "third", "oncall"]
STEPS = st.one_of(
    st.floats(min_value=1, max_value=1000).map(lambda s: FallbackStep(wait=s)),
    st.builds(lambda name, n: FallbackStep(agent=name, attempts=n), st.sampled_from(NAMES), st.integers(1, 9) | st.none()),
    st.builds(lambda name, s: FallbackStep(notify=name, answer_within=s), st.sampled_from(NAMES), st.floats(0, 1000)),
)
CHAINS = st.lists(STEPS, max_size=8).map(chain_of)


def spec(*steps: Any) -> SubscriptionSpec:
    return SubscriptionSpec(agent="first", pattern={"type": ["x"]}, fallback=steps)


@given(CHAINS, st.sets(st.sampled_from(NAMES)))
def test_every_chain_ends_whatever_agents_are_there(chain: Any, known: set[str]) -> None:
    step, seen = 0, []
    while (following := onward(chain, step, home="first", known={*known, "first"})) is not None:
        assert following > step, "a chain never goes back"
        seen.append(following)
        step = following

    assert len(seen) <= len(chain)
    assert all(agent_at(chain, n, home="first") in {*known, "first"} for n in seen)


@given(CHAINS, st.integers(0, 20))
def test_who_works_is_never_who_was_only_told(chain: Any, step: int) -> None:
    link = link_at(chain, step)
    workers = {"first", *(each.agent for each in chain if each.kind is Kind.AGENT)}

    if link is None or link.kind in {Kind.AGAIN, Kind.AGENT}:
        assert agent_at(chain, step, home="first") in workers


@given(CHAINS, st.integers(0, 20))
def test_every_link_has_a_budget_that_ends(chain: Any, step: int) -> None:
    policy = policy_at(chain, step, RetryPolicy())

    assert policy.max_attempts >= 1
    assert policy.max_age > 0
    if (link := link_at(chain, step)) is not None and link.kind in {Kind.AGAIN, Kind.ANSWER}:
        assert policy.max_attempts == 1


def test_a_chain_reads_as_it_is_written() -> None:
    found = chain_of(
        spec({"wait": "5m"}, {"agent": "second", "attempts": 2}, {"notify": "oncall", "answer_within": "4h"}, "bury").fallback
    )

    assert [(link.kind, link.agent, link.wait_s) for link in found] == [
        (Kind.AGAIN, "", 300),
        (Kind.AGENT, "second", 0),
        (Kind.NOTIFY, "oncall", 0),
        (Kind.ANSWER, "", 4 * 3600),
    ]
    assert [agent_at(found, step, home="first") for step in range(5)] == ["first", "first", "second", "oncall", "oncall"]
    assert policy_at(found, 2, RetryPolicy(max_attempts=7)).max_attempts == 2
    assert policy_at(found, 3, RetryPolicy(max_attempts=7)) is NOTICE_POLICY


def test_after_a_notice_a_wait_is_for_the_agent_that_worked_on_it() -> None:
    chain = chain_of(spec({"agent": "second"}, {"notify": "oncall"}, {"wait": 60}).fallback)

    assert agent_at(chain, 3, home="first") == "second"


def test_what_stands_behind_a_burial_is_never_reached() -> None:
    assert chain_of(spec("bury", {"agent": "second"}).fallback) == ()


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({}, "exactly one of"),
        ({"wait": 5, "agent": "a"}, "exactly one of"),
        ({"wait": 5, "attempts": 2}, "belong to a step `agent`"),
        ({"agent": "a", "answer_within": 5}, "belongs to a step `notify`"),
        ({"ask": "bob"}, "Extra inputs"),
    ],
)
def test_a_step_that_says_two_things_or_none_is_refused(step: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        spec(step)


def test_every_agent_of_a_subscription_is_named_once() -> None:
    assert spec({"agent": "second"}, {"notify": "oncall"}, {"agent": "first"}, {"agent": "second"}).agents == (
        "first",
        "second",
        "oncall",
    )
