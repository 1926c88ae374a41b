"""`make bench`: the figures of the embedded default as ratios to a bare handler, medians of rounds, all in one run.

    (a) ingest        requests/s, durable before the 2xx, against a bare aiohttp handler that only reads the body
    (b) end to end    webhook to the agent's receipt: 1,000 keys at the pace of the deliveries, a flood, one hot key, 200/s, CPU at 100/s
    (c) memory        RSS idle, and after many events
    (d) stages        the cost of one event, stage by stage

(a) and (b) are measured for the floor too (`bench/floor.py`): a program that keeps the same promises and has no feature, so that
what the machine costs and what Nightbell costs are told apart.

The load tool and the sink are processes of their own; their CPU is reported.  Prints tables; --json FILE keeps the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from statistics import median

import psutil
from rich.console import Console
from rich.table import Table

from bench.shape import SECRET
from tests.servers.ports import free_port

ROOT = Path(__file__).parents[1]
AGENT_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CONFIG = """\
version: 1
sources:
  github-bench: {{provider: github, secrets: ["{secret}"]}}
agents:
  sink: {{url: "http://127.0.0.1:{port}/", secret: "{agent_secret}", allow_private: true, max_concurrency: 64}}
subscriptions:
  prs:
    agent: sink
    pattern: {{type: [github.pull_request.opened]}}
    context: {{view: "{{title: data.pull_request.title, author: actor, number: data.number, ring: data.ring}}"}}
