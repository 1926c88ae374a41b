"""`make bench-dispatch`: the dispatcher against the bare client loop, lanes, parked retries, idling, the bulkhead.

    (a) deliveries    from a backlog in the ledger, and handed over by admission, against a bare aiohttp client loop and the floor; one process
    (b) lanes         p99 from admission to the agent's answer at 1, 1,000 and 100,000 live keys, less that without lanes
    (c) parked        a million retries that wait: the due poll's time, and memory
    (d) idle          CPU of a whole server with nothing to do
    (e) bulkhead      p99 of 99 agents beside one that never answers, against that of 99 beside a healthy one

The store is SQLite in a temporary folder, durable as in service; the agent is a process of its own.  --json FILE keeps the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sqlite3
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from statistics import median

import aiohttp
import psutil
import uvloop
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from bench import floor
from bench.run import AGENT_SECRET, Nightbell, Process
from curator.service import Curation
from dispatcher.lanes import Bounds
from dispatcher.metrics import DispatchMetrics
from dispatcher.service import Dispatcher, DispatcherConfig
from egress.client import Client
from runtime.collecting import settle
from schemas.config import AgentConfig, AgentSpec, SubscriptionConfig, SubscriptionSpec
from schemas.event import Event
from schemas.ids import event_id, invocation_id, shard_of
from schemas.invocation import Invocation, Order, Planned
from schemas.topics import Place
from store.admission import Admission
from store.connect import connect
from store.engine import Call, OneStep
from store.heads import _DUE, NEXT_DUE
from store.ledger import Ledger
from store.tables import SHARDS
from tests.chaos.system import free_port

PLACE, LOG = Place("nightbell.events.github", 0), "bench"
BODY = json.dumps({"action": "opened", "issue": {"number": 42, "title": "Checkout charges twice", "body": "x" * 600}}).encode()
console = Console()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Tokens:
    def mint(self, **_):
        return "nbi_" + "x" * 120


class Roster:
    """Agents `a0`…, each with one subscription `s0`…; the first may stand at another address."""

    def __init__(self, url: str, *, agents: int, concurrency: int, order: Order, first_url: str = "", timeout_s: float = 30.0):
        self.made = []
        for n in range(agents):
            at = first_url if first_url and n == 0 else f"{url}{n}"
            spec = AgentSpec(url=at, allow_private=True, max_concurrency=concurrency, timeout_s=timeout_s)
            self.made.append(AgentConfig("default", f"a{n}", f"agt{n}", shard_of("default", f"a{n}"), spec, (AGENT_SECRET,)))
        view = "{title: data.issue.title, number: data.issue.number}"
        self.subs = [
            SubscriptionConfig(
                "default",
                f"s{n}",
                f"sub{n}",
                1,
                SubscriptionSpec(
                    agent=f"a{n}",
                    pattern={"type": ["x"]},
                    order=order,
                    context={"view": view},
                    retry={"first_delay": 3600, "max_delay": 3600},
                ),
            )
            for n in range(agents)
        ]

    async def version(self):
        return 1

    async def agents(self):
        return self.made

    async def subscriptions(self):
        return self.subs


class Watched:
    """The way out, with the instant of every answer, by invocation."""

    def __init__(self, client):
        self.client, self.answered, self.sent_bytes = client, {}, 0

    async def request(self, method, url, **more):
        found = await self.client.request(method, url, **more)
        self.answered[more["headers"]["webhook-id"]] = time.perf_counter()
        self.sent_bytes = len(more["body"])
        return found


class Bench:
    """A dispatcher over a real store, and what feeds it as the router does."""

    def __init__(self, folder: Path, roster: Roster):
        self.store, self.roster = connect(f"sqlite:///{folder}/store.db"), roster
        self.numbers, self.position, self.begun = count(), 0, {}

    @asynccontextmanager
    async def open(self):
        await self.store.start(may_migrate=True)
        self.admission = Admission(self.store.engine, announces=False)
        async with Client(user_agent="bench") as client:
            self.caller = Watched(client)
            self.dispatcher = Dispatcher(
                Ledger(self.store.engine),
                self.roster,
                self.caller,
                curate=Curation(fence_secret=bytes(32), counts=False),
                tokens=Tokens(),
                say=lambda *_, **__: None,
                metrics=DispatchMetrics(CollectorRegistry()),
                config=DispatcherConfig(
                    owner="bench", api_url="http://127.0.0.1:1", grace_s=0.2, bounds=Bounds(max_count=4096)
                ),
            )
            try:
                yield self
            finally:
                await self.store.aclose()

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.dispatcher.run())
        while not self.dispatcher.is_ready:
            await asyncio.sleep(0.01)
        settle()
        try:
            yield
        finally:
            self.dispatcher.stop()
            with suppress(asyncio.CancelledError):
                await task

    def plans(self, wanted):
        """Plans of events for (agent, key) pairs."""
        made = []
        at = now_ms()
        for agent, key in wanted:
            n = next(self.numbers)
            sub = self.roster.subs[agent]
            event = Event(
                id=event_id("default", "gh", str(n)),
                team="default",
                source="gh",
                provider="github",
                family="github",
                type="github.issues.opened",
                partitionkey=f"default/gh/{key}",
                time_ms=at,
                received_ms=at,
                traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
                datacontenttype="application/json",
                body=BODY,
                subject=f"acme/shop/issues/{key}",
            )
            ident = invocation_id(event.id, sub.uid)
            lane = ident if sub.spec.order is Order.NONE else f"{sub.uid}/{event.partitionkey}"
            self.begun[ident] = time.perf_counter()
            invocation = Invocation(
                ident,
                "default",
                event.id,
                sub.uid,
                sub.name,
                1,
                sub.spec.agent,
                self.roster.made[agent].shard,
                event.partitionkey,
                lane,
                sub.spec.order,
                at,
                at,
            )
            made.append(Planned(event, self.position + len(made), (invocation,), json.loads(BODY), at))
        return made

    async def admit(self, wanted, *, hands_over=True):
        plans = self.plans(wanted)
        first, self.position = self.position, self.position + len(plans)
        words = {"first": first, "after": self.position, "plans": plans, "now_ms": now_ms()}
        if not hands_over:
            await self.admission.admit(LOG, PLACE, **words)
            return
        reserved = self.dispatcher.reserve(plans)
        admitted = []
        try:
            admitted = await self.admission.admit(LOG, PLACE, **words, openings=reserved)
        finally:
            self.dispatcher.offer(admitted, reserved)
        await self.dispatcher.room()

    async def until(self, total, *, within_s=300.0):
        ends = time.perf_counter() + within_s
        while len(self.caller.answered) < total and time.perf_counter() < ends:
            await asyncio.sleep(0.005)
        return len(self.caller.answered)


async def bare_loop(url: str, body: bytes, *, seconds: float, concurrency: int) -> float:
    """Deliveries a second of a bare aiohttp client: POST, read the answer, again."""
    done = 0
    headers = {"content-type": "application/json", "webhook-id": "inv_" + "x" * 26, "webhook-signature": "v1," + "x" * 44}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:
        ends = time.perf_counter() + seconds

        async def worker():
            nonlocal done
            while time.perf_counter() < ends:
                async with session.post(url, data=body, headers=headers) as answer:
                    await answer.read()
                done += 1

        await asyncio.gather(*(worker() for _ in range(concurrency)))
    return done / seconds


async def floor_deliveries(url: str, body: bytes, *, total: int) -> int:
    """Deliveries a second of the least that keeps the same promises: see `bench/floor.py`."""
    with tempfile.TemporaryDirectory() as folder:
        store = floor.File(Path(folder) / "store.db", floor.STORE)
        left = total

        async def settle(name: str, code: int) -> None:
            nonlocal left
            await store.write((floor.SETTLE, [(code, name)]))
            left -= 1

        caller = floor.Caller(url, settle)
        began = time.perf_counter()
        for first in range(0, total, 64):
            items = [(f"inv_{n:026}", f"default/gh/{n % 1000}", body) for n in range(first, min(first + 64, total))]
            events = [(name, b"", BODY) for name, *_ in items]
            await store.write((floor.KEEP, events), (floor.INVOKE, [(name, name, key) for name, key, _ in items]))
            await caller.offer(items)
        while left:
            await asyncio.sleep(0.005)
        took = time.perf_counter() - began
        await caller.close()
    return round(total / took)


async def deliveries(url: str, *, total: int, seconds: float) -> dict:
    found = {}
    for name in ("backlog", "handed over"):
        with tempfile.TemporaryDirectory() as folder:
            async with Bench(Path(folder), Roster(url, agents=1, concurrency=64, order=Order.STRICT)).open() as bench:
                wanted = [(0, n % 1000) for n in range(total)]
                slices = [wanted[first : first + 64] for first in range(0, total, 64)]
                if name == "backlog":
                    for each in slices:
                        await bench.admit(each, hands_over=False)
                async with bench.running():
                    began, cpu = time.perf_counter(), time.process_time()
                    if name != "backlog":
                        for each in slices:
                            await bench.admit(each)
                    got = await bench.until(total)
                    took = time.perf_counter() - began
                    found[name] = {
                        "per_s": round(got / took),
                        "cpu_us": round((time.process_time() - cpu) / got * 1e6),
                        "got": got,
                    }
                body = b"x" * bench.caller.sent_bytes
        found["bare"] = {"per_s": round(await bare_loop(url, body, seconds=seconds, concurrency=64)), "bytes": len(body)}
        found[name]["ratio"] = round(found[name]["per_s"] / found["bare"]["per_s"], 3)
    found["floor"] = {
        "per_s": (least := await floor_deliveries(url, body, total=total)),
        "ratio": round(least / found["bare"]["per_s"], 3),
    }
    return found


def percentile(values: list[float], part: float) -> float:
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))] if values else float("nan")


async def open_loop(bench: Bench, wanted, *, rate: float) -> list[float]:
    """Milliseconds from admission to the agent's answer, at a steady rate; `wanted` says which (agent, key) comes next."""
    began = time.perf_counter()
    first = set(bench.begun)
    for number, each in enumerate(wanted):
        wait = began + number / rate - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        await bench.admit([each])
    await asyncio.sleep(2.0)
    return [
        (bench.caller.answered[i] - at) * 1000 for i, at in bench.begun.items() if i not in first and i in bench.caller.answered
    ]


