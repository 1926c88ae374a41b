"""Verification and normalisation by scheme, as ratios to a bare SHA-256 of the same body; and events/s on a mix of 15 providers.

    python -m bench.providers

Each provider's own test vectors are the requests, so bodies are small and the ratio is a harsh one; the least of several runs counts.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median

from rich.console import Console
from rich.table import Table

from ingest.catalogue import Provider, catalogue
from ingest.inbound import Reply, Request
from ingest.receive import receive
from ingest.samples import request_of, source_of
from schemas.errors import NightbellError

TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
MIX = (
    "github", "gitlab_token", "stripe", "slack_events", "shopify", "standard_webhooks", "bitbucket_cloud", "square", "hubspot_v3",
    "intercom", "linear", "pagerduty", "sentry", "zoom", "paddle_billing",
)  # fmt: skip
TIMES, RUNS = 200, 5


def event_requests(provider: Provider) -> list[tuple[Request, object, int]]:
    """The provider's vectors that give events, with their sources and instants."""
    found = []
    for vector in provider.file.vector:
        request, source, now_ms = request_of(vector), source_of(provider, vector), round(vector.now * 1000)
        try:
            got = receive(fresh(request), source, now_ms, traceparent=TRACE)
        except NightbellError:
            continue  # a vector of what must be refused
        if not isinstance(got, Reply):
            found.append((request, source, now_ms))
    return found


def fresh(request: Request) -> Request:
    """The same request unread: a request remembers its readings."""
    return Request(request.method, request.url, request.fields, request.body)


def least_us(work: Callable[[], object]) -> float:
    """Microseconds of CPU for one call."""
    best = float("inf")
    for _ in range(RUNS):
        started = time.process_time()
        for _ in range(TIMES):
            work()
        best = min(best, time.process_time() - started)
    return best / TIMES * 1e6


def main() -> None:
    by_scheme: dict[str, list[tuple[float, float]]] = defaultdict(list)
    mix_us: list[float] = []
    for name, provider in catalogue().items():
        for request, source, now_ms in event_requests(provider)[:1]:
            cost = least_us(lambda r=request, s=source, n=now_ms: receive(fresh(r), s, n, traceparent=TRACE))
            bare = least_us(lambda body=request.body: hashlib.sha256(body).digest())
            by_scheme[provider.file.verify[0].scheme].append((cost, cost / bare))
            if name in MIX:
                mix_us.append(cost)
    table = Table(title="verify and normalise, by scheme (microseconds of CPU; ratio to SHA-256 of the body)")
    for column in ("scheme", "providers", "median us", "median ratio"):
        table.add_column(column, justify="right" if column != "scheme" else "left")
    for scheme, rows in sorted(by_scheme.items()):
        table.add_row(scheme, str(len(rows)), f"{median(c for c, _ in rows):.0f}", f"{median(r for _, r in rows):.0f}")
    console = Console()
    console.print(table)
    console.print(f"a mix of {len(mix_us)} providers: {len(mix_us) / sum(mix_us) * 1e6:,.0f} events/s of one core")


if __name__ == "__main__":
    main()
