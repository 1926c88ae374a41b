"""One database of all simulated processes: the real scripts on SQLite in memory, one at a time, by a virtual clock.

A schedule runs inside one transaction that is rolled back at its end, so the next one begins with the same bytes.  Triggers watch
what no process may do: they see each statement as it takes effect, whoever sent it.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from schemas.config import AgentSpec, SourceSpec, SubscriptionSpec
from schemas.invocation import END_STATES
from store.apply import Applier
from store.connect import connect
from store.decide import Wish
from store.engine import Notify, Script
from store.redress import Redress
from store.sqlite_driver import ours, run
from store.tables import API
from store.vault import Vault
from tests.fakes.clock import START_MS, VirtualClock

T = TypeVar("T")
VAULT = Vault([bytes(range(32))])
SOURCE_SECRET = "simulated-secret"
AGENTS = ("calm", "slow", "flaky", "lying")
CAP = 3
TIMEOUT_S = 0.5
RETRY = {"first_delay": 0.1, "max_delay": 1, "max_attempts": 1000}
VIEW = {"view": "{ring: data.ring, key: data.key, seq: data.seq}"}
EVERYTHING = {"type": [{"prefix": "github."}]}
_ENDS = ", ".join(f"'{state.value}'" for state in sorted(END_STATES))
_WATCH = f"""
CREATE TABLE faults (text TEXT);
CREATE TRIGGER zombie_opened AFTER INSERT ON attempts
WHEN NEW.epoch <> (SELECT s.epoch FROM shards s JOIN invocations i ON i.shard = s.id WHERE i.seq = NEW.invocation_seq)
BEGIN INSERT INTO faults VALUES ('fencing: a zombie opened attempt ' || NEW.number || ' of ' || NEW.invocation_seq); END;
CREATE TRIGGER zombie_settled AFTER UPDATE OF outcome ON attempts
WHEN NEW.outcome NOT IN ('', 'unknown') AND OLD.outcome = ''
AND NEW.epoch <> (SELECT s.epoch FROM shards s JOIN invocations i ON i.shard = s.id WHERE i.seq = NEW.invocation_seq)
BEGIN INSERT INTO faults VALUES ('fencing: a zombie settled attempt ' || NEW.number || ' of ' || NEW.invocation_seq); END;
CREATE TRIGGER rose AFTER UPDATE OF state ON invocations WHEN OLD.state IN ({_ENDS}) AND NEW.state <> OLD.state
BEGIN INSERT INTO faults VALUES ('state machine: ' || OLD.id || ' went from its end ' || OLD.state || ' to ' || NEW.state); END;
CREATE TRIGGER two_run AFTER UPDATE OF state ON invocations
WHEN NEW.state = 'running' AND (SELECT count(*) FROM invocations WHERE lane = NEW.lane AND ended_ms = 0 AND state = 'running') > 1
BEGIN INSERT INTO faults VALUES ('I3 order: two run in lane ' || NEW.lane); END;
CREATE TRIGGER back AFTER UPDATE OF position ON cursors WHEN NEW.position < OLD.position
BEGIN INSERT INTO faults VALUES ('I1 durability: a cursor went back'); END;
"""
_UNIQUE = (", CONSTRAINT uq_events_id UNIQUE (id)", ", CONSTRAINT uq_invocations_id UNIQUE (id)")


def subscription(agent: str, *, order: str = "strict", **more: Any) -> SubscriptionSpec:
    """A subscription that takes everything, unless it is told otherwise."""
    words = {"agent": agent, "pattern": EVERYTHING, "order": order, "retry": RETRY, "context": VIEW} | more
    return SubscriptionSpec.model_validate(words)


SUBSCRIPTIONS = {
    "calm-strict": subscription("calm"),
    "slow-strict": subscription("slow"),
    "flaky-strict": subscription("flaky"),
    "lying-strict": subscription("lying"),
    "calm-latest": subscription("calm", order="latest"),
    "flaky-none": subscription("flaky", order="none"),
    "slow-delayed": subscription("slow", delay=0.4),
    "on-off": subscription("calm"),
    "changing": subscription("lying"),
}
UNSTEADY = ("on-off", "changing")


@cache
def template(*, unique: bool) -> sqlite3.Connection:
    """A migrated store with the agents, the source and every subscription; without `unique` ids may repeat."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        with mock.patch.object(os, "urandom", random.Random(0).randbytes):  # the uids of what is applied, and so all ids
            asyncio.run(_configured(path))
        made = sqlite3.connect(":memory:", isolation_level=None, cached_statements=1024)
        with sqlite3.connect(path) as found:
            _copied(found, made, without=() if unique else _UNIQUE)
        found.close()
    made.executescript(_WATCH)
    return made