def filled(path: Path, lanes: int, *, agent: str, uid: str, shard: int, due_ms) -> float:
    """Put so many lanes, each with one retry that waits, straight into the tables; seconds that it took."""
    began, at = time.perf_counter(), now_ms()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous=OFF")
    rows = ((f"inv_p{n:025d}", f"evt_p{n:025d}", f"{uid}/p{n}", f"p{n}", at, due_ms(n)) for n in range(lanes))
    connection.executemany(
        "INSERT INTO invocations (id, team, event_id, subscription_uid, subscription, generation, agent, shard, lane, ordering_key, ordering,"
        f" state, reason, attempts, tries, created_ms, due_ms) VALUES (?1, 'default', ?2, '{uid}', 's0', 1, '{agent}', {shard}, ?3, ?4,"
        " 'strict', 'waiting', 'retry', 1, 1, ?5, ?6)",
        rows,
    )
    rows = ((f"{uid}/p{n}", due_ms(n)) for n in range(lanes))
    connection.executemany(
        f"INSERT INTO lanes (id, team, subscription_uid, agent, shard, due_ms, queued, hold) VALUES (?, 'default', '{uid}', '{agent}', {shard}, ?, 1, 'retry')",
        rows,
    )
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return time.perf_counter() - began


async def with_lanes(url: str, *, live: int, order: Order, rate: float, seconds: float) -> list[float]:
    """Latencies where `live` keys have work: each event of a key of its own but for `live` 1, beside the others that wait."""
    with tempfile.TemporaryDirectory() as folder:
        roster = Roster(url, agents=1, concurrency=64, order=order)
        async with Bench(Path(folder), roster).open() as bench:
            if live > 1:
                await bench.store.aclose()
                filled(
                    Path(folder) / "store.db",
                    live,
                    agent="a0",
                    uid="sub0",
                    shard=roster.made[0].shard,
                    due_ms=lambda n: now_ms() + 3_600_000 + n,
                )
                bench.store = connect(f"sqlite:///{folder}/store.db")
                async with Bench(Path(folder), roster).open() as again, again.running():
                    return await measured(again, live, rate, seconds)
            async with bench.running():
                return await measured(bench, live, rate, seconds)


