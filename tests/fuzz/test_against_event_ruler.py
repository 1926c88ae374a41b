"""Random patterns and events, judged by AWS's own engine and by ours.

One rule to a machine, and without the combinations in which event-ruler 2.0.1 is known to be wrong: alternatives that mix
numbers with strings, a wildcard beside another matcher, and cidr.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from router.pattern import compile_pattern
from tests.fuzz.event_ruler import EventRuler, running_event_ruler
from tests.router import pattern_strategies as strategies

pytestmark = pytest.mark.slow
EXAMPLES = 200 * int(os.environ.get("NBTEST_EXAMPLES", "1"))


@pytest.fixture(scope="module")
def ruler() -> Iterator[EventRuler]:
    with running_event_ruler() as found:
        yield found


def leaf_arrays(pattern: dict[str, Any]) -> Iterator[list[Any]]:
    for name, value in pattern.items():
        if isinstance(value, dict):
            yield from leaf_arrays(value)
        elif name == "$or":
            for alternative in value:
                yield from leaf_arrays(alternative)
        else:
            yield value


def kind_of(element: Any) -> str:
    if isinstance(element, dict):
        (name,) = element
        return "number" if name == "numeric" else str(name)
    return "number" if isinstance(element, int | float) and not isinstance(element, bool) else "exactly"


def is_judged_wrongly(pattern: dict[str, Any]) -> bool:
    """Whether event-ruler is known to answer such a pattern wrongly, or now so and now so."""
    for array in leaf_arrays(pattern):
        kinds = {kind_of(element) for element in array}
        if "cidr" in kinds or (len(kinds) > 1 and kinds & {"number", "wildcard"}):
            return True
    return False


@pytest.mark.timeout(0)  # as long as it was asked to look
@given(pattern=strategies.patterns, events=st.lists(strategies.events, min_size=1, max_size=4))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_our_verdict_is_event_rulers(ruler: EventRuler, pattern: dict[str, Any], events: list[dict[str, Any]]) -> None:
    assume(not is_judged_wrongly(pattern))
    compiled = compile_pattern(pattern)

    for event in events:
        theirs = ruler.ask(pattern, event)
        assert theirs in {"mixed", "yes" if compiled.matches(event) else "no"}
