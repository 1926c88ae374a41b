"""How an invocation is tried that stands on its subscription's fallback chain; the ledger moves it from link to link."""

from __future__ import annotations

from dataclasses import replace

from dispatcher.book import Setting
from dispatcher.protocols.notice import Notice
from dispatcher.retry import Bury, Delivered, Step
from schemas.config import ContextSpec, SubscriptionConfig
from schemas.fallback import Kind, Link, chain_of, link_at, policy_at
from schemas.ledger import Head


def goes_on(subscription: SubscriptionConfig, step: int) -> Link | None:
    """The link that takes an invocation which would be buried at `step`; None where it is buried."""
    fallback = subscription.spec.fallback
    return link_at(chain_of(fallback), step + 1) if fallback else None


def awaits_answer(head: Head, subscription: SubscriptionConfig) -> bool:
    """Whether it only waited for a person, whose time is over once it is due."""
    link = link_at(chain_of(subscription.spec.fallback), head.step) if head.step else None
    return link is not None and link.kind is Kind.ANSWER


def at_step(
    head: Head, setting: Setting, subscription: SubscriptionConfig, *, now_ms: int
) -> tuple[Setting, SubscriptionConfig]:
    """The setting and the subscription by which the attempt is made at this step: its budget; of a notice, what is said."""
    chain = chain_of(subscription.spec.fallback)
    link, following = link_at(chain, head.step), link_at(chain, head.step + 1)
    changes: dict[str, object] = {"retry": policy_at(chain, head.step, subscription.spec.retry)}
    if link is not None and link.kind is Kind.NOTIFY:
        changes["context"] = ContextSpec(max_tokens=subscription.spec.context.max_tokens)
        waits_s = following.wait_s if following is not None and following.kind is Kind.ANSWER else 0
        if setting.protocol is not None:
            setting = replace(setting, protocol=Notice(answer_until_ms=now_ms + round(waits_s * 1000) if waits_s else 0))
    return setting, replace(subscription, spec=subscription.spec.model_copy(update=changes))


def after_step(step: Step, head: Head, setting: Setting) -> Step:
    """What becomes of it: a notice that arrived is no work that was done, and the chain goes on as from any burial."""
    if isinstance(setting.protocol, Notice) and isinstance(step, Delivered):
        return Bury(head.fell_for)
    return step
