"""What it costs to make a context, as a ratio to parsing the same body; counting tokens apart from building.

    python -m bench.curate [FOLDER]

FOLDER holds payloads.jsonl as `NBTEST_PAYLOADS_DIR` does; without it the examples of the default views are taken, and three
bodies of 8, 32 and 256 KB made of them.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import orjson

from curator.curate import curate, selected, written
from curator.tokens import default_counter
from curator.viewtable import examples
from schemas.event import Event

ROUNDS = 7
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


def median_us(work: Callable[[], object]) -> float:
    """The median of a few rounds, each long enough for the clock."""
    work()
    started = perf_counter_ns()
    work()
    times = max(1, 2_000_000 // max(1, perf_counter_ns() - started))
    rounds = []
    for _ in range(ROUNDS):
        started = perf_counter_ns()
        for _ in range(times):
            work()
        rounds.append((perf_counter_ns() - started) / times / 1000)
    return statistics.median(rounds)


def main() -> None:
    rows = []
    for kind, body in bodies(sys.argv[1] if len(sys.argv) > 1 else None):
        data, one = orjson.loads(body), event(kind, body)
        encoded = curate(one, data, view=None, max_tokens=None).context.decode()
        rows.append((
            len(body),
            median_us(lambda body=body: orjson.loads(body)),
            median_us(lambda one=one, data=data: built(one, data)),
            median_us(lambda encoded=encoded: default_counter().count(encoded)),
            median_us(lambda one=one, data=data: curate(one, data, view=None, max_tokens=None)),
            median_us(lambda one=one, data=data: curate(one, data, view=SMALL_VIEW, max_tokens=800)),
        ))  # fmt: skip
    within = [row for row in rows if row[0] <= MAX_BODY_BYTES]
    print(f"{len(rows)} bodies, {len(within)} of at most 32 KB; us, median and worst of those")
    for name, column in (
        ("orjson.loads", 1),
        ("build, no view given", 2),
        ("count", 3),
        ("curate, no view given", 4),
        ("curate, small view", 5),
    ):
        values = sorted(row[column] for row in within)
        ratio = statistics.median(row[column] / row[1] for row in within)
        p99 = values[min(len(values) - 1, int(len(values) * 0.99))]
        print(f"{name:24} median {statistics.median(values):8.1f}   p99 {p99:8.1f}   ratio to orjson.loads {ratio:6.2f}")


if __name__ == "__main__":
    main()