"""
AHEAD = 512  # events under way at most, where what is accepted and what is delivered are to keep pace
console = Console()


class Process:
    """A child with its output in a file; its CPU time counts its threads."""

    def __init__(self, *command: str, env: dict[str, str] | None = None, log: Path | None = None) -> None:
        out = log.open("ab") if log else subprocess.PIPE
        self.popen = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE if not log else out,
            stderr=out if log else None,
            text=not log,
        )
        self.ps = psutil.Process(self.popen.pid)

    def until_ready(self) -> Process:
        while line := self.popen.stdout.readline():  # what it logs while it starts comes before
            if line.strip() == "ready":
                return self
        raise SystemExit("a process of the bench ended before it was ready")

    def cpu_s(self) -> float:
        times = self.ps.cpu_times()
        return times.user + times.system

    def rss_mb(self) -> float:
        return self.ps.memory_info().rss / 2**20

    def stop(self) -> str:
        self.popen.send_signal(signal.SIGTERM)
        try:
            out, _ = self.popen.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            out, _ = self.popen.communicate()
        return out or ""


class Sink:
    """The agent of the benches as a process, and what has arrived there."""

    def __init__(self, folder: Path) -> None:
        self.port, self.times = free_port(), folder / "sink.bin"
        self.url = f"http://127.0.0.1:{self.port}/"
        self.process = Process("-m", "bench.sink", "--port", str(self.port), "--times", str(self.times)).until_ready()

    def arrived(self) -> int:
        return int(urllib.request.urlopen(self.url, timeout=5).read())

    def until_arrived(self, count: int, within_s: float = 180, *, tell: Callable[[], object] = str) -> float:
        """When so many had arrived; where they do not, it ends with what `tell` knows."""
        deadline = time.monotonic() + within_s
        while self.arrived() < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {self.arrived()} of {count} arrived: {tell()}")
            time.sleep(0.02)
        return time.monotonic()

    def stop(self) -> None:
        if self.process.popen.poll() is None:
            self.process.stop()


class System(ABC):
    """What carries webhooks to a sink, and the sink."""

    server: Process

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.sink = folder, free_port(), Sink(folder)
        self.serve(folder)

    @abstractmethod
    def serve(self, folder: Path) -> None:
        """Start it."""

    def until_arrived(self, count: int, within_s: float = 120) -> float:
        return self.sink.until_arrived(count, within_s, tell=lambda: f"see {self.folder}")

    def close(self) -> None:
        self.server.stop()
        self.sink.stop()


class Floor(System):
    """The least that keeps the same promises."""

    def serve(self, folder: Path) -> None:
        self.server = Process("-m", "bench.floor", "line", str(self.port), str(folder), self.sink.url).until_ready()


class Nightbell(System):
    """The embedded system."""

    def serve(self, folder: Path) -> None:
        self.api = free_port()
        config = folder / "nightbell.yaml"
        config.write_text(CONFIG.format(secret=SECRET, port=self.sink.port, agent_secret=AGENT_SECRET))
        env = {k: v for k, v in os.environ.items() if not k.startswith("NIGHTBELL_")} | {
            "NIGHTBELL_DATA_DIR": str(folder / "data"), "NIGHTBELL_INGEST_BIND": f"127.0.0.1:{self.port}",
            "NIGHTBELL_API_BIND": f"127.0.0.1:{self.api}", "NIGHTBELL_LOG_FORMAT": "json",
        }  # fmt: skip
        self.server = Process(
            "-m", "runtime.main", "serve", "all", "--apply", str(config), env=env, log=folder / "nightbell.log"
        )
        self._until_ready()

    def _until_ready(self) -> None:
        for _ in range(600):
            try:
                if urllib.request.urlopen(f"http://127.0.0.1:{self.api}/readyz", timeout=1).status == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise SystemExit((self.folder / "nightbell.log").read_text()[-3000:])


def load(port: int, *args: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", "--port", str(port), *args], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def bare(seconds: float) -> dict:
    port = free_port()
    server = Process("-m", "bench.bare", str(port)).until_ready()
    found = load(port, "--seconds", str(seconds))
    server.stop()
    return found


def ingest_alone(seconds: float, *program: str) -> dict:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        server = Process("-m", *(program or ("bench.ingest_alone",)), str(port), folder).until_ready()
        found = load(port, "--seconds", str(seconds))
        found["server_cpu_us"] = round(server.cpu_s() / max(found["requests"], 1) * 1e6)
        server.stop()
    return found


def pairs(path: Path) -> dict[int, int]:
    data = path.read_bytes()
    found: dict[int, int] = {}
    for ring, at in struct.iter_unpack("<qq", data):
        found.setdefault(ring, at)
    return found


def end_to_end(seconds: float, *, keys: int = 1000, rate: float = 0, ahead: int = 0, kind: type[System] = Nightbell) -> dict:
    """One fresh installation; events/s until the last arrival, and the latency of each ring.

    `ahead`: no more than so many are under way, so that what is accepted and what is delivered keep pace.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        system = kind(folder)
        sent_file = folder / "sent.bin"
        load(system.port, "--count", "200", "--seconds", "5", "--first-ring", "900000000", "--keys", str(keys))  # warm up
        system.until_arrived(200)
        idle_mb, cpu, sink_cpu = system.server.rss_mb(), system.server.cpu_s(), system.sink.process.cpu_s()
        started = time.monotonic()
        args = ["--seconds", str(seconds), "--keys", str(keys), "--times", str(sent_file)]
        pace = ["--sink", str(system.sink.port), "--ahead", str(ahead)] if ahead else []
        found = load(system.port, *args, *pace, *(["--rate", str(rate)] if rate else []))
        accepted = found["statuses"].get("202", 0)
        ended = system.until_arrived(200 + accepted)
        result = {
            "accepted": accepted, "accepted_per_s": found["per_s"], "delivered_per_s": round(accepted / (ended - started), 1),
            "behind_s": round(ended - started - found["seconds"], 2), "ack_p50_ms": found["p50_ms"], "ack_p99_ms": found["p99_ms"],
            "statuses": found["statuses"], "cpu_ms_per_event": round((system.server.cpu_s() - cpu) / accepted * 1000, 3),
            "sink_cpu_s": round(system.sink.process.cpu_s() - sink_cpu, 2), "load_cpu_s": found["cpu_s"],
            "rss_before_mb": round(idle_mb, 1), "rss_after_mb": round(system.server.rss_mb(), 1),
        }  # fmt: skip
        system.close()
        sent, arrived = pairs(sent_file), pairs(system.sink.times)
        delays = sorted((arrived[ring] - at) / 1e6 for ring, at in sent.items() if ring in arrived)
        for name_, q in (("p50_ms", 0.5), ("p99_ms", 0.99)):
            result[name_] = round(delays[min(len(delays) - 1, int(q * len(delays)))], 2)
        return result


