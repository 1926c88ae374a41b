"""Many schedules of crashes, freezes and lies; see `simulation`."""

from __future__ import annotations

import os

import pytest

from tests.dispatcher.simulation import simulate

FIRST = int(os.environ.get("NBTEST_SEED", "0"))


@pytest.mark.parametrize("tens", range(5))
def test_no_schedule_breaks_a_promise(tens: int) -> None:
    for seed in range(FIRST + tens * 10, FIRST + tens * 10 + 10):
        assert simulate(seed) == [], f"replay with NBTEST_SEED={seed}"


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(10))
@pytest.mark.timeout(900)
def test_a_thousand_schedules_break_no_promise(hundred: int) -> None:
    for seed in range(1_000 + hundred * 100, 1_100 + hundred * 100):
        assert simulate(seed) == [], f"replay with NBTEST_SEED={seed}"


def test_the_same_seed_is_the_same_schedule() -> None:
    from tests.dispatcher.simulation import Simulation
    from tests.fakes.clock import run_virtually

    told = []
    for _ in range(2):
        simulation = Simulation(7)
        run_virtually(simulation.run(acts=30), simulation.world.clock)
        told.append([(heard.id, heard.at_s, heard.headers["webhook-signature"]) for heard in simulation.world.caller.heard])

    assert told[0] == told[1]
    assert told[0]


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("no fencing", "a zombie"),
        ("retries in memory", "I1: never ended"),
        ("call before the row", "I7: "),
        ("lanes off", "two run in lane"),
        ("limits off", "calls of one key"),
        ("windows forgotten", "in a digest that has not its event"),
    ],
)
def test_a_build_that_is_broken_on_purpose_is_caught(broken: str, says: str) -> None:
    caught = (problem for seed in range(40) for problem in simulate(seed, broken=broken, acts=120))

    assert any(says in problem for problem in caught)
