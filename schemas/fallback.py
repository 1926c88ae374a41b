"""A second move: what a subscription declares for when its agent cannot do it, step by step."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from enum import StrEnum

from schemas.config import FallbackStep, RetryPolicy

# A notice that nobody takes must not hold the chain up for long.
NOTICE_POLICY = RetryPolicy(max_attempts=6, max_age=900, first_delay=2, max_delay=120)
_AT_ONCE_S = 0.001
_NOBODY = ""


class Kind(StrEnum):
    """What a link of the chain does."""

    AGAIN = "wait"  # one more try by the agent that worked on it last
    AGENT = "agent"  # another agent, with a budget of its own
    NOTIFY = "notify"  # a person is told
    ANSWER = "answer"  # what the person says is waited for


@dataclass(frozen=True, slots=True)
class Link:
    """One link: `agent` is who is called from here on (empty: who worked on it last), `wait_s` how long it waits before."""

    kind: Kind
    agent: str = _NOBODY
    wait_s: float = 0.0
    attempts: int | None = None
    max_age_s: float | None = None


def chain_of(steps: Sequence[FallbackStep]) -> tuple[Link, ...]:
    """The links of a declared chain; what stands behind a `bury` is never reached."""
    found: list[Link] = []
    for step in steps:
        if step.bury:
            break
        if step.wait is not None:
            found.append(Link(Kind.AGAIN, wait_s=step.wait))
        elif step.agent is not None:
            found.append(Link(Kind.AGENT, step.agent, attempts=step.attempts, max_age_s=step.max_age))
        elif step.notify is not None:
            found.append(Link(Kind.NOTIFY, step.notify))
            if step.answer_within:
                found.append(Link(Kind.ANSWER, wait_s=step.answer_within))
    return tuple(found)


def link_at(chain: Sequence[Link], step: int) -> Link | None:
    """The link that an invocation stands at; None before the first, and where the chain has become shorter since."""
    return chain[step - 1] if 0 < step <= len(chain) else None


def agent_at(chain: Sequence[Link], step: int, *, home: str) -> str:
    """Who works on it at this step: the last other agent so far, else its own (`home`); a person who is told, meanwhile."""
    link = link_at(chain, step)
    if link is not None and link.kind is Kind.NOTIFY:
        return link.agent
    if link is not None and link.kind is Kind.ANSWER and step > 1:
        return chain[step - 2].agent
    others = [each.agent for each in chain[:step] if each.kind is Kind.AGENT]
    return others[-1] if others else home


def onward(chain: Sequence[Link], step: int, *, home: str, known: Container[str]) -> int | None:
    """The step after `step` whose agent is known; None where the chain is over."""
    return next((n for n in range(step + 1, len(chain) + 1) if agent_at(chain, n, home=home) in known), None)


def policy_at(chain: Sequence[Link], step: int, policy: RetryPolicy) -> RetryPolicy:
    """How often and how long is tried at this step: the budget of each begins when its wait is over."""
    link = link_at(chain, step)
    if link is None:
        return policy
    if link.kind is Kind.NOTIFY:
        return NOTICE_POLICY
    if link.kind is not Kind.AGENT:
        return policy.model_copy(update={"max_attempts": 1, "max_age": _AT_ONCE_S})
    own = {"max_attempts": link.attempts, "max_age": link.max_age_s}
    return policy.model_copy(update={name: value for name, value in own.items() if value is not None})
