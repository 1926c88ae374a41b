"""Ingest and the SQLite log, nothing behind them: `python -m bench.ingest_alone PORT FOLDER`."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import uvloop
from aiohttp import web
from pydantic import SecretStr

from bench.shape import SECRET
from eventlog.connect import connect
from ingest.book import Book
from ingest.metrics import IngestMetrics
from ingest.server import ingest_runner
from ingest.service import Clock, Ingest
from runtime.collecting import settle
from schemas.config import SourceConfig, SourceSpec


class OneSource:
    """The shelf: one GitHub source."""

    async def version(self) -> int:
        return 1

    async def sources(self) -> list[SourceConfig]:
        spec = SourceSpec(provider="github", secrets=(SecretStr(SECRET),))
        return [SourceConfig("default", "github-bench", "src_bench", spec)]


async def main() -> None:
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    log = connect(f"sqlite:///{folder}/log.db")
    await log.start()
    clock = Clock(lambda: time.time_ns() // 1_000_000, time.monotonic)
    ingest = Ingest(log, Book(OneSource()), clock=clock, metrics=IngestMetrics(), public_url=f"http://127.0.0.1:{port}")
    await ingest.open()
    runner = ingest_runner(ingest)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    settle()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
