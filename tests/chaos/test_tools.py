"""What needs tools of the system, and mostly root: system calls that fail or kill (strace), a disk that is full (a mount), packets
that are lost (nft).  `make chaos` runs these and prints what did not run; nobody else does."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.scene import judged as judged_cluster
from tests.chaos.scene import scene
from tests.chaos.system import NIGHTBELL
from tests.chaos.test_seam import Bench, bench, judged, unready

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
CALLS = int(os.environ.get("NBTEST_CALLS", "12"))  # T-5: at how many calls of each kind it is killed
SYNC_SEND_WRITE = ["sync", "send", "write"]
FULL_S = float(os.environ.get("NBTEST_DISK_FULL_S", "60"))


def traced(*rules: str) -> list[str]:
    """Nightbell under strace, which interferes by these rules."""
    words = [word for rule in rules for word in ("-e", f"inject={rule}")]
    calls = ",".join(sorted({rule.split(":")[0] for rule in rules}))
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", *words, NIGHTBELL]


async def start_anew(found: Bench, launcher: list[str]) -> None:
    """Stop it, and start it under another command."""
    if found.system.process.poll() is None:
        found.system.kill()
    found.system.launcher = launcher
    found.system.start()


@pytest.mark.tools("strace")
@pytest.mark.parametrize(
    "calls", [("fdatasync",), ("sendto", "sendmsg", "write", "writev"), ("pwrite64",)], ids=SYNC_SEND_WRITE
)
async def test_killed_at_the_nth_system_call_it_loses_and_doubles_nothing(tmp_path: Path, calls: tuple[str, ...]):
    async with bench(tmp_path) as found:
        await found.flows()
        for number in range(1, CALLS + 1):
            at = number * (1 if calls == ("fdatasync",) else 9)
            await start_anew(found, traced(*(f"{call}:signal=SIGKILL:when={at}" for call in calls)))
            await found.dies()
            await start_anew(found, [NIGHTBELL])
            await found.system.ready()
            await found.flows()
    judged(found)
    print(f"killed at {CALLS} calls of {', '.join(calls)}")


@pytest.mark.tools("strace")
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
async def test_a_sync_that_fails_is_never_acknowledged(tmp_path: Path, error: str):
    async with bench(tmp_path) as found:
        await found.flows()
        for number in (30, 45, 60):
            await start_anew(found, traced(f"fdatasync:error={error}:when={number}+"))
            await found.system.ready()
            await found.until(unready(found), f"a process whose fdatasync says {error} is not ready")
            await start_anew(found, [NIGHTBELL])
            await found.system.ready()
            await found.flows()
    judged(found)


@pytest.mark.tools("strace")
@pytest.mark.parametrize("delay_ms", [200, 5000])
async def test_a_slow_disk_delays_and_loses_nothing(tmp_path: Path, delay_ms: int):
    async with bench(tmp_path) as found:
        await found.flows()
        rule = f"fdatasync:delay_enter={delay_ms * 1000}"
        await start_anew(found, traced(rule if delay_ms < 1000 else f"{rule}:when=60+40"))
        await found.system.ready(300)
        for _ in range(3):
            await found.flows()
        await start_anew(found, [NIGHTBELL])
        await found.system.ready()
        await found.flows()
    judged(found)


@contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.tools("mount")
async def test_a_disk_that_is_full_for_a_minute_refuses_and_takes_again_by_itself(tmp_path: Path):
    with small_disk(tmp_path / "disk", megabytes=256) as disk:
        async with bench(tmp_path, NIGHTBELL_DATA_DIR=str(disk / "data")) as found:
            await found.flows()
            ballast = disk / "ballast"
            with ballast.open("wb") as file:
                size = shutil.disk_usage(disk).free
                file.write(b"\0" * max(0, size - 200_000))
            await found.refused(503, 30)
            taken = found.driver.count
            await asyncio.sleep(FULL_S)
            assert found.driver.count - taken <= found.driver.keys, "a full disk took webhooks"
            ballast.unlink()
            await found.flows()
        judged(found)


@contextmanager
def packets_lost(ports: list[int], rule: str) -> Iterator[None]:
    """A rule of the kernel for what goes to, and comes from, these ports of this machine."""
    table = "nightbell_chaos"
    listed = "{" + ", ".join(map(str, ports)) + "}"
    rules = [
        f"add table inet {table}",
        f"add chain inet {table} hook_ {{ type filter hook input priority 0 ; }}",
        f"add rule inet {table} hook_ tcp dport {listed} {rule}",
    ]
    if "reset" not in rule:
        rules.append(f"add rule inet {table} hook_ tcp sport {listed} {rule}")
    subprocess.run(["nft", "-f", "-"], input="\n".join(rules) + "\n", text=True, check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", "inet", table], check=True)


@pytest.mark.tools("nft")
@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.parametrize(
    "rule", ["numgen random mod 100 < 10 drop", "drop", "reject with tcp reset"], ids=["a tenth lost", "all lost", "reset"]
)
async def test_packets_that_the_kernel_loses_cost_time_and_nothing_else(tmp_path: Path, broker, postgres, rule: str):
    async with scene(tmp_path, broker, postgres) as found:
        for ports in ([broker.brokers[0].port], [postgres.port], [found.system.agent_port]):
            with packets_lost(ports, rule):
                await asyncio.sleep(10)
            await found.still_flows()
        await judged_cluster(found)