def memory(events: int) -> dict:
    with tempfile.TemporaryDirectory() as name:
        system = Nightbell(Path(name))
        rows = [("idle", round(system.server.rss_mb(), 1))]
        done, step = 0, max(events // 5, 1)
        while done < events:
            found = load(
                system.port, "--count", str(step), "--seconds", "600", "--first-ring", str(done), "--connections", "32"
            )
            done += found["statuses"].get("202", 0)
            system.until_arrived(done, within_s=600)
            rows.append((f"{done:,}", round(system.server.rss_mb(), 1)))
        system.close()
    return dict(rows)


def medians(runs: list[dict]) -> dict:
    return {
        key: round(median(run[key] for run in runs), 3) if isinstance(runs[0][key], int | float) else runs[0][key]
        for key in runs[0]
    }


def show(title: str, rows: list[tuple[str, object]]) -> None:
    table = Table(title=title, show_header=False)
    for name, value in rows:
        table.add_row(name, str(value))
    console.print(table)


def measures(args: argparse.Namespace) -> dict[str, Callable[[], dict]]:
    """What a round measures, by name.  One hot key goes one at a time: a few seconds of it take long to deliver."""
    found: dict[str, Callable[[], dict]] = {}
    if "a" in args.only:
        found["ingest"] = lambda: ingest_alone(args.seconds)
        found["floor_ingest"] = lambda: ingest_alone(args.seconds, "bench.floor", "ingest")
    if "b" in args.only:
        found["keys_1000"] = lambda: end_to_end(args.seconds, ahead=AHEAD)
        found["flood"] = lambda: end_to_end(args.seconds)
        found["hot_key"] = lambda: end_to_end(min(args.seconds, 2), keys=1)
        found["open_200"] = lambda: end_to_end(args.seconds, rate=200)
        found["open_100"] = lambda: end_to_end(args.seconds, rate=100)
        found["floor_keys_1000"] = lambda: end_to_end(args.seconds, ahead=AHEAD, kind=Floor)
        found["floor_open_200"] = lambda: end_to_end(args.seconds, rate=200, kind=Floor)
        found["floor_open_100"] = lambda: end_to_end(args.seconds, rate=100, kind=Floor)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--memory-events", type=int, default=100_000)
    parser.add_argument("--only", default="abcd")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    kept: dict[str, object] = {"machine": {"cores": os.cpu_count(), "python": sys.version.split()[0], "rounds": args.rounds}}
    base: list[dict] = []
    runs: dict[str, list[dict]] = {}
    for number in range(args.rounds):  # each round measures everything once, so that drift of the machine touches all alike
        console.print(f"round {number + 1} of {args.rounds}")
        base.append(bare(args.seconds))
        for name, measure in measures(args).items():
            found = measure()
            rate = found.get("delivered_per_s", found.get("per_s"))
            found["ratio_to_bare"] = round(rate / base[-1]["per_s"], 3)
            runs.setdefault(name, []).append(found)
    yard = medians(base)
    kept["bare"] = yard
    show(
        "bare handler",
        [
            ("requests/s", yard["per_s"]),
            ("p50 / p99 ms", f"{yard['p50_ms']} / {yard['p99_ms']}"),
            ("load tool CPU s", yard["cpu_s"]),
        ],
    )
    for name, found in runs.items():
        middle = kept[name] = medians(found)
        show(name, list(middle.items()))
    if "c" in args.only:
        kept["memory_mb"] = memory(args.memory_events)
        show("RSS in MB by events", list(kept["memory_mb"].items()))
    if "d" in args.only:
        from bench.stages import stages

        kept["stages_us"] = stages()
        show("microseconds of CPU per event, by stage", list(kept["stages_us"].items()))
    if args.json:
        args.json.write_text(json.dumps(kept, indent=2))


if __name__ == "__main__":
    main()
