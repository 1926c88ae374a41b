"""Agents that answer badly, slowly, never, or with a time to come back at: each gets what the table says, and no other waits for it.

Rows T-14 and T-15, here on SQLite; on Kafka and PostgreSQL as a part of `test_brokers`.  What the dispatcher decided is read off its own lines and rows, so that
a busy machine changes nothing: `due_ms` less `ended_ms` is the wait that was asked for, whenever the call then comes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.chaos.bad_agent import WAYS
from tests.chaos.checker import check
from tests.chaos.driver import Driver
from tests.chaos.scene import PATIENCE_S
from tests.chaos.system import AGENT_SECRET, ROOT, System
from tests.servers.ports import free_port

FIRST_S, MAX_S = 0.4, 4.0  # of the schedule that all of them have
TIMEOUT_S = 1.5
KEYS, EVENTS = 3, 2
HELD_AGE, AGE = "6s", "120s"
EACH = f"""\
    pattern: {{{{type: [{{{{prefix: github.}}}}], data: {{{{key: [{{{{numeric: ["<", {KEYS}]}}}}], seq: [{{{{numeric: ["<", {EVENTS}]}}}}]}}}}}}}}
    context: {{{{view: "{{{{ring: data.ring, key: data.key, seq: data.seq}}}}"}}}}
    retry: {{{{max_attempts: 4, max_age: {{age}}, first_delay: {FIRST_S}s, max_delay: {MAX_S}s}}}}
