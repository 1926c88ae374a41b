"""The demo on Apache Kafka and PostgreSQL: both started here from wheels, and two processes of each role.

    python -m examples.demo_cluster [--deliveries 400]

The same webhooks and the same account as `examples.demo`; half-way a router is killed (-9) and a dispatcher stopped.  Exit 0 only if
everything adds up.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from rich.console import Console

from examples import report
from examples.account import Ledgers, Posted, discrepancies
from examples.demo import (
    AGENTS,
    NIGHTBELL,
    ROOT,
    Api,
    Processes,
    Unaccounted,
    bars,
    environment,
    gather_ledgers,
    post_all,
    refusals_of,
    settle,
    show_trace,
)
from examples.mix import Chain, chains
from tests.servers.kafka import Cluster
from tests.servers.postgres import running_postgres

ROLES = ("ingest", "router", "dispatcher", "api")
EACH = 2
LEASE_S = 5
START_S = 120.0  # eight processes share the machine's cores


@dataclass(frozen=True)
class Servers:
    """What the roles share."""

    log_url: str
    store_url: str


@contextmanager
def servers(console: Console) -> Iterator[Servers]:
    """A real broker and a real database, for as long as the block lasts."""
    began = time.monotonic()
    with running_postgres() as postgres, Cluster() as kafka:
        console.print(f"Apache Kafka 4.1 and PostgreSQL are up ({time.monotonic() - began:.1f} s).")
        yield Servers(kafka.url, postgres.dsn())


def environment_of(found: Servers, folder: Path, agents_url: str, agent_secrets: dict[str, str]) -> dict[str, str]:
    """What every role and the command line are told."""
    return environment(folder, agents_url, agent_secrets) | {
        "NIGHTBELL_LOG_URL": found.log_url,
        "NIGHTBELL_STORE_URL": found.store_url,
        "NIGHTBELL_MASTER_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        "NIGHTBELL_KAFKA_SESSION_TIMEOUT_S": "6",
        "NIGHTBELL_SHARD_LEASE_S": str(LEASE_S),
    }


def nightbell(env: dict[str, str], *words: str) -> str:
    """What a command prints.  Raises `Unaccounted` where it fails."""
    done = subprocess.run([NIGHTBELL, *words], check=False, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise Unaccounted(f"`nightbell {' '.join(words)}` ended with {done.returncode}: {done.stderr}")
    return done.stdout


async def started(processes: Processes, folder: Path, env: dict[str, str]) -> dict[str, list[str]]:
    """Start the roles, two of each; where each one listens."""
    names = [(role, f"{role}-{number}") for role in ROLES for number in range(EACH)]
    for role, name in names:
        processes.start(name, NIGHTBELL, "serve", role, env=env | {"NIGHTBELL_DATA_DIR": str(folder / name)})
    urls: dict[str, list[str]] = {}
    for role, name in names:
        face = "ingest" if role == "ingest" else "api"
        urls.setdefault(role, []).append(await processes.told(name, rf"{face} listens on (http://\S+)", within_s=START_S))
    return urls


async def post_to_all(
    session: aiohttp.ClientSession, urls: list[str], mix: list[Chain], advance: Callable[[], None]
) -> list[Posted]:
    """Each chain to one of the ingest processes, as a balancer would spread them."""
    shares = [post_all(session, url, mix[number :: len(urls)], advance) for number, url in enumerate(urls)]
    return [posted for share in await asyncio.gather(*shares) for posted in share]


async def run(folder: Path, count: int, console: Console, processes: Processes, found: Servers) -> list[str]:
    """The whole demo; what does not add up."""
    agent_secrets = {name: "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode() for name in AGENTS}
    agent_words = [word for name, secret in agent_secrets.items() for word in ("--agent", f"{name}={secret}")]
    ledger = folder / "agents.jsonl"
    processes.start(
        "agents", sys.executable, "-m", "examples.sample_agent", "--port", "0", *agent_words, "--ledger", str(ledger),
        "--fail-agent", "billing", "--fail-first", "2", env=dict(os.environ),
    )  # fmt: skip
    agents_url = await processes.told("agents", r"listen on (http://\S+)")
    env = environment_of(found, folder, agents_url, agent_secrets)
    nightbell(env, "migrate")
    key = json.loads(nightbell(env, "keys", "create", "demo", "--local", "--role", "admin", "--json"))["key"]
    urls = await started(processes, folder, env)
    env |= {"NIGHTBELL_API_URL": urls["api"][0], "NIGHTBELL_API_KEY": key}
    nightbell(env, "apply", "-f", str(ROOT / "examples/nightbell.yaml"))
    mix = chains(count)
    total = sum(map(len, mix))
    console.print(f"{EACH} each of {', '.join(ROLES)} run; six vendors send {total} webhooks, two processes end half-way.\n")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        api = Api(session, urls["api"][1], key)
        await known(session, urls["ingest"])
        with bars(console) as progress:
            posting = progress.add_task("vendors post", total=total)
            first, second = mix[: len(mix) // 2], mix[len(mix) // 2 :]
            posted = await post_to_all(session, urls["ingest"], first, lambda: progress.advance(posting))
            processes.end("router-1", signal.SIGKILL)
            if processes.end("dispatcher-0", signal.SIGTERM):
                raise Unaccounted("a dispatcher did not stop gracefully")
            posted += await post_to_all(session, urls["ingest"], second, lambda: progress.advance(posting))
            ledgers = Ledgers(posted)
            waiting = progress.add_task("agents are woken", total=None)
            await settle(api, ledgers.expected_events, lambda done: progress.update(waiting, completed=done))
        ledgers = await gather_ledgers(api, posted, ledger)
        refused = {p.post.delivery.source for p in posted if p.status in {400, 401}}
        refusals = await refusals_of(api, refused)
    report.show(console, ledgers, refusals)
    show_trace(console, ledgers, env)
    return discrepancies(ledgers)


async def known(session: aiohttp.ClientSession, urls: list[str]) -> None:
    """Until every ingest process has read the sources that were applied a moment ago."""
    deadline = time.monotonic() + 10
    for url in urls:
        while True:
            async with session.post(f"{url}/in/github-acme", data=b"{}") as answer:
                if answer.status == 401:  # noqa: PLR2004 - it knows the source, and refuses what is not signed
                    break
            if time.monotonic() > deadline:
                raise Unaccounted(f"{url} does not know its sources")
            await asyncio.sleep(0.1)


def main() -> int:
    """Run it; 0 where everything adds up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=400, help="about how many webhooks are posted")
    count = parser.parse_args().deliveries
    console = Console(width=None if sys.stdout.isatty() else 140)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nightbell-demo-") as name, servers(console) as found:
        processes = Processes(Path(name))
        try:
            wrong = asyncio.run(run(Path(name), count, console, processes, found))
        except Unaccounted as exc:
            wrong = [str(exc)]
        finally:
            processes.stop()
    for line in wrong:
        console.print(f"DISCREPANCY: {line}", style="bold red", markup=False)
    if not wrong:
        console.print(f"Every accepted event is accounted for ({time.monotonic() - began:.1f} s).", style="bold green")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
