"""Nightbell with a seam in its SQL drivers: `python -m tests.chaos.seam serve …` fails statements and commits as a file says.

The file (NBTEST_SEAM) holds one JSON object, which is read anew when it changes; where it is absent, nothing fails:

    {"what": "full", "at": "commit", "on": ["log", "store"], "rate": 1.0, "nth": 0, "delay_s": 0.2}

`nth` counts from the change of the file, in each process; else `rate` is the chance.  At commits: `full`, `eio`, `eio_after` (it is
written, and said not to be), `late`, `kill_before`, `kill_after`; on PostgreSQL also `lost` (the connection, before it is sent) and
`doubt` (the connection, before the answer comes).  At statements, on PostgreSQL: `lost`, `late`, `deadlock`.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path

LAUNCHER = [sys.executable, "-m", "tests.chaos.seam"]
_FILE = Path(os.environ.get("NBTEST_SEAM", ""))


class Seam:
    """What the file says now."""

    def __init__(self) -> None:
        self.changed, self.fault, self.seen = 0, {}, Counter()
        self.chance = random.Random(os.getpid())

    def fate(self, on: str, at: str) -> str:
        """What happens to this statement or commit; empty: nothing."""
        try:
            changed = os.stat(_FILE).st_mtime_ns
        except OSError:
            return ""
        if changed != self.changed:
            try:
                self.fault = json.loads(_FILE.read_text())
            except (OSError, ValueError):
                return ""
            self.changed = changed
            self.seen.clear()
        fault = self.fault
        if fault.get("at", "commit") != at or on not in fault.get("on", ["log", "store"]):
            return ""
        self.seen[on] += 1
        is_hit = self.seen[on] == fault["nth"] if fault.get("nth") else self.chance.random() < fault.get("rate", 1.0)
        return fault["what"] if is_hit else ""

    @property
    def delay_s(self) -> float:
        return self.fault.get("delay_s", 0.2)


SEAM = Seam()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(10)  # the signal is on its way


def sqlite_error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(f"injected {name}")
    error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, name), name
    return error


class SeamedConnection(sqlite3.Connection):
    """Fails COMMITs as SQLite would."""

    on = "store"

    def execute(self, sql, *parameters):
        what = SEAM.fate(self.on, "commit") if sql == "COMMIT" else ""
        if what == "full":
            raise sqlite_error("SQLITE_FULL")
        if what == "eio":
            raise sqlite_error("SQLITE_IOERR_FSYNC")
        if what == "late":
            time.sleep(SEAM.delay_s)
        if what == "kill_before":
            die()
        done = super().execute(sql, *parameters)
        if what == "kill_after":
            die()
        if what == "eio_after":
            raise sqlite_error("SQLITE_IOERR_FSYNC")
        return done


class SeamedLogConnection(SeamedConnection):
    on = "log"


def seam_sqlite() -> None:
    from eventlog.sql import SqlLog
    from store.sqlite import SqliteEngine

    options = {"isolation_level": None, "check_same_thread": False}
    SqliteEngine.__init__.__kwdefaults__["connect"] = lambda path: sqlite3.connect(
        path, **options, cached_statements=512, uri=True, factory=SeamedConnection
    )
    SqlLog.__init__.__kwdefaults__["open_connection"] = lambda path: sqlite3.connect(
        path, **options, timeout=5.0, factory=SeamedLogConnection
    )


def seam_postgres() -> None:
    import asyncpg

    from store import postgres, postgres_driver

    commit, steps = postgres._commit, postgres_driver._STEPS

    async def seamed_commit(transaction):
        what = SEAM.fate("store", "commit")
        if what == "kill_before":
            die()
        if what == "late":
            await asyncio.sleep(SEAM.delay_s)
        if what == "lost":
            transaction._connection.terminate()
        await commit(transaction)
        if what == "kill_after":
            die()
        if what == "doubt":
            transaction._connection.terminate()
            raise postgres._MaybeCommitted from ConnectionResetError("injected")

    def seamed(step):
        async def taken(connection, asked):
            what = SEAM.fate("store", "statement")
            if what == "deadlock":
                raise asyncpg.DeadlockDetectedError("injected")
            if what == "late":
                await asyncio.sleep(SEAM.delay_s)
            if what == "lost":
                connection.terminate()
            return await step(connection, asked)

        return taken

    postgres._commit = seamed_commit
    for kind, step in list(steps.items()):
        steps[kind] = seamed(step)


def set_fault(file: Path, **fault: object) -> None:
    """Let this fault be, from now on, in every process that reads `file`."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(fault))
    part.replace(file)


def clear_fault(file: Path) -> None:
    file.unlink(missing_ok=True)


if __name__ == "__main__":
    from runtime.main import main

    seam_sqlite()
    seam_postgres()
    main()
