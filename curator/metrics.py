"""What the curator counts."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from schemas.context import Curated

TOKENS = Counter(
    "nightbell_context_tokens_total",
    "Tokens of the vendors' whole bodies (raw, estimated) and of the contexts made of them (delivered), by subscription.",
    ["team", "subscription", "kind"],
)
CONTEXTS = Counter("nightbell_contexts_total", "Contexts made, by verdict: deliver, park or refuse.", ["verdict"])
CUTS = Counter("nightbell_context_cuts_total", "Contexts from which something was left out.")
MISSING = Counter("nightbell_context_missing_total", "Contexts that lack a required fact or a lookup.")
SECONDS = Histogram(
    "nightbell_curate_seconds",
    "Time to make one context, what it waits for apart.",
    buckets=(0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.02, 0.1),
)


def observe(made: Curated, *, team: str, subscription: str, elapsed_s: float) -> None:
    """Count one context."""
    TOKENS.labels(team, subscription, "raw").inc(made.raw_tokens)
    TOKENS.labels(team, subscription, "delivered").inc(made.tokens)
    CONTEXTS.labels(made.verdict).inc()
    if made.left_out:
        CUTS.inc()
    if made.missing:
        MISSING.inc()
    SECONDS.observe(elapsed_s)