async def _configured(path: Path) -> None:
    store = connect(f"sqlite:///{path}")
    await store.start(may_migrate=True)
    agents = {
        name: AgentSpec(url=f"http://agents.test/{name}", allow_private=True, max_concurrency=CAP, timeout_s=TIMEOUT_S)
        for name in AGENTS
    }
    sources = {"sim": SourceSpec(provider="github", secrets=(SOURCE_SECRET,))}
    wish = Wish("default", API, sources=sources, agents=agents, subscriptions=SUBSCRIPTIONS)
    await Applier(store.engine, VAULT, Redress(store.engine)).apply(wish, actor="sim", act="apply", now_ms=START_MS)
    await store.aclose()


def _copied(found: sqlite3.Connection, made: sqlite3.Connection, *, without: tuple[str, ...]) -> None:
    for kind, name, sql in found.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY type DESC"
    ):
        words = " ".join(sql.split())
        for clause in without:
            words = words.replace(clause, "")
        made.execute(words)
        if kind == "table":
            rows = found.execute(f'SELECT * FROM "{name}"').fetchall()
            if rows:
                made.executemany(f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(rows[0]))})', rows)


class Database:
    """The database of one schedule."""

    def __init__(self, clock: VirtualClock, *, unique: bool = True) -> None:
        self.connection = template(unique=unique)
        self.clock = clock
        self.is_down = False
        self.heard: list[Callable[[str, str], None]] = []
        self.connection.create_function("julianday", 1, self._julian_day)
        self.connection.execute("BEGIN")

    def close(self) -> None:
        """Undo the schedule."""
        self.connection.execute("ROLLBACK")

    def _julian_day(self, _: str) -> float:
        # The database's own clock: leases live by it, and nobody steps it here.
        return 2_440_587.5 + (START_MS / 1000 + self.clock.elapsed_s) / 86_400

    def commit(self, script: Callable[[], Script[T]], *, runs_twice: bool = False) -> T:
        """Run a script in a transaction of its own, first once for nothing where a deadlock undid it."""
        for is_last in (False, True) if runs_twice else (True,):
            notes: list[Notify] = []
            self.connection.execute("SAVEPOINT script")
            try:
                result = run(self.connection, script, notes)
            except Exception as exc:
                self.connection.execute("ROLLBACK TO script")
                self.connection.execute("RELEASE script")
                raise ours(exc) from exc
            if not is_last:
                self.connection.execute("ROLLBACK TO script")
            self.connection.execute("RELEASE script")
        for note in notes:
            for hear in self.heard:
                hear(note.channel, note.payload)
        return result

    def look(self, script: Callable[[], Script[T]]) -> T:
        """Run a script that only reads."""
        return run(self.connection, script, [])

    def rows(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        """For the judge: plain SQL."""
        cursor = self.connection.execute(sql, params)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    # --- an Engine for the operator, who is never in trouble ---

    dialect = "sqlite"

    async def write(self, script: Callable[[], Script[T]], *, is_patient: bool = False) -> T:
        """At once."""
        return self.commit(script)

    async def read(self, script: Callable[[], Script[T]], *, needs_snapshot: bool = True) -> T:
        """At once."""
        del needs_snapshot  # it is one in any case
        return self.look(script)
