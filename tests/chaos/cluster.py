"""An installation on Apache Kafka and PostgreSQL, roles apart, several of each: started, killed, frozen and looked into from outside."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from tests.chaos.system import AGENT_SECRET, CONFIG, PROGRESS, ROOT, System
from tests.servers.ports import free_port

ROLES = ("ingest", "router", "dispatcher", "api")
LEASE_S = 3.0
PARTITIONS = 4
WITNESS = """
create schema witness;
create table witness.zombies (at timestamptz default clock_timestamp(), what text, owner text, epoch bigint, epoch_now bigint,
                              invocation text, number bigint, outcome text);
create function witness.look() returns trigger language plpgsql as $$
declare now_ record;
begin
  select i.id, s.epoch into now_ from public.invocations i join public.shards s on s.id = i.shard where i.seq = new.invocation_seq;
  if tg_op = 'INSERT' and new.epoch is distinct from now_.epoch then
    insert into witness.zombies (what, owner, epoch, epoch_now, invocation, number)
      values ('opened', new.owner, new.epoch, now_.epoch, now_.id, new.number);
  elsif tg_op = 'UPDATE' and new.outcome <> 'unknown' and new.epoch is distinct from now_.epoch then
    insert into witness.zombies (what, owner, epoch, epoch_now, invocation, number, outcome)
      values ('settled', new.owner, new.epoch, now_.epoch, now_.id, new.number, new.outcome);
  elsif tg_op = 'UPDATE' and old.ended_ms > 0 then
    insert into witness.zombies (what, owner, epoch, epoch_now, invocation, number, outcome)
      values ('rewritten', new.owner, new.epoch, now_.epoch, now_.id, new.number, old.outcome || ' to ' || new.outcome);
  end if;
  return new;
end $$;
create trigger witness before insert or update on public.attempts for each row execute function witness.look();
"""
MATE = """\
version: 1
agents:
  mate: {{url: "http://127.0.0.1:{agent_port}/mate", secret: "{agent_secret}", allow_private: true, max_concurrency: 32, timeout_s: {timeout_s}}}
subscriptions:
  twin:
    agent: mate
    pattern: {{type: [{{prefix: github.}}]}}
    context: {{view: "{{ring: data.ring, key: data.key, seq: data.seq}}"}}
    retry: {{max_attempts: 50, first_delay: 200ms, max_delay: 1s}}
