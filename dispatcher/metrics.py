"""What the dispatcher counts (names of the operators' handbook); labels come from closed sets and the agents' names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)


def code_class(status: int) -> str:
    """The label for a status: `2xx` to `5xx`, `none` where there was no answer."""
    return f"{status // 100}xx" if 100 <= status < 600 else "none"  # noqa: PLR2004 - HTTP's own borders


class DispatchMetrics:
    """The dispatcher's instruments, in a registry of the caller's."""

    def __init__(self, registry: CollectorRegistry, *, prefix: str = "nightbell") -> None:
        """Register all of them; a registry takes one set."""

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"{prefix}_{name}", says, labels, registry=registry)

        def gauge(name: str, says: str, *labels: str) -> Gauge:
            return Gauge(f"{prefix}_{name}", says, labels, registry=registry)

        def histogram(name: str, says: str, *labels: str) -> Histogram:
            return Histogram(f"{prefix}_{name}", says, labels, buckets=_SECONDS, registry=registry)

        self.attempts = counter("dispatch_attempts", "Attempts that ended.", "agent", "outcome", "code_class")
        self.ends = counter("dispatch_invocations", "Invocations that came to an end here.", "agent", "state")
        self.duration = histogram("dispatch_duration_seconds", "Time from the attempt's row to the agent's answer.", "agent")
        self.event_to_agent = histogram("event_to_agent_seconds", "Time from receipt to the agent's first 2xx.", "agent")
        self.inflight = gauge("dispatch_inflight", "Invocations that run now.", "agent")
        self.limit = gauge("dispatch_concurrency_limit", "How many of this agent may run at once.", "agent")
        self.breaker = gauge("dispatch_breaker_state", "0 closed, 1 probing, 2 open.", "agent")
        self.in_memory = gauge("dispatch_queue_invocations", "Invocations handed over in memory.")
        self.in_memory_bytes = gauge("dispatch_queue_bytes", "Bytes of the bodies handed over in memory.")
        self.left = counter("dispatch_left_in_ledger", "Offers that memory had no place for; read back later.")
        self.parked = counter("dispatch_parked", "Lanes that were set waiting.", "agent", "reason")
        self.fallbacks = counter(
            "dispatch_fallbacks", "Invocations that went to the next link of their chain.", "agent", "kind"
        )
        self.retry_after = histogram("dispatch_retry_after_seconds", "What agents asked for by Retry-After.")
        self.blocked = counter("dispatch_ssrf_blocked", "Calls refused because of the agent's address.", "agent")
        self.fenced = counter("fenced_writes", "Writes that came too late: another process owns the shard now.")
        self.lost = counter("lease_expired", "Shards that were lost before they were given back.")
        self.runs = gauge("runs_open", "Runs that the agent accepted or is to fetch, and has not ended.", "agent")
        self.runs_over = counter("runs_over", "Runs that ended without a report.", "agent", "verdict")
        self.shards = gauge("dispatch_shards", "Shards that this process owns.")
        self._agents: dict[str, AgentMetrics] = {}

    def of(self, agent: str) -> AgentMetrics:
        """The instruments of one agent, looked up once."""
        found = self._agents.get(agent)
        if found is None:
            found = self._agents[agent] = AgentMetrics(self, agent)
        return found


class AgentMetrics:
    """One agent's children of the instruments, so that an attempt looks nothing up."""

    __slots__ = (
        "_agent",
        "_all",
        "_attempts",
        "_ends",
        "_parked",
        "breaker",
        "duration",
        "event_to_agent",
        "inflight",
        "limit",
        "runs",
    )

    def __init__(self, metrics: DispatchMetrics, agent: str) -> None:
        self._all, self._agent = metrics, agent
        self._attempts: dict[tuple[str, int], Counter] = {}
        self._ends: dict[str, Counter] = {}
        self._parked: dict[str, Counter] = {}
        self.duration = metrics.duration.labels(agent)
        self.event_to_agent = metrics.event_to_agent.labels(agent)
        self.inflight = metrics.inflight.labels(agent)
        self.limit = metrics.limit.labels(agent)
        self.breaker = metrics.breaker.labels(agent)
        self.runs = metrics.runs.labels(agent)

    def attempted(self, outcome: str, status: int) -> None:
        """Count an attempt that ended."""
        child = self._attempts.get((outcome, status))
        if child is None:
            child = self._attempts[outcome, status] = self._all.attempts.labels(self._agent, outcome, code_class(status))
        child.inc()

    def ended(self, state: str, count: int = 1) -> None:
        """Count invocations that came to their end."""
        child = self._ends.get(state)
        if child is None:
            child = self._ends[state] = self._all.ends.labels(self._agent, state)
        child.inc(count)

    def run_over(self, verdict: str) -> None:
        """Count a run that ended without a report."""
        self._all.runs_over.labels(self._agent, verdict).inc()

    def fell_back(self, kind: str) -> None:
        """Count an invocation that goes on along its fallback chain instead of being buried."""
        self._all.fallbacks.labels(self._agent, kind).inc()

    def waits(self, reason: str) -> None:
        """Count a lane that was set waiting."""
        child = self._parked.get(reason)
        if child is None:
            child = self._parked[reason] = self._all.parked.labels(self._agent, reason)
        child.inc()
