"""The matcher's benchmark: parse and match, as ratios to `orjson.loads` of the same bytes, every engine in one run.

    make bench-match            the table of docs/benchmarks-matching.md
    python -m bench.match --rules 1,100,1000 --workloads mixed --peers ""

Five workloads over a 3 KB event: `routing` (four exact fields), `hetero` (two or three of many fields), `fanout` (team and type, up to
ten hits), `mixed` (every operator) and `hotprefix` (a type that all rules share, and a prefix).  A ratio of 0.5 means that parse and
match together run at half the speed of `orjson.loads` alone, on this machine, now.  Engines take turns, round by round; the best round
of each counts, in CPU time of its thread.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import orjson

from bench.match_peers import Peer, commands
from bench.match_workloads import EVENTS, TEAM, WORKLOADS, fan
from router.matcher import ENGINES, Matcher, Rule
from router.pattern import Pattern, compile_pattern
from router.ruleset import collector_at_rest


@dataclass
class Timed:
    """One engine of ours at one size, µs per event."""

    matcher: Matcher
    build_s: float
    both_us: float = float("inf")
    hits: int = 0


@dataclass(frozen=True)
class Row:
    workload: str
    rules: int
    loads_us: float
    ours: dict[str, Timed]
    peers: dict[str, Peer]
    change_us: float
    p99_us: float


def measure(workload: str, rules: int, *, rounds: int, peers: dict[str, list[str]], patience_s: float) -> Row:
    rng = random.Random(f"{workload}/{rules}")
    written = [WORKLOADS[workload](rng, rules) for _ in range(rules)]
    bodies = [orjson.dumps(fan(rng, rules, workload)) for _ in range(EVENTS)]
    ours = _built(written)
    gc.collect()
    gc.freeze()
    documents = [orjson.loads(body) for body in bodies]
    loads_us = float("inf")
    with ExitStack() as stack:
        others = _started(stack, written, bodies, peers, patience_s)
        for _ in range(rounds):
            loads_us = min(loads_us, _time(lambda: deque(map(orjson.loads, bodies), maxlen=0)))
            for timed in ours.values():
                match = timed.matcher.match
                timed.both_us = min(
                    timed.both_us,
                    _time(lambda match=match: deque((match(TEAM, orjson.loads(body)) for body in bodies), maxlen=0)),
                )
            for peer in others.values():
                peer.round()
    for timed in ours.values():
        timed.hits = sum(len(timed.matcher.match(TEAM, document)) for document in documents)
    best = next(reversed(ours.values())).matcher
    return Row(workload, rules, loads_us, ours, others, _change_us(best, workload, rules), _p99_us(best, documents))


def _started(
    stack: ExitStack, written: list[dict[str, object]], bodies: list[bytes], peers: dict[str, list[str]], patience_s: float
) -> dict[str, Peer]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    files = [folder / "rules", folder / "events"]
    files[0].write_bytes(b"\n".join(map(orjson.dumps, written)) + b"\n")
    files[1].write_bytes(b"\n".join(bodies) + b"\n")
    return {
        name: stack.enter_context(Peer([*command, *map(str, files)], patience_s=patience_s)) for name, command in peers.items()
    }


def _built(written: list[dict[str, object]]) -> dict[str, Timed]:
    """Every engine, with the CPU time that compiling all patterns and indexing them takes."""
    found = {}
    gc.collect()
    with collector_at_rest():  # as the router builds
        started = time.process_time()
        rules = list(_rules(written))
        compile_s = time.process_time() - started
        for engine in ENGINES:
            started = time.process_time()
            matcher = Matcher(rules, engine=engine)
            found[engine] = Timed(matcher, compile_s + time.process_time() - started)
    return found


def _rules(written: list[dict[str, object]]) -> Iterator[Rule]:
    for at, pattern in enumerate(written):
        yield f"r{at}", TEAM, compile_pattern(pattern)


def _time(run) -> float:
    started = time.process_time()
    run()
    return (time.process_time() - started) / EVENTS * 1e6


def _p99_us(matcher: Matcher, documents: list[dict[str, object]]) -> float:
    best = []
    for document in documents:
        tries = []
        for _ in range(5):
            started = time.perf_counter_ns()
            matcher.match(TEAM, document)
            tries.append(time.perf_counter_ns() - started)
        best.append(min(tries))  # the machine is shared: the best of five is the matcher's own
    return sorted(best)[int(len(best) * 0.99)] / 1000


def _change_us(matcher: Matcher, workload: str, rules: int) -> float:
    """The worse of adding and removing one rule, over 20 rules: the median of each, in CPU time."""
    rng = random.Random("changes")
    patterns: list[Pattern] = [compile_pattern(WORKLOADS[workload](rng, rules)) for _ in range(20)]
    adding, removing = [], []
    for at, pattern in enumerate(patterns):
        started = time.process_time_ns()
        matcher = matcher.with_rules(add=[(f"new{at}", TEAM, pattern)])
        between = time.process_time_ns()
        matcher = matcher.with_rules(remove=[(f"r{at}", TEAM)])
        adding.append(between - started)
        removing.append(time.process_time_ns() - between)
    return max(statistics.median(adding), statistics.median(removing)) / 1000


# ── memory: in a process of its own, since what an engine holds is seen from outside only ───────────────────────────────────


def held_megabytes(workload: str, rules: int, engine: str) -> float:
    """What the matcher holds of the machine's memory, compiled fields included, beyond the patterns as written."""
    command = [sys.executable, "-m", "bench.match", "--held", f"{workload}/{rules}/{engine}"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _held_here(workload: str, rules: int, engine: str) -> float:
    rng = random.Random(f"{workload}/{rules}")
    written = [WORKLOADS[workload](rng, rules) for _ in range(rules)]
    Matcher([("warm", TEAM, compile_pattern({"a": ["b"]}))], engine=engine)
    gc.collect()
    before = _resident()
    matcher = Matcher(_rules(written), engine=engine)
    gc.collect()
    assert len(matcher) == rules
    return (_resident() - before) / 1e6


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# ── the table ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ratio(loads_us: float, us: float) -> str:
    return f"{loads_us / us:.2f}" if us < float("inf") else "–"


def _line(row: Row, peers: list[str]) -> str:
    best = row.ours[next(reversed(row.ours))]
    cells = [row.workload, str(row.rules), f"{row.loads_us:.1f}"]
    cells += [_ratio(row.loads_us, timed.both_us) for timed in row.ours.values()]
    cells += [_ratio(row.loads_us, row.peers[name].best_us) for name in peers]
    cells += [f"{max(0.0, timed.both_us - row.loads_us):.1f}" for timed in row.ours.values()]
    cells += [f"{1000 / best.both_us:.0f}", f"{best.hits / EVENTS:.1f}", f"{row.p99_us:.0f}"]
    cells += ["/".join(f"{timed.build_s:.2f}" for timed in row.ours.values()), f"{row.change_us:.0f}"]
    return f"| {' | '.join(cells)} |"


def _check(row: Row) -> Iterator[str]:
    """Where the engines do not find the same number of hits."""
    found = {name: timed.hits for name, timed in row.ours.items()}
    found |= {name: peer.hits for name, peer in row.peers.items() if peer.build_s is not None}
    if len(set(found.values())) > 1:
        yield f"hits differ at {row.workload}/{row.rules}: {found}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rules", default="1,100,1000,10000,100000")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--peers", default="event-ruler,quamina")
    parser.add_argument("--patience", type=float, default=120, help="seconds that a peer may take to build its rules")
    parser.add_argument("--memory", action="store_true", help="what 100,000 rules hold, instead of the table")
    parser.add_argument("--held", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.held:
        workload, rules, engine = given.held.split("/")
        print(_held_here(workload, int(rules), engine))
        return
    print(
        f"CPython {platform.python_version()}, orjson {orjson.__version__}, {os.cpu_count()} cores, {EVENTS} events, load {os.getloadavg()[0]:.0f}"
    )
    if given.memory:
        for workload in given.workloads.split(","):
            print(workload, {engine: f"{held_megabytes(workload, 100_000, engine):.0f} MB" for engine in ENGINES}, flush=True)
        return
    _table(given)


def _table(given: argparse.Namespace) -> None:
    peers = {name: command for name, command in (commands() if given.peers else {}).items() if name in given.peers.split(",")}
    head = ["workload", "rules", "loads µs", *ENGINES, *peers, *(f"{name} match µs" for name in ENGINES)]
    head += ["K events/s", "hits", "p99 µs", f"build s ({'/'.join(ENGINES)})", "change µs"]
    print(f"| {' | '.join(head)} |")
    print(f"|{'|'.join('---' if at == 0 else '--:' for at in range(len(head)))}|")
    said = []
    for workload in given.workloads.split(","):
        for count in map(int, given.rules.split(",")):
            here = {
                name: command for name, command in peers.items() if (name, workload) != ("quamina", "mixed")
            }  # it cannot say it
            row = measure(workload, count, rounds=given.rounds, peers=here, patience_s=given.patience)
            row.peers.update({name: row.peers.get(name, _Absent) for name in peers})
            print(_line(row, list(peers)), flush=True)
            said += _check(row)
            gc.unfreeze()
            gc.collect()
    print(*said, sep="\n")


class _Absent:
    """A peer that does not run a workload."""

    best_us = float("inf")
    build_s = None
    hits = 0


if __name__ == "__main__":
    main()
