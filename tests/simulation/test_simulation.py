"""A thousand schedules of the whole pipeline, the same ones each time; builds broken on purpose are found out.

They run as `python -m tests.simulation`, in processes whose hashes are pinned, so that the command in a failure replays it exactly.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.broken import BUILDS

ROOT = Path(__file__).parents[2]
FIRST = int(os.environ.get("NBTEST_SEED", "0"))
DOCUMENT = (ROOT / "docs/delivery.md").read_text()


def simulation(*words: str, hashes: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *words],
        cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": hashes}, check=False, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.timeout(900)
def test_a_thousand_schedules_break_no_promise() -> None:
    done = simulation("--seeds", f"{FIRST}:{FIRST + 1000}", "--json")

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["schedules"] == 1000
    assert figures["kills"] > 1000  # else the schedules are too kind to prove anything
    assert figures["calls"] > 10_000


@pytest.mark.timeout(300)
def test_a_seed_is_one_schedule_step_by_step() -> None:
    told = [simulation("--seeds", "40:48", "--trace", hashes=hashes).stdout for hashes in ("0", "1")]

    digests = [json.loads(line)["digest"] for line in told[0].splitlines()]
    assert told[0] == told[1]
    assert len(set(digests)) == 8


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", BUILDS)
def test_a_build_that_is_broken_on_purpose_is_found_out(how: str) -> None:
    for first in range(0, 24, 6):  # most are found out by the first few
        done = simulation("--seeds", f"{first}:{first + 6}", "--broken", how, "--json")
        if done.returncode == 0:
            break

    assert done.returncode == 0, f"every schedule passed a build with: {BUILDS[how]}\n{done.stdout}{done.stderr}"
    replay = re.search(r"--seeds (\d+) --trace", done.stdout)
    assert replay is not None


def test_the_broken_builds_are_those_of_the_published_table() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\*: (.+?) \|", DOCUMENT.partition("## Simulation")[2], re.MULTILINE)

    assert dict(rows) == BUILDS
