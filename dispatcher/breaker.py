"""Whether an agent may be called: a pure state machine of one agent's standing."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dispatcher.protocols.base import FAILED, MISCONFIGURED, TIMEOUT, UNKNOWN, UNREACHABLE

#                    failures in a row >= threshold, or one `misconfigured`
#          ┌────────┐ ───────────────────────────────────────────────► ┌────────┐
#          │ closed │                                                  │  open  │◄─┐
#          └────────┘ ◄──────┐                                         └────────┘  │ the probe failed too:
#                            │ the probe was answered     probe_at_ms │            │ a longer pause
#                            │                                        ▼            │
#                            └─────────────────────────────────── ┌─────────┐ ─────┘
#                                                                  │ probing │
#                                                                  └─────────┘
CLOSED, OPEN, PROBING = "closed", "open", "probing"
FAILING = "failing"
CODE_BY_STATE = {CLOSED: 0, PROBING: 1, OPEN: 2}

# A breaker that opens early postpones burials that an operator asked for by a short schedule; one that opens late only costs
# calls to an agent that is down.  So it takes both a number and a time.
MIN_FAILURES, MIN_FAILING_MS = 20, 30_000
FIRST_PAUSE_MS, MAX_FAILING_PAUSE_MS = 500, 5_000
MIN_UNREACHED = 3
_FAILURES = frozenset({FAILED, TIMEOUT, UNREACHABLE, UNKNOWN})


@dataclass(frozen=True, slots=True)
class Standing:
    """How an agent stands.  `cause` (`misconfigured` or `failing`) is why it is not closed.

    `failures` counts those in a row, since `since_ms`; `unreached` those of them that found nobody there; `pauses` counts the
    pauses before probes, the present one included.
    """

    state: str = CLOSED
    cause: str = ""
    failures: int = 0
    unreached: int = 0
    pauses: int = 0
    probe_at_ms: int = 0
    since_ms: int = 0

    def may_probe(self, now_ms: int) -> bool:
        """Whether an agent that is not closed may have its one call now."""
        return self.state == OPEN and now_ms >= self.probe_at_ms


FRESH = Standing()


def after(standing: Standing, word: str, *, now_ms: int, pause_until_ms: int) -> Standing:
    """The standing after an attempt that ended with `word`.

    `pause_until_ms` is when a misconfigured agent is probed next, by the policy of the invocation that found it so; a failing
    one has short pauses of our own, since a probe costs it nothing and a recovered agent should not wait.  What was on its way
    when the breaker opened, and fails now, changes nothing; what succeeds closes it.
    """
    is_misconfigured = word == MISCONFIGURED
    if not is_misconfigured and word not in _FAILURES:
        return FRESH
    if standing.state == OPEN:
        return standing
    since_ms = standing.since_ms or now_ms
    failures = standing.failures + 1
    unreached = standing.unreached + (word in {UNREACHABLE, TIMEOUT})
    if is_misconfigured:
        return Standing(OPEN, MISCONFIGURED, failures, unreached, _pauses(standing, MISCONFIGURED), pause_until_ms, since_ms)
    if standing.state == CLOSED and not (failures >= MIN_FAILURES and now_ms - since_ms >= MIN_FAILING_MS):
        return replace(standing, failures=failures, unreached=unreached, since_ms=since_ms)
    pauses = _pauses(standing, FAILING)
    return Standing(OPEN, FAILING, failures, unreached, pauses, now_ms + failing_pause_ms(pauses), since_ms)


def failing_pause_ms(pauses: int) -> int:
    """How long an agent that only fails is left alone before its next probe."""
    return min(FIRST_PAUSE_MS << min(pauses - 1, 10), MAX_FAILING_PAUSE_MS)


def probing(standing: Standing) -> Standing:
    """The standing while its one probe is on the way."""
    return replace(standing, state=PROBING)


def abandoned(standing: Standing) -> Standing:
    """The standing when a probe came to no end of its own (nothing to try any more, or a lost lease): open as before."""
    return replace(standing, state=OPEN) if standing.state == PROBING else standing


def probed_soon(standing: Standing) -> Standing:
    """The standing after an operator changed the agent, perhaps mended it: the next probe need not wait."""
    return replace(standing, pauses=0, probe_at_ms=0) if standing.state == OPEN else standing


def has_recovered(before: Standing, now: Standing) -> bool:
    """Whether the agent is back: it was not called, or for some calls in a row nobody was there, and now it answers.

    What waits for a retry then goes at once.  Failures that the agent itself answered with do not count: its next success says
    nothing about them, and their schedule stands.
    """
    if now.state != CLOSED or now.failures:
        return False
    return before.state != CLOSED or MIN_UNREACHED <= before.unreached == before.failures


def _pauses(standing: Standing, cause: str) -> int:
    return standing.pauses + 1 if standing.cause == cause else 1
