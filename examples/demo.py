"""Nightbell at work: six vendors ring it, three agents are woken, and every accepted webhook is accounted for.

    python -m examples.demo [--deliveries 400]

Starts the embedded system in a temporary folder and one process that serves three agents, posts a realistic mix of signed webhooks,
waits until all of it has ended, and prints what became of it.  Exit 0 only if everything adds up.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples import report
from examples.account import Ledgers, Posted, discrepancies, is_success
from examples.mix import Chain, Post, chains
from examples.senders import SECRETS

ROOT = Path(__file__).parents[1]
NIGHTBELL = str(Path(sys.executable).with_name("nightbell"))
AGENTS = ("triage", "billing", "sales")
AT_ONCE = 16
START_S, SETTLE_S, STOP_S = 30.0, 45.0, 20.0
SOURCE_VARIABLES = {
    "GITHUB_WEBHOOK_SECRET": "github-acme", "GITLAB_TOKEN": "gitlab-acme", "STRIPE_SECRET": "stripe-acme",
    "SLACK_SIGNING_SECRET": "slack-acme", "SHOPIFY_SECRET": "shopify-acme", "CRM_SECRET": "crm",
}  # fmt: skip


class Unaccounted(Exception):
    """Something did not work out; the message says what."""


class Processes:
    """Nightbell and the agents, each with its output in a file, ended with the block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *words: str, env: dict[str, str]) -> None:
        """Start a command."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(words, cwd=ROOT, env=env, stdout=log, stderr=log)

    async def told(self, name: str, pattern: str, *, within_s: float = START_S) -> str:
        """What the process prints first that `pattern` finds."""
        deadline = time.monotonic() + within_s
        while True:
            text = (self.folder / f"{name}.log").read_text(errors="replace")
            if found := re.search(pattern, text):
                return found[1]
            if time.monotonic() > deadline or any(process.poll() is not None for process in self._running.values()):
                raise Unaccounted(f"{name} did not start:\n{text[-3000:]}")
            await asyncio.sleep(0.05)

    def end(self, name: str, how: signal.Signals) -> int:
        """End one, and give its exit code."""
        process = self._running.pop(name)
        process.send_signal(how)
        return process.wait(timeout=STOP_S)

    def stop(self) -> None:
        """Ask all to stop; end those that do not."""
        for process in self._running.values():
            process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            try:
                process.wait(timeout=STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Api:
    """Nightbell's API, asked with the key of the data folder."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self._session, self._url = session, url
        self._headers = {"authorization": f"Bearer {key}"}

    async def bytes_of(self, path: str) -> bytes:
        async with self._session.get(f"{self._url}{path}", headers=self._headers) as answer:
            body = await answer.read()
            if answer.status != HTTPStatus.OK:
                raise Unaccounted(f"GET {path} answered {answer.status}: {body[:300]!r}")
            return body

    async def get(self, path: str) -> Any:
        return json.loads(await self.bytes_of(path))

    async def all_of(self, path: str) -> list[dict[str, Any]]:
        """Every item of a list, page by page."""
        items: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = await self.get(f"{path}?limit=500" + (f"&cursor={cursor}" if cursor else ""))
            items += page["items"]
            cursor = page["next_cursor"]
            if not cursor:
                return items


def environment(folder: Path, agents_url: str, agent_secrets: dict[str, str]) -> dict[str, str]:
    """The variables of the server and of the command line; free ports, nothing of the caller's own Nightbell."""
    own = {k: v for k, v in os.environ.items() if not k.startswith("NIGHTBELL_")}
    own |= {variable: SECRETS[source] for variable, source in SOURCE_VARIABLES.items()}
    own |= {f"{name.upper()}_SECRET": secret for name, secret in agent_secrets.items()}
    return own | {
        "AGENTS_URL": agents_url,
        "NIGHTBELL_DATA_DIR": str(folder / "data"),
        "NIGHTBELL_INGEST_BIND": "127.0.0.1:0",
        "NIGHTBELL_API_BIND": "127.0.0.1:0",
        "NIGHTBELL_LOG_FORMAT": "json",
    }


async def post_all(session: aiohttp.ClientSession, url: str, mix: list[Chain], advance: Callable[[], None]) -> list[Posted]:
    """Post every chain, some at once, the posts of a chain one after the other."""
    left = iter(mix)
    posted: list[Posted] = []

    async def sender() -> None:
        for chain in left:
            for post in chain:
                posted.append(await _posted(session, url, post))
                advance()

    await asyncio.gather(*(sender() for _ in range(AT_ONCE)))
    return posted


async def _posted(session: aiohttp.ClientSession, url: str, post: Post) -> Posted:
    delivery = post.delivery
    headers = {"content-type": "application/json", **delivery.headers}
    began = time.perf_counter()
    async with session.post(f"{url}/in/{delivery.source}", data=delivery.body, headers=headers) as answer:
        body = await answer.read()
        took_s = time.perf_counter() - began
        code = "" if is_success(answer.status) else json.loads(body)["code"]
        return Posted(post, answer.status, code, took_s)


