"""What it costs to make a context, as a ratio to parsing the same body; counting tokens apart from building.

    python -m bench.curate [FOLDER]

FOLDER holds payloads.jsonl as `NBTEST_PAYLOADS_DIR` does; without it the examples of the default views are taken, and three
bodies of 8, 32 and 256 KB made of them.  Times are of the thread's processor, so that what else runs on the machine does not
count; the 99th percentile is over single calls, every body as often.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import thread_time_ns
from typing import Any

import orjson

from curator.compose import Materials, compose
from curator.contract import contract_of
from curator.curate import curate, selected, written
from curator.ports import KnownFact, PastEvent
from curator.tokens import default_counter
from curator.viewtable import examples
from schemas.config import ContextSpec, HistorySpec
from schemas.event import Event

WARM, CALLS = 20, 100
NAMES = (
    *("orjson.loads", "build, no view given", "count", "curate, no view given", "curate, small view"),
    "a whole contract",  # history, facts, something required, the manifest
)
CONTRACT = contract_of(ContextSpec(history=HistorySpec(events=5), facts=("*",), required=("facts.tier",)))
MATERIALS = Materials(
    [
        PastEvent(f"evt_{n}", "github.issues.labeled", 1_795_149_000_000 - n, "nora", "Issue 42 labeled", "done")
        for n in range(5)
    ],
    [KnownFact(name, "gold", "nora", 1_795_149_000_000) for name in ("tier", "plan", "owner")],
)
MAX_BODY_BYTES = 32 * 1024
SMALL_VIEW = "{title: data.issue.title, author: actor, body: data.issue.body}"


def bodies(folder: str | None) -> list[tuple[str, bytes]]:
    if folder is None:
        known = [(kind, body.encode()) for kind, body in examples()]
        rows = [json.loads(body) for _, body in known]
        return known + [("made.up", grown(rows, size)) for size in (8_192, 32_768, 262_144)]
    lines = [json.loads(line) for line in (Path(folder) / "payloads.jsonl").read_text(encoding="utf-8").split("\n") if line]
    typed = ((f"{each['provider']}.{each['expect'].get('type_contains')}", each["body"].encode()) for each in lines)
    return [(kind, body) for kind, body in typed if body[:1] in {b"{", b"["}]


def grown(rows: list[Any], size: int) -> bytes:
    found: list[Any] = []
    while len(orjson.dumps(found)) < size:
        found.extend(rows[: 1 + size // 4096])
    return orjson.dumps({"issue": {"title": "Checkout charges twice", "body": "I press pay twice"}, "rows": found})


def event(kind: str, body: bytes) -> Event:
    return Event(
        id="evt_1", team="default", source="bench", provider="bench", family=kind.partition(".")[0], type=kind, partitionkey="k",
        time_ms=1_795_149_372_120, received_ms=1_795_149_372_120, traceparent="", datacontenttype="application/json", body=body,
        actor="nora",
    )  # fmt: skip


def built(one: Event, data: Any) -> bytes:
    value, notes = selected(one, data, None)
    return written(value, data, notes)[0]


def calls_us(work: Callable[[], object]) -> list[float]:
    """The processor time of single calls, after a few that warm up."""
    for _ in range(WARM):
        work()
    found = []
    for _ in range(CALLS):
        started = thread_time_ns()
        work()
        found.append((thread_time_ns() - started) / 1000)
    return found


def figures(folder: str | None) -> tuple[int, int, list[tuple[str, float, float, float]]]:
    """How many bodies there were, how many of at most 32 KB, and of those, by step: median, p99, median ratio to orjson.loads."""
    rows: list[tuple[int, list[list[float]]]] = []
    for kind, body in bodies(folder):
        data, one = orjson.loads(body), event(kind, body)
        encoded = curate(one, data, view=None, max_tokens=None).context.decode()
        steps: list[Callable[[], object]] = [
            partial(orjson.loads, body),
            partial(built, one, data),
            partial(default_counter().count, encoded),
            partial(curate, one, data, view=None, max_tokens=None),
            partial(curate, one, data, view=SMALL_VIEW, max_tokens=800),
            partial(compose, CONTRACT, one, data, MATERIALS, invocation_id="inv_1", fence_secret=b"k" * 32, reserve_tokens=500),
        ]
        rows.append((len(body), [calls_us(step) for step in steps]))
    within = [steps for size, steps in rows if size <= MAX_BODY_BYTES]
    found = []
    for column, name in enumerate(NAMES):
        every = sorted(one for steps in within for one in steps[column])
        ratio = statistics.median(statistics.median(steps[column]) / statistics.median(steps[0]) for steps in within)
        found.append((name, statistics.median(every), every[int(len(every) * 0.99)], ratio))
    return len(rows), len(within), found


def main() -> None:
    total, within, rows = figures(sys.argv[1] if len(sys.argv) > 1 else None)
    print(f"{total} bodies, {within} of at most 32 KB; microseconds of processor time")
    for name, median, p99, ratio in rows:
        print(f"{name:24} median {median:8.1f}   p99 {p99:8.1f}   ratio to orjson.loads {ratio:6.2f}")


if __name__ == "__main__":
    main()
