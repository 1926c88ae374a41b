"""`make bench-cluster`: the figures of roles apart on Apache Kafka and PostgreSQL, both started here from wheels.

    (a) ingest        one ingest process on Kafka, nothing behind it: requests/s as a ratio to the bare handler
    (b) open loop     ingest, router and dispatcher apart at 200/s: webhook to the agent's receipt, p50 and p99
    (c) sustained     the same, 64 connections in a closed loop: delivered/s as a ratio to the bare handler
    (d) role more     (b) and (c) with 1, 2 and 3 dispatchers: what one more costs, and what it brings
    (e) spool         Kafka away, webhooks spooled, Kafka back: spooled/s, and drained/s until the spool is empty

(a), (b) and (c) are measured for the floor too (`bench/floor.py`): one process to take in, one for all the rest, and no feature.
Broker, database, load tool and sink share the machine's cores with what is measured.  Prints tables; --json FILE keeps the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Self

from bench.run import AGENT_SECRET, ROOT, Process, Sink, bare, console, load, medians, pairs, show
from bench.shape import SECRET
from tests.chaos.system import free_port
from tests.servers.kafka import Cluster as Kafka
from tests.servers.postgres import PostgresServer, fresh_database, running_postgres

AGENTS = 10  # several, so that dispatchers share them: an agent is one dispatcher's
READY_S = 180  # a dozen processes share the cores
CONFIG = {
    "version": 1,
    "sources": {"github-bench": {"provider": "github", "secrets": [SECRET], "on_log_down": "spool"}},
}


def config(sink_port: int) -> str:
    """The configuration, as JSON (which is YAML): a subscription for each agent, by the last digit of the pull request."""
    agents, subscriptions = {}, {}
    for digit in range(AGENTS):
        agents[f"sink-{digit}"] = {
            "url": f"http://127.0.0.1:{sink_port}/", "secret": AGENT_SECRET, "allow_private": True, "max_concurrency": 64,
        }  # fmt: skip
        subscriptions[f"prs-{digit}"] = {
            "agent": f"sink-{digit}",
            "pattern": {"data": {"pull_request": {"node_id": [{"suffix": str(digit)}]}}},
            "context": {"view": "{title: data.pull_request.title, author: actor, number: data.number, ring: data.ring}"},
        }
    return json.dumps(CONFIG | {"agents": agents, "subscriptions": subscriptions})


class Installation:
    """Roles apart on a broker and a database, with a sink: a fresh database and fresh topics each time."""

    def __init__(self, folder: Path, kafka: Kafka, postgres: PostgresServer) -> None:
        self.folder, self.kafka = folder, kafka
        self.port = free_port()
        self.members: dict[str, Process] = {}
        self.ports: dict[str, int] = {}
        name = self.name = f"bench_{secrets.token_hex(4)}"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("NIGHTBELL_")} | {
            "NIGHTBELL_LOG_URL": kafka.url,
            "NIGHTBELL_STORE_URL": asyncio.run(fresh_database(postgres, name)),
            "NIGHTBELL_MASTER_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
            "NIGHTBELL_TOPIC_PREFIX": name,
            "NIGHTBELL_LOG_FORMAT": "json",
        }
        self.sink = Sink(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members.values():
            member.stop()
        self.sink.stop()

    def start(self, *roles: str) -> Self:
        """Migrate, apply the configuration, and start these roles (a name for each process: `dispatcher`, `dispatcher-2`)."""
        self.command("migrate")
        key = json.loads(self.command("keys", "create", "bench", "--local", "--role", "admin", "--json"))["key"]
        self.serve("api")
        self.until_ready()
        path = self.folder / "nightbell.yaml"
        path.write_text(config(self.sink.port))
        api = {"NIGHTBELL_API_URL": f"http://127.0.0.1:{self.ports['api']}", "NIGHTBELL_API_KEY": key}
        self.command("apply", "-f", str(path), **api)
        for role in roles:
            self.serve(role)
        self.until_ready()
        return self

    def start_floor(self, *, with_rest: bool) -> None:
        """The floor, in place of the roles."""
        bootstrap = self.kafka.url.removeprefix("kafka://")
        self.members["ingest"] = Process(
            "-m", "bench.floor", "kafka-ingest", str(self.port), bootstrap, self.name
        ).until_ready()
        if with_rest:
            words = (bootstrap, self.name, self.env["NIGHTBELL_STORE_URL"], self.sink.url)
            self.members["rest"] = Process("-m", "bench.floor", "kafka-rest", *words).until_ready()

    def command(self, *words: str, **more: str) -> str:
        env = self.env | {"NIGHTBELL_DATA_DIR": str(self.folder / "operator")} | more
        done = subprocess.run(
            [sys.executable, "-m", "runtime.main", *words], cwd=ROOT, env=env, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"`nightbell {' '.join(words)}` ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def serve(self, name: str) -> None:
        role = name.partition("-")[0]
        self.ports[name] = free_port()
        env = self.env | {
            "NIGHTBELL_DATA_DIR": str(self.folder / name),
            "NIGHTBELL_INGEST_BIND": f"127.0.0.1:{self.port}",
            "NIGHTBELL_API_BIND": f"127.0.0.1:{self.ports[name]}",
        }
        self.members[name] = Process("-m", "runtime.main", "serve", role, env=env, log=self.folder / f"{name}.log")

    def until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        for name, port in self.ports.items():
            while not answers(f"http://127.0.0.1:{port}/readyz"):
                if time.monotonic() > deadline or self.members[name].popen.poll() is not None:
                    raise SystemExit(f"{name} is not ready:\n{(self.folder / f'{name}.log').read_text()[-3000:]}")
                time.sleep(0.05)

    def metric(self, name: str, metric: str) -> float:
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/metrics", timeout=5).read().decode()
        lines = [line for line in text.splitlines() if line.startswith((f"{metric} ", f"{metric}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def until_arrived(self, count: int) -> float:
        return self.sink.until_arrived(count, tell=self.tails)

    def cpu_s(self) -> float:
        return sum(member.cpu_s() for member in self.members.values())

    def tails(self) -> str:
        return "\n".join(f"--- {name}\n{(self.folder / f'{name}.log').read_text()[-800:]}" for name in self.members)


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


def ingest_on_kafka(found: Installation, seconds: float, *, is_floor: bool = False) -> dict:
    """(a): the first second warms up, and is not counted."""
    if is_floor:
        found.start_floor(with_rest=False)
    else:
        found.start("ingest")
    load(found.port, "--seconds", "1")
    server = found.members["ingest"]
    cpu = server.cpu_s()
    result = load(found.port, "--seconds", str(seconds), "--first-ring", "500000000")
    result["server_cpu_us"] = round((server.cpu_s() - cpu) / max(result["requests"], 1) * 1e6)
    return result


def end_to_end(found: Installation, seconds: float, *, rate: float = 0, dispatchers: int = 1, is_floor: bool = False) -> dict:
    """(b), (c), (d): from the webhook's first byte to the agent's receipt, over all processes."""
    names = ["dispatcher", *(f"dispatcher-{number}" for number in range(2, dispatchers + 1))]
    if is_floor:
        found.start_floor(with_rest=True)
    else:
        found.start("ingest", "router", *names)
    load(found.port, "--count", "200", "--seconds", "5", "--first-ring", "900000000")
    found.until_arrived(200)
    cpu, sent_file = found.cpu_s(), found.folder / "sent.bin"
    started = time.monotonic()
    args = ["--seconds", str(seconds), "--times", str(sent_file), *(["--rate", str(rate)] if rate else [])]
    sent = load(found.port, *args)
    accepted = sent["statuses"].get("202", 0)
    ended = found.until_arrived(200 + accepted)
    result = {
        "accepted": accepted, "accepted_per_s": sent["per_s"], "delivered_per_s": round(accepted / (ended - started), 1),
        "behind_s": round(ended - started - sent["seconds"], 2), "ack_p50_ms": sent["p50_ms"], "ack_p99_ms": sent["p99_ms"],
        "statuses": sent["statuses"], "cpu_ms_per_event": round((found.cpu_s() - cpu) / max(accepted, 1) * 1000, 3),
    }  # fmt: skip
    found.sink.stop()
    at, arrived = pairs(sent_file), pairs(found.sink.times)
    delays = sorted((arrived[ring] - began) / 1e6 for ring, began in at.items() if ring in arrived)
    for name, q in (("p50_ms", 0.5), ("p99_ms", 0.99)):
        result[name] = round(delays[min(len(delays) - 1, int(q * len(delays)))], 2)
    return result


def spool(found: Installation, seconds: float) -> dict:
    """(e): the broker stands still as if unplugged, then comes back."""
    found.start("ingest")
    load(found.port, "--seconds", "1")
    [broker] = found.kafka.brokers
    broker.stop()
    try:
        load(found.port, "--count", "64", "--seconds", "10", "--first-ring", "800000000")  # those that find Kafka gone wait
        spooled = load(found.port, "--seconds", str(seconds), "--first-ring", "500000000")
        waiting = found.metric("ingest", "nightbell_spool_bytes")
    finally:
        broker.start()
    back = time.monotonic()
    while found.metric("ingest", "nightbell_spool_bytes"):
        if time.monotonic() - back > 300:
            raise SystemExit(f"the spool does not drain: {found.tails()}")
        time.sleep(0.05)
    drained_s = time.monotonic() - back
    count = spooled["statuses"].get("202", 0) + 64
    return {
        "spooled": count, "spooled_per_s": spooled["per_s"], "p99_ms": spooled["p99_ms"], "statuses": spooled["statuses"],
        "spool_mb": round(waiting / 2**20, 1), "drained_per_s": round(count / drained_s, 1), "drained_s": round(drained_s, 2),
    }  # fmt: skip


def measures(args: argparse.Namespace) -> dict:
    """What a round measures, by name: each takes a fresh installation."""
    seconds = args.seconds
    every = {
        "a": {
            "ingest": lambda each: ingest_on_kafka(each, seconds),
            "floor_ingest": lambda each: ingest_on_kafka(each, seconds, is_floor=True),
        },
        "b": {
            "open_200": lambda each: end_to_end(each, seconds, rate=200),
            "floor_open_200": lambda each: end_to_end(each, seconds, rate=200, is_floor=True),
        },
        "c": {
            "sustained": lambda each: end_to_end(each, seconds),
            "floor_sustained": lambda each: end_to_end(each, seconds, is_floor=True),
        },
        "d": {
            f"{kind}_{count}_dispatchers": lambda each, count=count, rate=rate: end_to_end(
                each, seconds, rate=rate, dispatchers=count
            )
            for count in (1, 2, 3)
            for kind, rate in (("open_200", 200.0), ("sustained", 0.0))
        },
        "e": {"spool": lambda each: spool(each, min(seconds, 5))},
    }
    return {name: measure for letter in args.only for name, measure in every[letter].items()}


def one_round(args: argparse.Namespace, kafka: Kafka, postgres: PostgresServer) -> tuple[dict, dict[str, dict]]:
    yard, found = bare(args.seconds), {}
    for name, measure in measures(args).items():
        with tempfile.TemporaryDirectory() as folder, Installation(Path(folder), kafka, postgres) as each:
            found[name] = measure(each)
        rate = next(found[name][key] for key in ("delivered_per_s", "drained_per_s", "per_s") if key in found[name])
        found[name]["ratio_to_bare"] = round(rate / yard["per_s"], 3)
        console.print(f"  {name}: {found[name]}", highlight=False)
    return yard, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--only", default="abcde")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    base: list[dict] = []
    runs: dict[str, list[dict]] = {}
    with running_postgres() as postgres, Kafka() as kafka:
        for number in range(args.rounds):
            console.print(f"round {number + 1} of {args.rounds}")
            yard, found = one_round(args, kafka, postgres)
            base.append(yard)
            for name, figures in found.items():
                runs.setdefault(name, []).append(figures)
    kept = {"machine": {"cores": os.cpu_count(), "python": sys.version.split()[0], "rounds": args.rounds}}
    kept |= {"bare": medians(base)} | {name: medians(found) for name, found in runs.items()}
    show(
        "bare handler",
        [("requests/s", kept["bare"]["per_s"]), ("p50 / p99 ms", f"{kept['bare']['p50_ms']} / {kept['bare']['p99_ms']}")],
    )
    for name in runs:
        show(name, list(kept[name].items()))
    if args.json:
        args.json.write_text(json.dumps(kept, indent=2))


if __name__ == "__main__":
    main()