async def measured(bench: Bench, live: int, rate: float, seconds: float) -> list[float]:
    await open_loop(bench, [(0, f"w{n}") for n in range(50)], rate=rate)  # warm
    return await open_loop(bench, [(0, n % live) for n in range(int(rate * seconds))], rate=rate)


async def lanes(url: str, *, rate: float, seconds: float, rounds: int) -> dict:
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, live, order in (
            ("none", 1, Order.NONE),
            ("1", 1, Order.STRICT),
            ("1,000", 1000, Order.STRICT),
            ("100,000", 100_000, Order.STRICT),
        ):
            values = await with_lanes(url, live=live, order=order, rate=rate, seconds=seconds)
            found.setdefault(f"{name} p50", []).append(percentile(values, 0.5))
            found.setdefault(f"{name} p99", []).append(percentile(values, 0.99))
    return {name: round(median(values), 2) for name, values in found.items()}


async def parked(url: str, *, retries: int) -> dict:
    """A million retries that wait, over a day: what a poll takes, and what they cost in memory."""
    with tempfile.TemporaryDirectory() as folder:
        roster = Roster(url, agents=1, concurrency=8, order=Order.STRICT)
        async with Bench(Path(folder), roster).open() as bench:
            await bench.store.aclose()
        spread = 86_400_000
        at = now_ms()
        took = filled(
            Path(folder) / "store.db",
            retries,
            agent="a0",
            uid="sub0",
            shard=roster.made[0].shard,
            due_ms=lambda n: at + 600_000 + n * spread // max(retries, 1),
        )
        async with Bench(Path(folder), roster).open() as bench:
            rss = psutil.Process().memory_info().rss
            async with bench.running():
                engine = bench.store.engine
                polls, nexts = [], []
                for _ in range(50):
                    began = time.perf_counter()
                    await engine.read(OneStep(Call(_DUE, ("default", "a0", now_ms(), [], 32))))
                    polls.append((time.perf_counter() - began) * 1000)
                    began = time.perf_counter()
                    await engine.read(OneStep(Call(NEXT_DUE, (0, list(range(SHARDS))))))
                    nexts.append((time.perf_counter() - began) * 1000)
                cpu = time.process_time()
                await asyncio.sleep(10)
                idle = (time.process_time() - cpu) / 10
                return {
                    "retries": retries,
                    "filled_s": round(took, 1),
                    "due_poll_ms_p50": round(median(polls), 3),
                    "due_poll_ms_max": round(max(polls), 3),
                    "next_due_ms_p50": round(median(nexts), 3),
                    "rss_mb": round(psutil.Process().memory_info().rss / 2**20, 1),
                    "rss_growth_mb": round((psutil.Process().memory_info().rss - rss) / 2**20, 1),
                    "idle_cpu_percent": round(idle * 100, 2),
                    "file_mb": round(sum(p.stat().st_size for p in Path(folder).iterdir()) / 2**20),
                }


