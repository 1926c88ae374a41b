"""What the demo posts: a realistic mix of six vendors' webhooks, with all that goes wrong on the way to a receiver."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from examples import senders
from examples.senders import Delivery

GOOD, DUPLICATE, FORGED, STALE, MALFORMED = "good", "duplicate", "forged signature", "stale timestamp", "malformed body"
EXPECTED = {GOOD: 200, DUPLICATE: 200, FORGED: 401, STALE: 401, MALFORMED: 400}  # 200 stands for any 2xx
_HOURS_AGO_S = 2 * 3600
_FORGED_CRM = "whsec_Zm9yZ2VkLWZvcmdlZC1mb3JnZWQtZm9yZ2VkISE="
_TORN = b'{"type": "invoice.payment_failed", "data": {"object": '


@dataclass(frozen=True)
class Post:
    """One delivery, and what it is meant as."""

    meaning: str
    delivery: Delivery


Chain = list[Post]  # posted one after the other, each when the one before it was answered


def chains(count: int, *, seed: int = 7) -> list[Chain]:
    """About `count` deliveries, in chains that may be posted side by side."""
    each = max(2, count // 40)
    duplicates = max(3, count * 15 // 100)
    good = max(12, count - 3 * each - duplicates)
    late = max(2, good // 30)  # pairs that come newer version first
    found = [[Post(GOOD, delivery)] for delivery in _good(good - 2 * late)]
    rng = random.Random(seed)
    for chain in rng.sample(found, min(duplicates, len(found))):
        chain.append(Post(DUPLICATE, chain[0].delivery))
    found += [[Post(GOOD, senders.github(9000 + n, version=v)) for v in (1, 0)] for n in range(late)]
    found += [[Post(FORGED, delivery)] for delivery in _forged(each)]
    found += [[Post(STALE, delivery)] for delivery in _stale(each)]
    found += [[Post(MALFORMED, delivery)] for delivery in _malformed(each)]
    rng.shuffle(found)
    return found


def _good(count: int) -> Iterator[Delivery]:
    """Of every vendor in turn; every sixteenth is one that no subscription wants."""
    makers = list(senders.SENDERS.values())
    unwanted: list[Callable[[int], Delivery]] = [
        lambda number: senders.gitlab(number, branch="topic"),
        lambda number: senders.shopify(number, topic="products/update"),
    ]
    for number in range(1, count + 1):
        if number % 16 == 0:
            yield unwanted[number // 16 % 2](number)
        else:
            yield makers[number % len(makers)](number)


def _forged(count: int) -> Iterator[Delivery]:
    for n in range(count):
        name = list(senders.SENDERS)[n % len(senders.SENDERS)]
        secret = _FORGED_CRM if name == "crm" else "what-the-forger-guessed"
        yield senders.SENDERS[name](7000 + n, secret=secret)


def _stale(count: int) -> Iterator[Delivery]:
    makers = (senders.stripe, senders.slack, senders.crm)
    for n in range(count):
        yield makers[n % 3](6000 + n, at=time.time() - _HOURS_AGO_S)


def _malformed(count: int) -> Iterator[Delivery]:
    makers: list[Callable[[int], Delivery]] = [
        lambda _: senders.signed_github(_TORN),
        lambda _: senders.with_gitlab_token(_TORN),
        lambda _: senders.signed_stripe(_TORN),
        lambda _: senders.signed_slack(_TORN),
        lambda _: senders.signed_shopify(_TORN),
        lambda n: senders.signed_crm(n, _TORN),
    ]
    for n in range(count):
        yield makers[n % len(makers)](5000 + n)