async def settle(api: Api, expected: int, advance: Callable[[int], None]) -> None:
    """Wait until the API says that every event is kept and every invocation has ended."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        counts = await api.get("/v1/counts")
        states = counts["invocations"]
        open_ones = sum(states.get(state, 0) for state in ("queued", "running", "accepted", "waiting"))
        advance(sum(states.values()) - open_ones)
        if counts["events"] >= expected and not open_ones:
            return
        if time.monotonic() > deadline:
            raise Unaccounted(
                f"after {SETTLE_S:.0f} s {counts['events']} of {expected} events are kept, and so stand the invocations: {states}"
            )
        await asyncio.sleep(0.1)


async def gather_ledgers(api: Api, posted: list[Posted], agents_ledger: Path) -> Ledgers:
    """All that is compared."""
    events = await api.all_of("/v1/events")
    ledgers = Ledgers(posted, events, await api.all_of("/v1/invocations"))
    for event in events:
        body = await api.bytes_of(f"/v1/events/{event['id']}/body")
        ledgers.bodies[event["id"]] = hashlib.sha256(body).hexdigest()
    ledgers.calls = lines_of(agents_ledger)
    return ledgers


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


async def refusals_of(api: Api, sources: set[str]) -> dict[str, list[dict[str, Any]]]:
    """What the operator is shown of each source's refusals; they are written a moment after the answer."""
    deadline = time.monotonic() + 5
    while True:
        found = {source: (await api.get(f"/v1/sources/{source}"))["refusals"] for source in sorted(sources)}
        if all(found.values()):
            return found
        if time.monotonic() > deadline:
            raise Unaccounted(f"`sources show` tells of no refusal: {sorted(s for s, shown in found.items() if not shown)}")
        await asyncio.sleep(0.1)


@contextlib.contextmanager
def bars(console: Console) -> Iterator[Progress]:
    """Progress, where somebody looks."""
    columns = TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield progress


async def run(folder: Path, count: int, console: Console, processes: Processes) -> list[str]:
    """The whole demo; what does not add up."""
    agent_secrets = {name: "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode() for name in AGENTS}
    agent_words = [word for name, secret in agent_secrets.items() for word in ("--agent", f"{name}={secret}")]
    ledger = folder / "agents.jsonl"
    processes.start(
        "agents", sys.executable, "-m", "examples.sample_agent", "--port", "0", *agent_words, "--ledger", str(ledger),
        "--fail-agent", "billing", "--fail-first", "2", env=dict(os.environ),
    )  # fmt: skip
    agents_url = await processes.told("agents", r"listen on (http://\S+)")
    env = environment(folder, agents_url, agent_secrets)
    processes.start("nightbell", NIGHTBELL, "serve", "--apply", str(ROOT / "examples/nightbell.yaml"), env=env)
    ingest_url = await processes.told("nightbell", r"ingest listens on (http://\S+)")
    api_url = await processes.told("nightbell", r"api listens on (http://\S+)")
    key = (folder / "data/admin.key").read_text().strip()
    mix = chains(count)
    total = sum(map(len, mix))
    console.print(f"Nightbell listens on {ingest_url}, its API on {api_url}; six vendors send {total} webhooks to it.\n")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        api = Api(session, api_url, key)
        with bars(console) as progress:
            posting = progress.add_task("vendors post", total=total)
            posted = await post_all(session, ingest_url, mix, lambda: progress.advance(posting))
            ledgers = Ledgers(posted)
            waiting = progress.add_task("agents are woken", total=None)
            await settle(api, ledgers.expected_events, lambda done: progress.update(waiting, completed=done))
        ledgers = await gather_ledgers(api, posted, ledger)
        refused = {p.post.delivery.source for p in posted if p.status in {400, 401}}
        refusals = await refusals_of(api, refused)
    report.show(console, ledgers, refusals)
    show_trace(console, ledgers, env)
    return discrepancies(ledgers)


def show_trace(console: Console, ledgers: Ledgers, env: dict[str, str]) -> None:
    """The story of one event, as the command line tells it: of one whose agent failed twice."""
    retried = [call["event"] for call in ledgers.calls if call.get("attempt", 0) > 1]
    event = (retried or [ledgers.events[0]["id"]])[0]
    console.rule(f"nightbell trace {event}", align="left")
    done = subprocess.run(
        [NIGHTBELL, "trace", event], check=False, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30
    )
    if done.returncode:
        raise Unaccounted(f"`nightbell trace {event}` ended with {done.returncode}: {done.stderr}")
    console.print(done.stdout, markup=False, highlight=False)


def main() -> int:
    """Run it; 0 where everything adds up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=400, help="about how many webhooks are posted")
    count = parser.parse_args().deliveries
    console = Console(width=None if sys.stdout.isatty() else 140)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nightbell-demo-") as name:
        processes = Processes(Path(name))
        try:
            wrong = asyncio.run(run(Path(name), count, console, processes))
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
