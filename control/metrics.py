"""What the API counts of runs under supervision: what their agents say, how they end, what they cost."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from control.asked import Usage
from schemas.invocation import END_STATES
from schemas.runs import Phase, Said
from store.reports import Seen

_CURRENCIES = frozenset({"USD", "EUR", "GBP", "JPY", "CHF", "CNY", "INR", "CZK", "PLN", "SEK", "CAD", "AUD"})
_SECONDS = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)


class RunMetrics:
    """The instruments, in a registry of the caller's."""

    def __init__(self, registry: CollectorRegistry, *, prefix: str = "nightbell") -> None:
        """Register all of them; a registry takes one set."""

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"{prefix}_{name}", says, labels, registry=registry)

        self._calls = counter("run_calls", "What agents said of their runs, by the phase that it found.", "call", "phase")
        self._reports = counter("run_reports", "Runs that ended by their agent's report.", "agent", "outcome")
        self._fetched = counter("pull_fetched", "Invocations that pull agents fetched.", "agent")
        self._tokens = counter("run_tokens", "Model tokens that runs reported.", "agent", "kind")
        self._cost = counter("run_cost", "Money that runs reported.", "agent", "currency")
        self._seconds = Histogram(
            f"{prefix}_run_from_event_seconds", "Time from planning to the run's report.", ["agent"], buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip

    def called(self, said: Said, phase: Phase) -> None:
        """An agent called."""
        self._calls.labels(said.value, phase.value).inc()

    def fetched(self, agent: str, count: int) -> None:
        """A pull agent fetched so many."""
        self._fetched.labels(agent).inc(count)

    def ended(self, agent: str, outcome: str, phase: Phase, seen: Seen, usage: Usage | None, *, at_ms: int) -> None:
        """A report came; one that changed nothing is not counted."""
        if phase in {Phase.ENDED, Phase.TAKEN_OVER}:
            return
        self._reports.labels(agent, outcome).inc()
        if seen.state in END_STATES:
            self._seconds.labels(agent).observe(max(0, at_ms - seen.created_ms) / 1000)
        if usage is None:
            return
        for kind, count in (("input", usage.input_tokens), ("output", usage.output_tokens)):
            if count:
                self._tokens.labels(agent, kind).inc(count)
        if usage.cost:
            currency = usage.currency or "USD"
            self._cost.labels(agent, currency if currency in _CURRENCIES else "other").inc(usage.cost)
