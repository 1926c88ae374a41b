"""What one event costs, stage by stage: microseconds of CPU, the least of several runs, so that the next gain is known."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from multidict import CIMultiDict
from pydantic import SecretStr

from bench.shape import SECRET, Shape
from curator.curate import curate
from curator.tokens import default_counter
from dispatcher.protocols.base import Attempt, Links, Target
from dispatcher.protocols.webhook import Webhook
from dispatcher.signing import Signer
from eventlog.connect import connect as connect_log
from ingest.receive import PreparedSource, Request, prepared, receive
from payload.read import view
from router.plan import plan
from router.ruleset import build_ruleset
from schemas.config import ContextSpec, SourceSpec, SubscriptionConfig, SubscriptionSpec
from schemas.event import from_headers, to_headers
from schemas.invocation import State
from schemas.ledger import Head, Opening, Settlement
from schemas.topics import Draft, Place
from store.admission import Admission
from store.connect import connect as connect_store
from store.ledger import Ledger

VIEW = "{title: data.pull_request.title, author: actor, number: data.number, ring: data.ring}"
NOW = 1_795_255_200_000
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
RUNS, EVENTS = 5, 512


def least(work: Callable[[], object], *, per: int = 1, runs: int = RUNS) -> float:
    """Microseconds of this process's CPU for one of `per` events."""
    best = float("inf")
    for _ in range(runs):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return round(best / per * 1e6, 1)


def stages() -> dict[str, float]:
    """The table."""
    shape = Shape()
    source = prepared(SourceSpec(provider="github", secrets=(SecretStr(SECRET),)), team="default", name="github-bench")
    requests = [_request(shape, number) for number in range(EVENTS)]
    arrived = [receive(request, source, NOW, traceparent=TRACE)[0] for request in requests]
    spec = SubscriptionSpec(agent="sink", pattern={"type": ["github.pull_request.opened"]}, context=ContextSpec(view=VIEW))
    rules = build_ruleset(1, [SubscriptionConfig("default", "prs", "sub_bench", 1, spec)])
    headers = [to_headers(event) for event, _ in arrived]
    default_counter().count("")
    contexts = [curate(event, data, view=VIEW, max_tokens=None) for event, data in arrived]
    found = {
        "verify and normalise": least(
            lambda: [receive(_fresh(r), source, NOW, traceparent=TRACE) for r in requests], per=EVENTS
        ),
        "verify and normalise (the core slept 10 ms before)": _cold(requests, source),
        "headers of the record": least(lambda: [to_headers(event) for event, _ in arrived], per=EVENTS),
        "read back from the log (only to catch up)": least(
            lambda: [
                (from_headers(h, e.body), view(e.body, e.datacontenttype, ""))
                for h, (e, _) in zip(headers, arrived, strict=True)
            ],
            per=EVENTS,
        ),
        "match and plan": least(lambda: [plan(e, d, rules, position=1, now_ms=NOW) for e, d in arrived], per=EVENTS),
        "curate, tokens counted": least(lambda: [curate(e, d, view=VIEW, max_tokens=None) for e, d in arrived], per=EVENTS),
    }
    plans = [plan(event, data, rules, position=number, now_ms=NOW) for number, (event, data) in enumerate(arrived)]
    found["build and sign the call"] = _calls(plans, contexts)
    asyncio.run(_durable(found, arrived, rules))
    found["sum"] = round(sum(cost for name, cost in found.items() if "(" not in name), 1)
    return found


def _cold(requests: list[Request], source: PreparedSource) -> float:
    """The median where each comes alone, as at a low rate: caches and branch predictors have gone cold by then."""
    found = []
    for request in requests[:200]:
        time.sleep(0.01)
        started = time.perf_counter()
        receive(_fresh(request), source, NOW, traceparent=TRACE)
        found.append(time.perf_counter() - started)
    return round(median(found) * 1e6, 1)


