"""A whole Nightbell as users run it: processes, ports, a configuration file, an agent; started, killed and looked into from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.ports import free_port

ROOT = Path(__file__).parents[2]
NIGHTBELL = str(Path(sys.executable).with_name("nightbell"))
AGENT_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SOURCE_SECRET = "chaos-secret"

CONFIG = """\
version: 1
sources:
  github-chaos: {{provider: github, secrets: ["{source_secret}"]}}
agents:
  sink: {{url: "http://127.0.0.1:{agent_port}/sink", secret: "{agent_secret}", allow_private: true, max_concurrency: 32, timeout_s: {timeout_s}}}
subscriptions:
  all: &all
    agent: sink
    pattern: {{type: [{{prefix: github.}}]}}
    context: {{view: "{{ring: data.ring, key: data.key, seq: data.seq}}"}}
    retry: {{max_attempts: 50, first_delay: 200ms, max_delay: 1s}}
  twin: *all
"""
EXTRA = """\
version: 1
subscriptions:
  extra-{n}:
    agent: sink
    pattern: {{type: [{{prefix: github.}}]}}
    context: {{view: "{{ring: data.ring, key: data.key, seq: data.seq}}"}}
    retry: {{max_attempts: 50, first_delay: 200ms, max_delay: 1s}}
"""

PROGRESS = (
    "select (select count(*) from events) as events, "
    "(select count(*) from invocations where state in ('queued','running','accepted','waiting')) as open"
)


@dataclass
class System:
    """One embedded installation in `folder`; `launcher` is the command, so that broken builds can be run in its place."""

    folder: Path
    launcher: list[str] = field(default_factory=lambda: [NIGHTBELL])
    env: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 5  # what agents are given to answer
    roles: tuple[str, ...] = ("all",)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ingest_port, self.api_port, self.agent_port = free_port(), free_port(), free_port()
        self.config = self.folder / "nightbell.yaml"
        self.config.write_text(self.filled(CONFIG))
        self._read_to = self._calls = 0
        self.process: subprocess.Popen | None = None
        self.agent: subprocess.Popen | None = None
        self.starts = 0

    def filled(self, text: str) -> str:
        """A configuration of ours with its secrets, ports and times."""
        return text.format(
            source_secret=SOURCE_SECRET, agent_secret=AGENT_SECRET, agent_port=self.agent_reached_at, timeout_s=self.timeout_s
        )

    @property
    def agent_reached_at(self) -> int:
        """The port under which Nightbell finds the agent."""
        return self.agent_port

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "NIGHTBELL_DATA_DIR": str(self.folder / "data"),
            "NIGHTBELL_INGEST_BIND": f"127.0.0.1:{self.ingest_port}",
            "NIGHTBELL_API_BIND": f"127.0.0.1:{self.api_port}",
            "NIGHTBELL_LOG_FORMAT": "json",
        }
        return {k: v for k, v in os.environ.items() if not k.startswith("NIGHTBELL_")} | own | self.env

    @property
    def ingest_url(self) -> str:
        return f"http://127.0.0.1:{self.ingest_port}/in/github-chaos"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def start_agent(self, *extra: str) -> None:
        self.agent = subprocess.Popen(
            [
                sys.executable, "-m", "examples.sample_agent", "--port", str(self.agent_port), "--agent", f"sink={AGENT_SECRET}",
                "--ledger", str(self.folder / "agent.jsonl"), *extra,
            ],
            cwd=ROOT, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self) -> None:
        command = [*self.launcher, "serve", *self.roles]
        if self.starts == 0:
            command += ["--apply", str(self.config)]
        self.starts += 1
        log = (self.folder / "nightbell.log").open("ab")
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        log.close()

    def kill(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def close(self) -> None:
        for process in (self.process, self.agent):
            if process and process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                process.wait()

    def log_tail(self, lines: int = 40) -> str:
        path = self.folder / "nightbell.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.api_url}/readyz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    async def ready(self, within_s: float = 120) -> None:
        """Until it says so itself.  The time is a bound for a start that hangs: a busy machine takes what it takes."""
        deadline = asyncio.get_running_loop().time() + within_s
        while not await asyncio.to_thread(self.is_ready):
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"nightbell ended with {self.process.returncode}:\n{self.log_tail()}")
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"not ready within {within_s} s:\n{self.log_tail()}")
            await asyncio.sleep(0.02)

    def command(self, *words: str, check: bool = True) -> subprocess.CompletedProcess:
        env = self.environment | {"NIGHTBELL_API_URL": self.api_url}
        done = subprocess.run([NIGHTBELL, *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
        if check and done.returncode:
            raise AssertionError(f"nightbell {' '.join(words)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def rows(self, sql: str) -> list[dict]:
        path = Path(self.environment["NIGHTBELL_DATA_DIR"]) / "store.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql)]

    def dump(self) -> dict:
        """The store's truth, read by SQL of the test's own."""
        events = [
            {"deliveryid": json.loads(row.pop("envelope")).get("deliveryid"), **row}
            for row in self.rows("select id, envelope, position, flags from events")
        ]
        return {
            "events": events,
            "invocations": self.rows("select id, event_id, subscription, subscription_uid, state, reason from invocations"),
            "attempts": self.rows(
                "select i.id as invocation_id, a.number, a.outcome from attempts a join invocations i on i.seq = a.invocation_seq"
            ),
        }

    async def settled(self, patience_s: float = 60) -> bool:
        """Wait until nothing is open and nothing new came for a while; whether that came before all stood still."""
        quiet, before, since = 0, None, time.monotonic()
        while quiet < 4:
            await asyncio.sleep(0.2)
            found = self.rows(PROGRESS)[0] | {"calls": self.calls()}
            quiet = quiet + 1 if not found["open"] and found == before else 0
            if found != before:
                before, since = found, time.monotonic()
            elif found["open"] and time.monotonic() - since > patience_s:
                return False
        return True

    def calls(self) -> int:
        """How many calls the agents' ledger has, by reading only what is new in it."""
        path = self.folder / "agent.jsonl"
        if path.exists():
            with path.open("rb") as file:
                file.seek(self._read_to)
                new = file.read()
            self._read_to += len(new)
            self._calls += new.count(b"\n")
        return self._calls

    def ledger(self, name: str) -> list[dict]:
        path = self.folder / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