def idle(seconds: float) -> dict:
    """A whole server (`serve all` on SQLite) with nothing to do: percent of one core."""
    with tempfile.TemporaryDirectory() as folder:
        system = Nightbell(Path(folder))
        try:
            time.sleep(5)
            cpu = system.server.cpu_s()
            time.sleep(seconds)
            return {
                "seconds": seconds,
                "cpu_percent": round((system.server.cpu_s() - cpu) / seconds * 100, 2),
                "rss_mb": round(system.server.rss_mb(), 1),
            }
        finally:
            system.close()


async def bulkhead(url: str, *, rate: float, seconds: float, rounds: int) -> dict:
    """p99 of agents 1 to 99, while agent 0 is as healthy as they, and while it takes connections and never answers."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    silent = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    found: dict[str, list[float]] = {"healthy": [], "one dead": []}
    try:
        for _ in range(rounds):
            for name, first_url in (("healthy", ""), ("one dead", silent)):
                with tempfile.TemporaryDirectory() as folder:
                    roster = Roster(url, agents=100, concurrency=8, order=Order.STRICT, first_url=first_url, timeout_s=5.0)
                    async with Bench(Path(folder), roster).open() as bench, bench.running():
                        await open_loop(bench, [(n % 100, f"w{n}") for n in range(200)], rate=rate)
                        before = set(bench.begun)
                        await open_loop(bench, [(n % 100, n) for n in range(int(rate * seconds))], rate=rate)
                        ends = {i: at for i, at in bench.begun.items() if i not in before and i in bench.caller.answered}
                        values = [(bench.caller.answered[i] - at) * 1000 for i, at in ends.items()]
                        found[name].append(percentile(values, 0.99))
    finally:
        listener.close()
    healthy, dead = (median(found[name]) for name in ("healthy", "one dead"))
    return {"healthy_p99_ms": round(healthy, 2), "one_dead_p99_ms": round(dead, 2), "ratio": round(dead / healthy, 3)}


def show(title: str, figures: dict) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    table.add_column("figure")
    for name, value in figures.items():
        table.add_row(
            name, json.dumps(value) if isinstance(value, dict) else f"{value:,}" if isinstance(value, int) else str(value)
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="abcde", help="which parts, as in `--only ace`")
    parser.add_argument("--deliveries", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parked", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    port = free_port()
    sink = Process("-m", "bench.sink", "--port", str(port)).until_ready()
    url = f"http://127.0.0.1:{port}/"
    found: dict[str, dict] = {}
    try:
        if "a" in args.only:
            show(
                "(a) deliveries",
                found.setdefault("deliveries", uvloop.run(deliveries(url, total=args.deliveries, seconds=args.seconds))),
            )
        if "b" in args.only:
            show(
                "(b) lanes, ms",
                found.setdefault("lanes", uvloop.run(lanes(url, rate=args.rate, seconds=args.seconds, rounds=args.rounds))),
            )
        if "c" in args.only:
            show("(c) parked retries", found.setdefault("parked", uvloop.run(parked(url, retries=args.parked))))
        if "d" in args.only:
            show("(d) idle", found.setdefault("idle", idle(args.seconds * 2)))
        if "e" in args.only:
            show(
                "(e) bulkhead",
                found.setdefault(
                    "bulkhead", uvloop.run(bulkhead(url, rate=args.rate, seconds=args.seconds, rounds=args.rounds))
                ),
            )
    finally:
        sink.stop()
    if args.json:
        args.json.write_text(json.dumps({**found, "cores": os.cpu_count()}, indent=1))


if __name__ == "__main__":
    main()
