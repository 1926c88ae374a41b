"""The matcher's benchmark: parse and match, as ratios to `orjson.loads` of the same bytes, in one run.

    make bench-match            the table of docs/benchmarks-matching.md
    python -m bench.match --rules 1,100,1000 --workloads mixed

Five workloads over a 3 KB event: `routing` (four exact fields), `hetero` (two or three of many fields), `fanout` (team and type, up to
ten hits), `mixed` (every operator) and `hotprefix` (a type that all rules share, and a prefix).  A ratio of 0.5 means that parse and
match together run at half the speed of parsing alone, on this machine, now.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson

from router.matcher import Matcher, Rule
from router.pattern import Pattern, compile_pattern
from router.ruleset import collector_at_rest

TEAM = "default"
EVENTS = 256
TYPES = [
    f"github.{noun}.{verb}"
    for noun in ("issues", "push", "pull_request", "check_run", "release")
    for verb in ("opened", "closed", "edited", "made")
]
ACTIONS = ["opened", "closed", "edited", "labeled", "assigned", "reopened", "transferred", "pinned"]
LANGUAGES = ["python", "go", "rust", "java", "typescript", "c", "ruby", "kotlin"]


def event(rng: random.Random, rules: int) -> dict[str, object]:
    """A GitHub-like event of about 3 KB, whose values are drawn from the same pools as the rules'."""
    tenant, repo = rng.randrange(max(10, rules // 10)), rng.randrange(max(10, rules // 5))
    user = {
        f"{name}_url": f"https://api.github.com/users/u{repo}/{name}"
        for name in ("followers", "gists", "starred", "repos", "events", "orgs")
    }
    return {
        "specversion": "1.0",
        "id": f"evt_{rng.getrandbits(100):026x}",
        "source": f"github-{tenant % 200}",
        "type": rng.choice(TYPES),
        "subject": f"org{tenant}/repo-{repo}/issues/{rng.randrange(5000)}",
        "time": "2026-11-21T10:00:00Z",
        "datacontenttype": "application/json",
        "team": TEAM,
        "provider": "github",
        "actor": f"user{rng.randrange(pool(rules))}",
        "data": {
            "action": rng.choice(ACTIONS),
            "tenant": f"t{tenant}",
            "number": rng.randrange(10_000),
            "priority": rng.randrange(10),
            "ip": f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(256)}",
            "repository": {
                "name": f"repo-{repo}",
                "full_name": f"org{tenant}/repo-{repo}",
                "private": rng.random() < 0.3,
                "language": rng.choice(LANGUAGES),
                "stars": rng.randrange(100_000),
                "default_branch": rng.choice(["main", "master", "dev"]),
                "owner": {"login": f"org{tenant}", "id": tenant, **user},
            },
            "issue": {
                "title": f"Checkout charges twice in {rng.choice(LANGUAGES)} build {rng.randrange(1000)}",
                "state": rng.choice(["open", "closed"]),
                "comments": rng.randrange(50),
                "body": "It happened again on the second attempt. " * 12,
                "user": {"login": f"user{rng.randrange(pool(rules))}", **user},
            },
            "sender": {"login": f"user{rng.randrange(pool(rules))}", "type": rng.choice(["User", "Bot"]), **user},
        },
    }


def routing(rng: random.Random, rules: int) -> dict[str, object]:
    tenant, repo = rng.randrange(max(10, rules // 10)), rng.randrange(max(10, rules // 5))
    return {
        "source": [f"github-{tenant % 200}"],
        "type": [rng.choice(TYPES)],
        "data": {"tenant": [f"t{tenant}"], "repository": {"name": [f"repo-{repo}"]}},
    }


# Of the eighteen fields below, a rule of `hetero` has one of the first eight (many values) and one or two of any: some 160 field sets.
_FIELDS: list[Callable[[random.Random, int], tuple[str, object]]] = [
    lambda rng, rules: ("actor", f"user{rng.randrange(pool(rules))}"),
    lambda rng, rules: ("data.tenant", f"t{rng.randrange(max(10, rules // 10))}"),
    lambda rng, _: ("data.number", rng.randrange(10_000)),
    lambda rng, rules: ("data.repository.name", f"repo-{rng.randrange(max(10, rules // 5))}"),
    lambda rng, _: ("data.repository.stars", rng.randrange(100_000)),
    lambda rng, rules: ("data.repository.owner.login", f"org{rng.randrange(max(10, rules // 10))}"),
    lambda rng, rules: ("data.issue.user.login", f"user{rng.randrange(pool(rules))}"),
    lambda rng, rules: ("data.sender.login", f"user{rng.randrange(pool(rules))}"),
    lambda rng, _: ("source", f"github-{rng.randrange(200)}"),
    lambda rng, _: ("type", rng.choice(TYPES)),
    lambda rng, _: ("data.action", rng.choice(ACTIONS)),
    lambda rng, _: ("data.priority", rng.randrange(10)),
    lambda rng, _: ("data.repository.private", rng.random() < 0.3),
    lambda rng, _: ("data.repository.language", rng.choice(LANGUAGES)),
    lambda rng, _: ("data.repository.default_branch", rng.choice(["main", "master", "dev"])),
    lambda rng, _: ("data.issue.state", rng.choice(["open", "closed"])),
    lambda rng, _: ("data.issue.comments", rng.randrange(50)),
    lambda rng, _: ("data.sender.type", rng.choice(["User", "Bot"])),
]


def pool(rules: int) -> int:
    """How many people there are: more where there are more rules."""
    return max(2000, rules // 5)


def nested(path: str, value: object, into: dict[str, object]) -> None:
    *parents, name = path.split(".")
    place = into
    for parent in parents:
        place = place.setdefault(parent, {})  # type: ignore[assignment]  # parents are always objects here
    place[name] = value


def hetero(rng: random.Random, rules: int) -> dict[str, object]:
    found: dict[str, object] = {}
    wide = rng.randrange(8)
    others = [at for at in range(len(_FIELDS)) if at != wide]
    for field in (_FIELDS[at] for at in [wide, *rng.sample(others, rng.choice([1, 2]))]):
        path, value = field(rng, rules)
        nested(path, [value], found)
    return found


def fanout(rng: random.Random, rules: int) -> dict[str, object]:
    tenants = max(10, rules // 10)
    return {"type": [rng.choice(TYPES)], "data": {"tenant": [f"t{rng.randrange(tenants // 20 or 1)}"]}}


def mixed(rng: random.Random, rules: int) -> dict[str, object]:
    found: dict[str, object] = {}
    wide: list[tuple[str, object]] = [
        ("data.tenant", f"t{rng.randrange(max(10, rules // 10))}"),
        ("subject", {"prefix": f"org{rng.randrange(max(10, rules // 10))}/"}),
        ("data.repository.full_name", {"suffix": f"/repo-{rng.randrange(max(10, rules // 5))}"}),
        ("data.issue.title", {"wildcard": f"*{rng.choice(LANGUAGES)} build {rng.randrange(1000)}*"}),
        ("data.ip", {"cidr": f"10.{rng.randrange(256)}.{rng.randrange(0, 256, 16)}.0/20"}),
        ("actor", {"equals-ignore-case": f"USER{rng.randrange(pool(rules))}"}),
    ]
    low = rng.randrange(90_000)
    narrow: list[tuple[str, object]] = [
        ("data.action", {"anything-but": [rng.choice(ACTIONS)]}),
        ("data.repository.stars", {"numeric": [">", low, "<", low + 1000]}),
        ("data.priority", {"numeric": [">=", rng.randrange(10)]}),
        ("data.sender.login", {"exists": True}),
    ]
    nested("type", [rng.choice(TYPES)], found)
    for path, element in (rng.choice(wide), rng.choice(narrow)):
        nested(path, [element], found)
    return found


def hotprefix(rng: random.Random, rules: int) -> dict[str, object]:
    return {
        "type": [TYPES[0]],
        "data": {
            "repository": {"full_name": [{"prefix": f"org{rng.randrange(max(10, rules // 10))}/repo-{rng.randrange(10)}"}]}
        },
    }


WORKLOADS = {"routing": routing, "hetero": hetero, "fanout": fanout, "mixed": mixed, "hotprefix": hotprefix}


@dataclass(frozen=True)
class Row:
    workload: str
    rules: int
    loads_us: float
    match_us: float
    hits: float
    build_s: float
    megabytes: float
    change_us: float
    p99_us: float

    @property
    def ratio(self) -> float:
        return self.loads_us / (self.loads_us + self.match_us)


def fan(rng: random.Random, rules: int, workload: str) -> dict[str, object]:
    found = event(rng, rules)
    data = found["data"]
    assert isinstance(data, dict)
    if workload == "fanout":
        data["tenant"] = f"t{rng.randrange(max(10, rules // 10) // 20 or 1)}"
    if workload == "hotprefix":
        found["type"] = TYPES[0]
    return found


def measure(workload: str, rules: int, *, rounds: int, memory: bool) -> Row:
    rng = random.Random(f"{workload}/{rules}")
    written = [WORKLOADS[workload](rng, rules) for _ in range(rules)]
    bodies = [orjson.dumps(fan(rng, rules, workload)) for _ in range(EVENTS)]
    megabytes = _held_megabytes(written) if memory else 0.0
    started = time.process_time()
    with collector_at_rest():  # as the router builds
        matcher = Matcher(_rules(written))
    build_s = time.process_time() - started
    gc.collect()
    gc.freeze()
    documents = [orjson.loads(body) for body in bodies]
    hits = statistics.fmean(len(matcher.match(TEAM, document)) for document in documents)
    loads, both = [], []
    for _ in range(rounds):
        loads.append(_time(lambda: [orjson.loads(body) for body in bodies]))
        both.append(_time(lambda: [matcher.match(TEAM, orjson.loads(body)) for body in bodies]))
    loads_us, both_us = min(loads), min(both)  # the machine may be shared: the best round is the code's own
    return Row(
        workload, rules, loads_us, both_us - loads_us, hits, build_s, megabytes,
        change_us=_change_us(matcher, workload, rules), p99_us=_p99_us(matcher, documents),
    )  # fmt: skip


def _rules(written: list[dict[str, object]]) -> Iterator[Rule]:
    for at, pattern in enumerate(written):
        yield f"r{at}", TEAM, compile_pattern(pattern)


def _held_megabytes(written: list[dict[str, object]]) -> float:
    """What the matcher holds, with its compiled fields, beyond the patterns as written."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    matcher = Matcher(_rules(written))
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(matcher) == len(written)
    return (after - before) / 1e6


def _time(run: Callable[[], object]) -> float:
    started = time.process_time()
    run()
    return (time.process_time() - started) / EVENTS * 1e6


def _p99_us(matcher: Matcher, documents: list[dict[str, object]]) -> float:
    best = []
    for document in documents:
        tries = []
        for _ in range(3):
            started = time.perf_counter_ns()
            matcher.match(TEAM, document)
            tries.append(time.perf_counter_ns() - started)
        best.append(min(tries))  # the machine is shared: the best of three is the matcher's own
    return sorted(best)[int(len(best) * 0.99)] / 1000


def _change_us(matcher: Matcher, workload: str, rules: int) -> float:
    """The worst of adding and removing one rule, over 20 rules: the median of each."""
    rng = random.Random("changes")
    patterns: list[Pattern] = [compile_pattern(WORKLOADS[workload](rng, rules)) for _ in range(20)]
    adding, removing = [], []
    for at, pattern in enumerate(patterns):
        started = time.perf_counter_ns()
        matcher = matcher.with_rules(add=[(f"new{at}", TEAM, pattern)])
        between = time.perf_counter_ns()
        matcher = matcher.with_rules(remove=[(f"r{at}", TEAM)])
        adding.append(between - started)
        removing.append(time.perf_counter_ns() - between)
    return max(statistics.median(adding), statistics.median(removing)) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rules", default="1,100,1000,10000,100000")
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--memory", action="store_true", help="fill the memory column, which takes longer than all the rest")
    given = parser.parse_args()
    print(f"CPython {platform.python_version()}, orjson {orjson.__version__}, {os.cpu_count()} cores, {EVENTS} events")
    print("| workload | rules | ratio to loads | loads µs | match µs | K events/s | hits | p99 µs | build s | MB | change µs |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for workload in given.workloads.split(","):
        for count in map(int, given.rules.split(",")):
            row = measure(workload, count, rounds=given.rounds, memory=given.memory)
            print(
                f"| {workload} | {count} | {row.ratio:.2f} | {row.loads_us:.1f} | {row.match_us:.1f}"
                f" | {1000 / (row.loads_us + row.match_us):.0f} | {row.hits:.1f} | {row.p99_us:.0f} | {row.build_s:.2f}"
                f" | {row.megabytes:.0f} | {row.change_us:.0f} |",
                flush=True,
            )
            gc.unfreeze()
            gc.collect()


if __name__ == "__main__":
    main()
