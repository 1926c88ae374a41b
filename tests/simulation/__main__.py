"""`make sim`: many schedules, and the command that runs a failing one again.

python -m tests.simulation --seeds 0:100000             judge these schedules; exit 1 where one broke a promise
python -m tests.simulation --seeds 4711 --trace         one schedule, with its digest
python -m tests.simulation --seeds 0:60 --broken all    builds broken on purpose: how many schedules find each out
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.broken import BUILDS
from tests.simulation.world import simulate

PIECE = 25


def judge(seeds: range, how: str) -> list[dict[str, object]]:
    """What each schedule came to."""
    found = []
    for seed in seeds:
        world = simulate(seed, how=how)
        found.append({
            "seed": seed, "kind": world.kind, "digest": world.digest.hexdigest()[:16], "steps": world.steps, "kills": world.kills,
            "calls": len(world.agents.ledger), "events": len(world.vendor.sent), "virtual_s": round(world.clock.elapsed_s, 1),
            "faults": world.faults,
        })  # fmt: skip
    return found


def command(seed: object, how: str) -> str:
    """How to run a schedule again."""
    return f"python -m tests.simulation --seeds {seed} --trace" + (f" --broken '{how}'" if how else "")


def pieces(seeds: range) -> Iterator[range]:
    """Some schedules at a time."""
    for first in range(seeds.start, seeds.stop, PIECE):
        yield range(first, min(first + PIECE, seeds.stop))


def run(seeds: range, how: str, *, jobs: int, shows: int = 10, progress: bool = False) -> tuple[list[dict], Counter[str]]:
    """All schedules: those that broke a promise, and sums."""
    failed: list[dict] = []
    sums: Counter[str] = Counter()
    began = told = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        for found in pool.map(judge, *zip(*((piece, how) for piece in pieces(seeds)), strict=True)):
            for one in found:
                sums.update({name: one[name] for name in ("steps", "kills", "calls", "events")})
                sums["schedules"] += 1
                if one["faults"]:
                    failed.append(one)
                    if len(failed) <= shows and not how:
                        print(f"seed {one['seed']} ({one['kind']}):", *one["faults"][:8], sep="\n    ")
                        print(f"  replay: {command(one['seed'], how)}", flush=True)
            if progress and time.monotonic() - told > 30:
                told = time.monotonic()
                print(f"{sums['schedules']} schedules, {len(failed)} failed, {told - began:.0f} s", flush=True)
    return failed, sums


def pinned_hashes() -> None:
    """Start anew with hashes that are the same each time: sets of names are gone through in their order."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        env = os.environ | {"PYTHONHASHSEED": "0"}
        sys.exit(subprocess.run([sys.executable, "-m", "tests.simulation", *sys.argv[1:]], env=env, check=False).returncode)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:1000", help="one, or FIRST:BEHIND_LAST")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--broken", default="", help=f"all, or one of: {', '.join(BUILDS)}")
    parser.add_argument("--trace", action="store_true", help="show each schedule's digest and figures")
    parser.add_argument("--json", action="store_true", help="the figures as one line, last")
    args = parser.parse_args()
    pinned_hashes()
    first, _, last = args.seeds.partition(":")
    seeds = range(int(first), int(last) if last else int(first) + 1)
    if args.trace:
        found = judge(seeds, args.broken)
        for one in found:
            print(json.dumps(one))
        return int(any(one["faults"] for one in found) != bool(args.broken))
    if args.broken:
        return broken(seeds, args)
    failed, sums = run(seeds, "", jobs=args.jobs, progress=True)
    print(f"{sums['schedules']} schedules: {sums['events']} webhooks, {sums['calls']} calls, {sums['kills']} kills, "
          f"{sums['steps']} steps; {len(failed)} broke a promise")  # fmt: skip
    if args.json:
        print(json.dumps({"failed": [one["seed"] for one in failed], **sums}))
    return int(bool(failed))


def broken(seeds: range, args: argparse.Namespace) -> int:
    """Each broken build, and what found it out; 1 where one was not found out."""
    passed, table = [], {}
    for how in BUILDS if args.broken == "all" else [args.broken]:
        failed, sums = run(seeds, how, jobs=args.jobs)
        by = Counter(name for one in failed for name in {fault.partition(":")[0] for fault in one["faults"]})
        table[how] = {
            "failed": len(failed),
            "of": sums["schedules"],
            "first": failed[0]["seed"] if failed else None,
            "by": dict(by),
        }
        print(f"{how}: {len(failed)} of {sums['schedules']} schedules fail: {dict(by.most_common(5))}")
        if failed:
            print(f"  replay: {command(failed[0]['seed'], how)}", flush=True)
        else:
            passed.append(how)
    if args.json:
        print(json.dumps(table))
    return int(bool(passed))


if __name__ == "__main__":
    sys.exit(main())
