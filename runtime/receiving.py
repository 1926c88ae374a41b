"""The ingest role of a process: its book, its listener, its topics."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from egress.client import Client
from eventlog.config import LogConfig
from eventlog.log import EventLog
from eventlog.sql import SqlLog
from ingest.book import Book
from ingest.keyshelf import KeyShelf
from ingest.limits import Limits
from ingest.metrics import IngestMetrics, SpoolMetrics
from ingest.ports import Log, Refusal
from ingest.server import ingest_runner
from ingest.service import Clock, Ingest
from ingest.spool import Spool, SpoolBounds, policy_of
from runtime.clock import now_ms
from runtime.house import House
from runtime.listening import Listener
from runtime.settings import Settings
from runtime.supervisor import Part
from runtime.topics import Topics
from schemas.config import SourceConfig
from schemas.errors import AgentUnreachable, BadSetting, LogUnavailable
from schemas.topics import MAX_RECORD_BYTES
from store.refusals import Refusals
from store.sources import Sources

_FETCH_S = 2.0
_FETCH_BYTES = 64 * 1024
_OK = 200
_SPOOL_COMMIT_S = 0.5  # of the sender's patience, left for the spool once the log had its chance
_SLACK_BYTES = 64 * 1024  # what the spool adds to a record's headers
SPOOL_FILE = "spool.db"


class LateStore:
    """The store as ingest sees it: what it asks for opens the store where it is not open yet; it may be out of reach."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._sources = Sources(house.store.engine, house.vault)
        self._refusals = Refusals(house.store.engine)

    async def version(self) -> int:
        """A number that changes with every change of a source.  Raises `StoreUnavailable`."""
        await self._house.ensure_store()
        return await self._sources.version()

    async def sources(self) -> list[SourceConfig]:
        """All sources of all teams."""
        await self._house.ensure_store()
        return await self._sources.sources()

    async def keep(self, refusals: Sequence[Refusal]) -> None:
        """Keep these refusals."""
        await self._house.ensure_store()
        await self._refusals.keep(refusals)

    async def keep_secret(self, team: str, source: str, secret: str) -> bool:
        """Keep what the vendor sent in a handshake; False where the source has a secret already."""
        await self._house.ensure_store()
        return await self._sources.keep_secret(team, source, secret, now_ms=now_ms())


class Fetching:
    """Fetches keys and confirmations from vendors, through the guard."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def __call__(self, url: str, posted: bytes = b"") -> bytes:
        """The answer's body; JSON is posted.  Raises `AddressRefused`, `AgentUnreachable`, `AgentTimedOut`."""
        answer = await self._client.request(
            "POST" if posted else "GET",
            url,
            headers={"Content-Type": "application/json"} if posted else None,
            body=posted or None,
            timeout_s=_FETCH_S,
            max_answer_bytes=_FETCH_BYTES,
        )
        if answer.status != _OK or answer.truncated:
            raise AgentUnreachable(f"the vendor's host answered {answer.status}", kind="status", sent=True)
        return answer.body


class Receiving:
    """Everything of the ingest role."""

    def __init__(self, house: House) -> None:
        """Events go to the log; where that is on another machine, through a spool before it."""
        settings = house.settings
        self._house = house
        self._store = LateStore(house)
        fetch = Fetching(house.client)
        self._keys = KeyShelf(fetch)
        self._fetch = fetch
        self._book = Book(self._store, seal=house.vault, path=settings.data_dir / "book.sealed", fetched=self._keys.at_hand)
        self._listener = Listener("ingest", settings.ingest_bind)
        self._topics = Topics(house.log, self._families, prefix=settings.topic_prefix, partitions=settings.topic_partitions)
        self._spool = made_spool(settings, house.log, self._book) if settings.has_spool else None
        self._log: Log = self._spool or house.log
        self._ingest: Ingest | None = None
        self.url = ""

    async def _families(self) -> set[str]:
        return self._book.families()

    async def open(self) -> None:
        """Read the book, make the topics, listen.  Raises `BadSetting`."""
        settings = self._house.settings
        if self._spool is not None:
            await self._spool.open()
        self.url = await self._listener.open(lambda bound: ingest_runner(self._made(settings, bound)))
        assert self._ingest is not None
        await self._ingest.open()
        with suppress(LogUnavailable):  # then `topics.run` makes them when the log is back
            await self._topics.keep()

    def _made(self, settings: Settings, bound: str) -> Ingest:
        self._ingest = Ingest(
            self._log,
            self._book,
            clock=Clock(now_ms, time.monotonic),
            metrics=IngestMetrics(),
            limits=Limits(
                max_body_bytes=settings.max_body_bytes,
                max_inflight_requests=settings.max_requests_in_flight,
                max_inflight_bytes=settings.max_bytes_in_flight,
                body_timeout_s=settings.body_timeout_s,
                append_timeout_s=settings.append_timeout_s,
            ),
            keys=self._keys,
            refusals=self._store,
            secrets=self._store,
            fetch=self._fetch,
            topic_prefix=settings.topic_prefix,
            public_url=str(settings.ingest_url or bound),
        )
        return self._ingest

    def notice(self) -> None:
        """Sources changed: look now."""
        self._book.notice()
        self._topics.notice()

    async def is_ready(self) -> bool:
        """Whether requests can be told right from wrong."""
        return self._book.is_ready

    async def can_take(self) -> bool:
        """Whether an event would become durable now: in the log, or in the spool."""
        return (self._spool is not None and self._spool.has_room) or await self._house.log.healthy()

    def parts(self) -> list[Part]:
        """What runs, in the order in which it stops: the listener first."""
        assert self._ingest is not None
        parts = [
            Part("ingest listener", None, self._listener.aclose),
            Part("ingest", self._ingest.run),
            Part("ingest topics", self._topics.run),
        ]
        if self._spool is not None:
            parts += [
                Part("log opening", self._house.keep_opening_log),
                Part("spool", self._spool.run),
                Part("spool file", None, self._spool.aclose),
            ]
        return parts


def made_spool(settings: Settings, log: EventLog, book: Book) -> Spool:
    """The spool of this process, not yet opened.  Raises `BadSetting`."""
    try:
        settings.spool_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        raise BadSetting(f"cannot make the spool's folder {settings.spool_dir}: {exc.strerror}") from exc
    config = LogConfig(partitions=1, max_record_bytes=MAX_RECORD_BYTES + _SLACK_BYTES, tail_bytes=0)
    return Spool(
        log,
        SqlLog(settings.spool_dir / SPOOL_FILE, config),
        policy=policy_of(book),
        bounds=SpoolBounds(
            budget_s=max(settings.append_timeout_s - _SPOOL_COMMIT_S, settings.append_timeout_s / 2),
            max_bytes=settings.max_spool_bytes,
            max_age_h=settings.max_spool_age_h,
        ),
        now_ms=now_ms,
        metrics=SpoolMetrics(),
    )
