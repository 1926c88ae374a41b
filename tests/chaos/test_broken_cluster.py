"""Builds that are broken on purpose, on Kafka and PostgreSQL: each must be found out by the checker that passes the good one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.chaos.checker import Verdict
from tests.chaos.cluster import Role, launcher_of
from tests.chaos.scene import Scene, ended, judged, scene, until

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(1800)]


async def kill_routers(found: Scene) -> None:
    for member in found.system.roles_running:
        await found.kill(member)
        await asyncio.sleep(1)


async def freeze_with_calls_under_way(found: Scene) -> None:
    """Its calls are answered while it stands still, and its shards move on: thawed, it wants to write the answers down."""
    calling: list[Role] = []

    async def somebody_calls() -> bool:
        members = found.system.roles_running
        under_way = [await asyncio.to_thread(member.metric, "nightbell_dispatch_inflight") for member in members]
        calling[:] = [member for member, count in zip(members, under_way, strict=True) if count > 1]
        return bool(calling)

    await until(somebody_calls, "calls are under way", moves=found.count)
    await found.freeze_past_their_lease(calling[0], calling[0])
    await asyncio.sleep(2)


SLOW_AGENT = {"delay_ms": 1500, "timeout_s": 20, "keys": 24}
BUILDS: dict[str, tuple[Callable[[Scene], Awaitable[None]], dict, str]] = {
    "cursor_before_rows": (kill_routers, {}, "I1 durability"),
    "epoch_not_checked": (freeze_with_calls_under_way, SLOW_AGENT, "I3 fencing"),
}


async def run_broken(folder: Path, how: str, broker, postgres) -> Verdict:
    act, options, _ = BUILDS[how]
    async with scene(folder, broker, postgres, counts={"all": 2}, launcher=launcher_of(how), **options) as found:
        await act(found)
        found.driver.stopping.set()
        await found.system.settled(8)
        return await ended(found)


@pytest.mark.slow
async def test_the_checker_finds_fault_with_each_broken_build(tmp_path: Path, broker, postgres):
    """All of them at once: each mostly waits."""
    runs = [run_broken(tmp_path / how, how, broker, postgres) for how in BUILDS]
    verdicts = dict(zip(BUILDS, await asyncio.gather(*runs), strict=True))

    for how, verdict in verdicts.items():
        print(how, verdict.figures, len(verdict.faults), verdict.faults[:2])
    passed = [how for how, verdict in verdicts.items() if not any(fault.startswith(BUILDS[how][2]) for fault in verdict.faults)]
    assert not passed, f"builds that passed: { {how: verdicts[how].faults[:3] for how in passed} }"


@pytest.mark.slow
@pytest.mark.parametrize("how", BUILDS)
async def test_the_good_build_passes_where_the_broken_one_fails(tmp_path: Path, broker, postgres, how: str):
    act, options, _ = BUILDS[how]
    async with scene(tmp_path, broker, postgres, counts={"all": 2}, **options) as found:
        await act(found)
        await found.still_flows()
        await judged(found)
