"""An edge with everything around it faked: a log in memory, a shelf of sources, a clock that stands still."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from ingest.book import Book
from ingest.keyshelf import KeyShelf
from ingest.limits import Limits
from ingest.metrics import IngestMetrics
from ingest.ports import Refusal
from ingest.server import ingest_runner
from ingest.service import Clock, Ingest
from schemas.config import SourceConfig, SourceSpec
from schemas.errors import StoreUnavailable
from schemas.topics import Draft, Place

NOW_MS = 1_750_000_000_000


class FakeLog:
    def __init__(self) -> None:
        self.drafts: list[Draft] = []
        self.error: Exception | None = None

    async def append(self, drafts: Sequence[Draft]) -> list[tuple[Place, int]]:
        if self.error is not None:
            raise self.error
        start = len(self.drafts)
        self.drafts.extend(drafts)
        return [(Place(draft.topic, 0), start + index) for index, draft in enumerate(drafts)]


class FakeShelf:
    def __init__(self, configs: Sequence[SourceConfig] = ()) -> None:
        self.configs = list(configs)
        self.number = 1
        self.is_down = False

    async def version(self) -> int:
        if self.is_down:
            raise StoreUnavailable
        return self.number

    async def sources(self) -> list[SourceConfig]:
        if self.is_down:
            raise StoreUnavailable
        return list(self.configs)


class FakeRefusals:
    def __init__(self) -> None:
        self.kept: list[Refusal] = []

    async def keep(self, refusals: Sequence[Refusal]) -> None:
        self.kept.extend(refusals)


class FakeSecrets:
    def __init__(self) -> None:
        self.kept: list[tuple[str, str, str]] = []

    async def keep_secret(self, team: str, source: str, secret: str) -> bool:
        self.kept.append((team, source, secret))
        return True


class XorSeal:
    """No cipher: enough to see that what lies on disk is not what was in memory."""

    def seal(self, plain: bytes, *, context: str) -> bytes:
        return bytes(byte ^ 0x5A for byte in plain)

    def unseal(self, sealed: bytes, *, context: str) -> bytes:
        return self.seal(sealed, context=context)


def config(name: str, provider: str, *, team: str = "default", **fields: object) -> SourceConfig:
    return SourceConfig(team, name, f"uid-{name}", SourceSpec.model_validate({"provider": provider, **fields}))


@dataclass
class World:
    ingest: Ingest
    log: FakeLog
    shelf: FakeShelf
    refusals: FakeRefusals
    secrets: FakeSecrets
    registry: CollectorRegistry
    url: str = ""
    port: int = 0
    times: dict[str, float] = field(default_factory=dict)
    session: aiohttp.ClientSession | None = None

    def client(self) -> aiohttp.ClientSession:
        assert self.session is not None
        return self.session

    def count(self, outcome: str, provider: str = "github", source: str = "gh") -> float:
        labels = {"provider": provider, "source": source, "outcome": outcome}
        return self.registry.get_sample_value("nightbell_ingest_requests_total", labels) or 0.0


def world(*configs: SourceConfig, limits: Limits | None = None, fetch=None) -> World:
    log, shelf, refusals, secrets, registry = FakeLog(), FakeShelf(configs), FakeRefusals(), FakeSecrets(), CollectorRegistry()
    times = {"now_ms": NOW_MS, "steady_s": 0.0}
    clock = Clock(now_ms=lambda: int(times["now_ms"]), steady_s=lambda: times["steady_s"])
    keys = KeyShelf(fetch)
    ingest = Ingest(
        log,
        Book(shelf, fetched=keys.at_hand),
        clock=clock,
        metrics=IngestMetrics(registry),
        limits=limits,
        keys=keys,
        refusals=refusals,
        secrets=secrets,
        fetch=fetch,
        public_url="https://hooks.example.com",
    )
    return World(ingest, log, shelf, refusals, secrets, registry, times=times)


@asynccontextmanager
async def serving(*configs: SourceConfig, limits: Limits | None = None, fetch=None, is_open: bool = True):
    """A world whose listener answers on loopback."""
    made = world(*configs, limits=limits, fetch=fetch)
    if is_open:
        await made.ingest.open()
    runner = ingest_runner(made.ingest)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = site._server.sockets[0].getsockname()[1]
    made.url = f"http://127.0.0.1:{made.port}"
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            made.session = session
            yield made
    finally:
        await runner.cleanup()
