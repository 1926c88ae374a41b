"""The ways of one simulated process to the world: each step may wait, find nobody, be the process's last, or reach it frozen."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from eventlog.log import Batch, Start
from eventlog.memory import MemoryLog
from schemas.errors import AgentTimedOut, LogUnavailable, StoreUnavailable
from schemas.topics import Draft, Place
from store.engine import Script
from store.listeners import Listeners
from tests.simulation.database import Database

if TYPE_CHECKING:
    from tests.simulation.agents import Agents

T = TypeVar("T")


@dataclass
class Line:
    """A process's life.  While frozen nothing of it moves; once dead nothing of it reaches anybody.

    `dies_at` is the number of the step that it does not survive: before a statement, after a commit, between two bytes.
    """

    name: str
    chance: random.Random
    note: Callable[..., None]
    dies: Callable[[Line], None]
    dies_at: int = 0
    steps: int = 0
    dead: bool = False
    thawed: asyncio.Event = field(default_factory=asyncio.Event)
    trouble: float = 0.0  # how often a store or a log fails though it is there

    def __post_init__(self) -> None:
        self.thawed.set()

    async def step(self, what: str) -> None:
        """One step towards the outside."""
        self.steps += 1
        self.note(self.name, what)
        if self.steps == self.dies_at:
            self.dies(self)
        self._live()
        if self.chance.random() < 0.4:
            await asyncio.sleep(self.chance.random() * 0.008)
        else:
            await asyncio.sleep(0)
        if not self.thawed.is_set():
            await self.thawed.wait()
        self._live()

    def _live(self) -> None:
        if self.dead:
            raise asyncio.CancelledError


class EngineLine:
    """The store as one process reaches it."""

    dialect = "sqlite"

    def __init__(self, line: Line, database: Database) -> None:
        self._line, self._database = line, database
        self._listeners = Listeners()
        self.broken = ""

    async def write(self, script: Callable[[], Script[T]], *, is_patient: bool = False) -> T:
        """As the contract says; now and then the script runs twice, or the answer to the commit is lost."""
        line = self._line
        await line.step("write")
        self._reach()
        result = self._database.commit(script, runs_twice=line.chance.random() < line.trouble)
        await line.step("written")
        if line.chance.random() < line.trouble:
            raise StoreUnavailable("the connection was lost while it was being committed")
        return result

    async def read(self, script: Callable[[], Script[T]], *, needs_snapshot: bool = True) -> T:
        """As the contract says."""
        del needs_snapshot  # it is one in any case
        await self._line.step("read")
        self._reach()
        return self._database.look(script)

    def listen(self, channel: str, wake: Callable[[str], None]) -> Callable[[], None]:
        """As the contract says."""
        return self._listeners.add(channel, wake)

    def hear(self, channel: str, payload: str) -> None:
        """A notification on its way to this process; a listener whose connection was just lost does not hear it."""
        if self._line.chance.random() >= self._line.trouble:
            asyncio.get_running_loop().call_later(self._line.chance.random() * 0.005, self._wake, channel, payload)

    def _wake(self, channel: str, payload: str) -> None:
        if not self._line.dead and self._line.thawed.is_set():
            self._listeners.wake(channel, payload)

    def _reach(self) -> None:
        if self._database.is_down:
            raise StoreUnavailable("the database is away")


class LogLine:
    """The log as one process reaches it: a broker that outlives all of them."""

    def __init__(self, line: Line, log: MemoryLog, *, is_wire: bool) -> None:
        self._line, self._log, self._is_wire = line, log, is_wire
        self.is_down: Callable[[], bool] = lambda: False
        self.log_id = "sim"
        self.readers: list[ReaderLine] = []

    async def append(self, drafts: Sequence[Draft]) -> list[tuple[Place, int]]:
        """As the contract says; an append that fails may be there all the same."""
        line = self._line
        await line.step("append")
        if self.is_down():
            raise LogUnavailable("the log is away")
        if self._is_wire:
            drafts = [replace(draft, note=None) for draft in drafts]
        places = await self._log.append(drafts)
        await line.step("appended")
        if line.chance.random() < line.trouble:
            raise LogUnavailable("nobody knows whether it was appended")
        return places

    def reader(self, *, group: str, topics: Sequence[str], start: Start) -> ReaderLine:
        """As the contract says."""
        found = ReaderLine(self._line, self._log, group, topics, start)
        self.readers.append(found)
        return found


class ReaderLine:
    """A reader of one process; what it is told of its ownership may be old news."""

    def __init__(self, line: Line, log: MemoryLog, group: str, topics: Sequence[str], start: Start) -> None:
        self._line = line
        self._reader = log.reader(group=group, topics=topics, start=start)

    async def next(self) -> Batch:
        """As the contract says."""
        await self._line.step("next")
        batch = await self._reader.next()
        await self._line.step("got")
        if self._line.chance.random() < 0.3:
            batch = replace(batch, is_owned=lambda: True)
        return batch

    def progressed(self, place: Place, after: int) -> None:
        """As the contract says."""

    def seek(self, place: Place, position: int) -> None:
        """As the contract says."""
        self._reader.seek(place, position)

    def watch(self, topics: Sequence[str]) -> None:
        """As the contract says."""
        self._reader.watch(topics)

    async def aclose(self) -> None:
        """As the contract says; the dead tell nobody."""
        if not self._line.dead:
            await self._reader.aclose()

    async def given_up(self) -> None:
        """The broker has noticed that its process is gone."""
        await self._reader.aclose()


class CallerLine:
    """The way out to agents: a call is cut off where its process dies, and goes on unheard while that is frozen."""

    def __init__(self, line: Line, agents: Agents) -> None:
        self._line, self._agents = line, agents
        self.running: dict[str, int] = {}

    async def request(
        self, method: str, url: str, *, headers: Any = None, body: bytes = b"", timeout_s: float = 30.0, **_: Any
    ) -> Any:
        """As `dispatcher.ports.Caller` says."""
        await self._line.step(f"{method} {url[-4:]}")
        agent = url.rpartition("/")[2]
        self.running[agent] = self.running.get(agent, 0) + 1
        try:
            async with asyncio.timeout(timeout_s):
                found = await self._agents.called(agent, dict(headers), body, by=self._line.name, at_once=self.running[agent])
        except TimeoutError as exc:
            raise AgentTimedOut("no answer", kind="timeout", sent=True) from exc
        finally:
            self.running[agent] -= 1
        await self._line.step("answered")
        return found