"""


class Role:
    """One process of one role, with a port and a data folder that it keeps over restarts."""

    def __init__(self, cluster: ClusterSystem, role: str, number: int) -> None:
        self.cluster, self.role, self.number = cluster, role, number
        self.name = f"{role}-{number}"
        self.folder = cluster.folder / self.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, self.ingest_port = free_port(), free_port()
        self.process: subprocess.Popen | None = None
        self.log = self.folder / "nightbell.log"

    @property
    def environment(self) -> dict[str, str]:
        return (
            self.cluster.environment
            | {
                "NIGHTBELL_DATA_DIR": str(self.folder / "data"),
                "NIGHTBELL_INGEST_BIND": f"127.0.0.1:{self.ingest_port}",
                "NIGHTBELL_API_BIND": f"127.0.0.1:{self.port}",
            }
            | self.cluster.ways.get(self.role, {})
        )

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.cluster.launcher, "serve", self.role],
                cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=40)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def get(self, path: str, timeout_s: float = 3) -> str:
        """What this process's own listener answers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout_s) as answer:
            return answer.read().decode()

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = [line for line in self.get("/metrics").splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def is_ready(self) -> bool:
        try:
            self.get("/readyz")
        except OSError:
            return False
        return True

    def tail(self, lines: int = 12) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return f"--- {self.name}\n" + "\n".join(text.splitlines()[-lines:])


@dataclass
class ClusterSystem(System):
    """`log_url` and `store_url` name what runs already; `counts` says how many of each role there are (`all`: of all in one)."""

    log_url: str = ""
    store_url: str = ""
    ways: dict[str, dict[str, str]] = field(default_factory=dict)  # what a role is told of its own: another way to the servers
    agent_door: Callable[[int], int] = lambda port: port  # gives the port under which dispatchers reach the agent's
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 2))

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.agent_port = free_port()
        self.config = self.folder / "nightbell.yaml"
        self._agent_reached_at = self.agent_door(self.agent_port)
        self.config.write_text(self.filled(CONFIG))
        self.mate = self.folder / "mate.yaml"  # a second agent, so that both dispatchers have something to do
        self.mate.write_text(self.filled(MATE))
        self._read_to = self._calls = 0
        self.process = self.agent = None
        self.starts = 0
        self.master_key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.prefix = f"nb{secrets.token_hex(4)}"
        self.key = ""
        self.members = {role: [Role(self, role, number) for number in range(count)] for role, count in self.counts.items()}

    @property
    def agent_reached_at(self) -> int:
        return self._agent_reached_at

    @property
    def roles_running(self) -> list[Role]:
        return [member for members in self.members.values() for member in members]

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "NIGHTBELL_DATA_DIR": str(self.folder / "operator"),
            "NIGHTBELL_LOG_URL": self.log_url,
            "NIGHTBELL_STORE_URL": self.store_url,
            "NIGHTBELL_MASTER_KEY": self.master_key,
            "NIGHTBELL_TOPIC_PREFIX": self.prefix,
            "NIGHTBELL_TOPIC_PARTITIONS": str(PARTITIONS),
            "NIGHTBELL_KAFKA_SESSION_TIMEOUT_S": "6",
            "NIGHTBELL_SHARD_LEASE_S": str(LEASE_S),
            "NIGHTBELL_LOG_FORMAT": "json",
        }
        if self.members_of("api"):
            own["NIGHTBELL_API_URL"] = self.api_url
        if self.key:
            own["NIGHTBELL_API_KEY"] = self.key
        return {k: v for k, v in os.environ.items() if not k.startswith("NIGHTBELL_")} | own | self.env

    def members_of(self, role: str) -> list[Role]:
        members: dict[str, list[Role]] = getattr(self, "members", {})
        return members.get(role) or members.get("all", [])

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.members_of('api')[0].port}"

    @property
    def ingest_urls(self) -> list[str]:
        return [f"http://127.0.0.1:{member.ingest_port}/in/github-chaos" for member in self.members_of("ingest")]

    def install(self) -> None:
        """The schema, and an operator's key."""
        self.command("migrate")
        self.watch_for_zombies()
        made = self.command("keys", "create", "operator", "--local", "--role", "admin", "--json")
        self.key = json.loads(made.stdout)["key"]

    def start_agent(self, *extra: str) -> None:
        super().start_agent("--agent", f"mate={AGENT_SECRET}", *extra)

    def start(self) -> None:
        for member in self.roles_running:
            member.start()

    def watch_for_zombies(self) -> None:
        """Let the database itself note who records an attempt for a shard that another process owns by then."""
        self.run_sql(WITNESS)

    async def settled(self, patience_s: float = 60) -> bool:
        """Until every spool is empty, nothing is open, and nothing new came for a while.

        It may take as long as it likes, as long as it goes on: standing still for `patience_s` is what gives False.
        """
        quiet, before, since = 0, None, time.monotonic()
        while quiet < 3:
            await asyncio.sleep(0.4)
            found = await asyncio.to_thread(self._standing)
            is_still = not found["spooled"] and not found["open"] and found == before
            quiet = quiet + 1 if is_still else 0
            if found != before:
                before, since = found, time.monotonic()
            elif not is_still and time.monotonic() - since > patience_s:
                print(f"for {patience_s} s nothing has moved: {found}\n{self.log_tail()}")
                return False
        return True

    def _standing(self) -> dict[str, float]:
        [row] = self.rows(PROGRESS)
        spooled = sum(each.metric("nightbell_spool_bytes") for each in self.members_of("ingest"))
        return row | {"spooled": spooled, "calls": self.calls()}

    def dump(self) -> dict:
        [watched] = self.rows("select to_regclass('witness.zombies')::text as name")
        zombies = self.rows("select * from witness.zombies order by at") if watched["name"] else []
        return super().dump() | {"zombies": zombies}

    def crashes(self) -> list[str]:
        """Bugs that ended a worker, in any process."""
        lines = [line for member in self.roles_running for line in member.log.read_text(errors="replace").splitlines()]
        return [line[:2000] for line in lines if '"worker_crashed"' in line or '"part_stop_failed"' in line]

    def apply(self) -> None:
        self.command("apply", "-f", str(self.config))
        self.command("apply", "-f", str(self.mate))

    def close(self) -> None:
        for member in self.roles_running:
            member.close()
        if self.agent and self.agent.poll() is None:
            self.agent.kill()
            self.agent.wait()

    def log_tail(self, lines: int = 12) -> str:
        return "\n".join(member.tail(lines) for member in self.roles_running)

    async def ready(self, within_s: float = 30, *members: Role) -> None:
        deadline = asyncio.get_running_loop().time() + within_s
        for member in members or self.roles_running:
            while not await asyncio.to_thread(member.is_ready):
                if member.process is not None and member.process.poll() is not None:
                    raise AssertionError(f"{member.name} ended with {member.process.returncode}:\n{member.tail(40)}")
                if asyncio.get_running_loop().time() > deadline:
                    raise AssertionError(f"{member.name} is not ready within {within_s} s:\n{member.tail(40)}")
                await asyncio.sleep(0.05)

    def rows(self, sql: str) -> list[dict]:
        return [dict(row) for row in self._asked(lambda connection: connection.fetch(sql))]

    def run_sql(self, sql: str) -> None:
        self._asked(lambda connection: connection.execute(sql))

    def _asked(self, ask: Callable[[asyncpg.Connection], Awaitable[Any]]) -> Any:
        async def answered() -> Any:
            connection = await asyncpg.connect(self.store_url, timeout=10)
            try:
                return await ask(connection)
            finally:
                await connection.close()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, answered()).result()

    def backlog(self, taken: int) -> int:
        """How many calls are still to come of so many webhooks, each of which two subscriptions want; a little too few."""
        return max(0, 2 * taken - self.calls())


def launcher_of(how: str) -> list[str]:
    """The command of a build that is broken on purpose."""
    return [sys.executable, "-m", "tests.chaos.broken", how]