def _request(shape: Shape, number: int) -> Request:
    raw = shape.request(number, number)
    head, body = raw.split(b"\r\n\r\n", 1)
    lines = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:]]
    return Request(
        "POST", "http://127.0.0.1/in/github-bench", CIMultiDict([(name, value) for name, value in lines]).items(), body
    )


def _fresh(request: Request) -> Request:
    """The same request unread: a request remembers its parsed body."""
    return Request(request.method, request.url, request.fields, request.body)


def _calls(plans: list, contexts: list) -> float:
    target = Target(
        name="sink",
        url="http://127.0.0.1:9/",
        headers={},
        signer=Signer(["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]),
        user_agent="Nightbell/bench",
    )
    heads = [Head(p.invocations[0], p.event, 0, 0) for p in plans]
    links = Links("http://127.0.0.1/v1/events/x", "http://127.0.0.1/v1/invocations/x/complete", "nbt_" + "x" * 120)
    this = Attempt(1, NOW, NOW + 30_000)
    return least(
        lambda: [Webhook().build(h, c, target, links, this) for h, c in zip(heads, contexts, strict=True)], per=len(plans)
    )


async def _durable(found: dict[str, float], arrived: list, rules) -> None:
    """The three commits, each shared by 64 events as under load; their threads' CPU is in the figure."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = connect_log(f"sqlite:///{folder}/log.db")
        await log.start()
        drafts = [Draft("nightbell.events.github", e.partitionkey, e.body, to_headers(e), (e, d)) for e, d in arrived]
        found["append to the log, durable"] = await _least(
            lambda: _by_64(drafts, lambda draft: log.append([draft])), len(drafts)
        )
        await log.aclose()
        store = connect_store(f"sqlite:///{folder}/store.db")
        await store.start(may_migrate=True)
        admission, ledger = Admission(store.engine, announces=False), Ledger(store.engine)
        place = Place("nightbell.events.github", 0)
        leases = await ledger.hold_shards("bench", lease_ms=600_000)
        epochs = {lease.shard: lease.epoch for lease in leases}
        plans = [plan(e, d, rules, position=number, now_ms=NOW) for number, (e, d) in enumerate(arrived)]
        started = time.process_time()
        admitted = []
        for first in range(0, len(plans), 64):
            admitted += await admission.admit(
                "bench", place, first=first, after=first + 64, plans=plans[first : first + 64], now_ms=NOW
            )
        found["admit"] = round((time.process_time() - started) / len(plans) * 1e6, 1)
        started = time.process_time()
        await _by_64(admitted, lambda item: ledger.open(_opening(item, epochs)))
        await _by_64(admitted, lambda item: ledger.settle(_settlement(item, epochs)))
        found["open and settle the attempt"] = round((time.process_time() - started) / len(plans) * 1e6, 1)
        await store.aclose()


async def _least(work: Callable[[], Awaitable[None]], per: int) -> float:
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        await work()
        best = min(best, time.process_time() - started)
    return round(best / per * 1e6, 1)


async def _by_64(items: list, work: Callable[[object], Awaitable[object]]) -> None:
    for first in range(0, len(items), 64):
        await asyncio.gather(*(work(item) for item in items[first : first + 64]))


def _opening(item, epochs: dict[int, int]) -> Opening:
    invocation = item.invocation
    return Opening(invocation.id, 1, invocation.shard, epochs[invocation.shard], "bench", NOW, NOW + 30_000)


def _settlement(item, epochs: dict[int, int]) -> Settlement:
    invocation = item.invocation
    return Settlement(
        invocation_id=invocation.id, team=invocation.team, lane=invocation.lane, number=1, shard=invocation.shard,
        epoch=epochs[invocation.shard], outcome="delivered", state=State.DONE, reason="delivered", ended_ms=NOW + 5, tries=1,
        status=200, duration_ms=1.0, sent=True, bytes_sent=900, tokens=30, context_digest="d" * 64,
    )  # fmt: skip


if __name__ == "__main__":
    for name, cost in stages().items():
        print(f"{cost:8.1f}  {name}")