"""
# way: the first attempt's outcome, the invocation's end, and the wait between the first two attempts, least and most
SCHEDULE = (0.0, FIRST_S)
EXPECTED: dict[str, tuple[str, str, tuple[float, float] | None]] = {
    "after-two": ("throttled", "done", (2.0, 2.4)),
    "after-date": ("throttled", "done", (1.0, 3.6)),  # a date has whole seconds, and the call takes some
    "after-zero": ("throttled", "done", (0.0, 0.0)),
    "after-negative": ("throttled", "done", SCHEDULE),
    "after-huge": ("throttled", "done", (MAX_S, MAX_S)),
    "after-garbage": ("throttled", "done", SCHEDULE),
    "hangs": ("unknown", "done", SCHEDULE),
    "drips": ("unknown", "done", SCHEDULE),
    "endless": ("delivered", "done", None),
    "resets": ("unknown", "done", SCHEDULE),
    "resets-late": ("unknown", "done", SCHEDULE),
    "closes": ("unknown", "done", SCHEDULE),
    "no-http": ("unknown", "done", SCHEDULE),
    "refuses": ("rejected", "buried", None),
    "fails": ("failed", "done", SCHEDULE),
    "plain-port": ("misconfigured", "buried", None),  # https to a port that speaks plain HTTP: held, probed, buried by age
    "silent-tls": ("timeout", "buried", SCHEDULE),
}


def configuration(port: int, tls_port: int) -> str:
    urls = {way: f"http://127.0.0.1:{port}/{way}" for way in WAYS}
    urls |= {"plain-port": f"https://127.0.0.1:{port}/plain-port", "silent-tls": f"https://127.0.0.1:{tls_port}/silent-tls"}
    agents = "".join(
        f'  {way}: {{url: "{url}", secret: "{AGENT_SECRET}", allow_private: true, timeout_s: {TIMEOUT_S}}}\n'
        for way, url in urls.items()
    )
    ages = dict.fromkeys(urls, AGE) | {"plain-port": HELD_AGE}  # nothing else may end by its age on a slow machine
    subscriptions = "".join(f"  to-{way}:\n    agent: {way}\n{EACH.format(age=ages[way])}" for way in urls)
    return f"version: 1\nagents:\n{agents}subscriptions:\n{subscriptions}"


@asynccontextmanager
async def bad_agents(system: System) -> AsyncIterator[None]:
    """They are there, and Nightbell knows them."""
    port, tls_port = free_port(), free_port()
    command = [sys.executable, "-m", "tests.chaos.bad_agent", "--port", str(port), "--tls-port", str(tls_port)]
    process = subprocess.Popen([*command, "--ledger", str(system.folder / "bad.jsonl")], cwd=ROOT)
    try:
        path = system.folder / "bad.yaml"
        path.write_text(configuration(port, tls_port))
        await asyncio.to_thread(system.command, "apply", "-f", str(path))
        yield
    finally:
        process.kill()
        process.wait()


async def expect(system: System, lines: list[dict]) -> None:
    """What became of each, by the store's rows and the dispatchers' lines."""
    rows = await asyncio.to_thread(
        system.rows,
        "select i.id, i.subscription, i.lane, i.seq, i.state, i.reason, a.number, a.outcome, a.started_ms, a.ended_ms, a.answer "
        "from invocations i left join attempts a on a.invocation_seq = i.seq order by i.seq, a.number",
    )
    due = {(line["invocation"], line["number"]): line["due_ms"] for line in lines}
    wrong = []
    for way, (outcome, end, wait) in EXPECTED.items():
        mine = [row for row in rows if row["subscription"] == f"to-{way}"]
        first = [row for row in mine if row["number"] == 1]
        if len({row["id"] for row in mine}) != KEYS * EVENTS:
            wrong.append(f"{way}: {len(mine)} invocations and attempts")
        if len(first) < (KEYS if way == "plain-port" else KEYS * EVENTS):  # behind a held one, age may bury the next untried
            wrong.append(f"{way}: {len(first)} were tried")
        wrong += [f"{way}: {row['state']} ({row['reason']})" for row in mine if row["state"] != end]
        for row in first:
            if (row["outcome"], row["state"]) != (outcome, end):
                wrong.append(f"{way}: {row['outcome']}, then {row['state']} ({row['reason']})")
            waited_s = (due[row["id"], 1] - row["ended_ms"]) / 1000
            if wait is not None and not wait[0] - 0.01 <= waited_s <= wait[1] + 0.01:
                wrong.append(f"{way}: waits {waited_s} s")
            if len(row["answer"] or b"") > 4096:
                wrong.append(f"{way}: kept {len(row['answer'])} bytes of the answer")
        wrong += [f"{way}: {fault}" for fault in out_of_order(mine)]
    assert not wrong, "\n".join(wrong)


def out_of_order(rows: list[dict]) -> list[str]:
    """Within a lane nothing starts before what was there first has ended."""
    ended: dict[str, tuple[int, int]] = {}
    found = []
    for row in rows:
        if row["number"] is None:
            continue
        seq, end_ms = ended.get(row["lane"], (row["seq"], 0))
        if row["seq"] != seq and row["started_ms"] < end_ms:
            found.append(f"{row['id']} started before the one before it ended")
        ended[row["lane"]] = (row["seq"], row["ended_ms"])
    return found


def attempts_told(*logs: Path) -> list[dict]:
    lines = [line for log in logs for line in log.read_text().splitlines() if '"event":"attempt"' in line]
    return [json.loads(line) for line in lines]


@pytest.mark.timeout(600)
async def test_on_sqlite_each_bad_answer_has_its_consequence(tmp_path: Path):
    system = System(tmp_path)
    system.start_agent("--delay-ms", "3")
    system.start()
    try:
        await system.ready()
        async with bad_agents(system):
            driver = Driver(system.ingest_url, tmp_path, keys=6, pause_s=0.1)
            load = asyncio.create_task(driver.run())
            await asyncio.sleep(5)
            driver.stopping.set()
            await load
            assert await system.settled(PATIENCE_S)
            await expect(system, attempts_told(tmp_path / "nightbell.log"))
    finally:
        system.close()
    verdict = check(
        sent=system.ledger("sent"), acked=system.ledger("acked"), agent=system.ledger("agent"), store=system.dump(),
        always=["all", "twin"],
    )  # fmt: skip
    assert verdict.faults == []
