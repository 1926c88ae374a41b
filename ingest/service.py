"""The edge's own work: find the source, prove the request, make its events durable, and only then say yes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

from ingest.book import Book
from ingest.inbound import Reply, Request
from ingest.keyshelf import KeyShelf
from ingest.limits import Flight, Limits
from ingest.metrics import IngestMetrics, outcome_of
from ingest.normalize import Arrived
from ingest.ports import Fetch, Log, RefusalShelf, SecretShelf
from ingest.prepared import PreparedSource
from ingest.receive import receive
from ingest.refusals import Refusals
from ingest.steps import KeyNeeded
from schemas.errors import AgentFailed, LogUnavailable, Misconfigured, NightbellError, NotReady, SecretsUnavailable
from schemas.event import to_headers
from schemas.topics import DEFAULT_PREFIX, Draft, events_topic

_MOST_FETCHES = 3


@dataclass(frozen=True, slots=True)
class Clock:
    """`now_ms` is the wall clock, `steady_s` one that only rises."""

    now_ms: Callable[[], int]
    steady_s: Callable[[], float]


class Ingest:
    """Accepts requests.  Needs the log alone: the book and the keys are at hand, refusals are handed over later."""

    def __init__(
        self,
        log: Log,
        book: Book,
        *,
        clock: Clock,
        metrics: IngestMetrics,
        limits: Limits | None = None,
        keys: KeyShelf | None = None,
        refusals: RefusalShelf | None = None,
        secrets: SecretShelf | None = None,
        fetch: Fetch | None = None,
        topic_prefix: str = DEFAULT_PREFIX,
        public_url: str,
    ) -> None:
        """`public_url` is how the world reaches this edge; with the request's path it is the URL that vendors sign.

        `keys` must be the shelf whose `at_hand` the book was made with.
        """
        self.log = log
        self.book = book
        self.clock = clock
        self.metrics = metrics
        self.limits = limits or Limits()
        self.flight = Flight(self.limits)
        metrics.inflight.set_function(lambda: self.flight.requests)
        self.public_url = public_url.rstrip("/")
        self.refusals = Refusals(refusals, metrics)
        self._keys = keys or KeyShelf(fetch)
        self._secrets = secrets
        self._fetch = fetch
        self._prefix = topic_prefix
        self._topics: dict[str, str] = {}

    @property
    def is_ready(self) -> bool:
        """Whether requests can be told right from wrong."""
        return self.book.is_ready

    async def open(self) -> None:
        """Read the book."""
        await self.book.open()
        self.metrics.sources.set(len(self.book.sources()))

    async def run(self) -> None:
        """Keep the book current, hand refusals over, forget old keys; until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.book.run())
            group.create_task(self.refusals.run())
            group.create_task(self._tidy())

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(30)
            self._keys.forget_old(self.clock.now_ms())
            self.metrics.sources.set(len(self.book.sources()))

    def admit(self, team: str, name: str) -> PreparedSource:
        """The source, before its request's body is read.  Raises `NotReady`, `NotFound`, `Throttled`."""
        source = self.book.source(team, name)
        bucket = self.book.bucket(source, self.clock.steady_s())
        if bucket is not None:
            bucket.take(self.clock.steady_s())
        return source

    async def accept(self, request: Request, source: PreparedSource) -> Reply:
        """The answer; a 2xx only when every event of the request is durable.  Raises `NightbellError`, and counts nothing."""
        now_ms = self.clock.now_ms()
        got = await self._received(request, source, now_ms)
        if isinstance(got, Reply):
            await self._follow(got, source)
            self.metrics.count(source.provider.name, source.name, "handshake")
            return got
        if got:
            await self._append(got, source)
            self.metrics.appended(source.provider.name, len(got))
            self.metrics.brought(source.name, now_ms)
        self.metrics.count(source.provider.name, source.name, "accepted")
        return source.provider.taken

    async def _received(self, request: Request, source: PreparedSource, now_ms: int) -> Reply | list[Arrived]:
        entropy = os.urandom(24).hex()
        traceparent = f"00-{entropy[:32]}-{entropy[32:]}-01"
        for _ in range(_MOST_FETCHES):
            try:
                return receive(request, source, now_ms, traceparent=traceparent)
            except KeyNeeded as need:
                await self._keys.bring(need.url, now_ms, name=need.name, posted=need.posted)
        raise SecretsUnavailable

    async def _append(self, got: list[Arrived], source: PreparedSource) -> None:
        family = source.provider.family
        topic = self._topics.get(family)
        if topic is None:
            topic = self._topics[family] = events_topic(family, self._prefix)
        drafts = [Draft(topic, event.partitionkey, event.body, to_headers(event), (event, data)) for event, data in got]
        try:
            async with asyncio.timeout(self.limits.append_timeout_s):
                await self.log.append(drafts)
        except TimeoutError as exc:
            # It may be there or not: the vendor's retry will tell, the event's id is the same.
            raise LogUnavailable from exc

    async def _follow(self, reply: Reply, source: PreparedSource) -> None:
        """Do what a handshake asks for beyond its answer."""
        if reply.kept_secret:
            if self._secrets is None:
                raise NotReady("this process cannot keep the secret that the vendor sent")
            if not await self._secrets.keep_secret(source.team, source.name, reply.kept_secret):
                raise SecretsUnavailable("this source has a secret already")
            self.book.notice()
        if reply.fetch_url:
            if self._fetch is None:
                raise NotReady("this process cannot confirm the subscription")
            try:
                await self._fetch(reply.fetch_url)
            except (AgentFailed, Misconfigured) as exc:
                raise NotReady("the vendor's confirmation address did not answer") from exc

    def refuse(self, error: NightbellError, request: Request, source: PreparedSource | None, *, team: str, name: str) -> None:
        """Count a request that was not taken, and keep why."""
        provider = source.provider.name if source else ""
        self.metrics.count(provider, source.name if source else "", outcome_of(error))
        self.refusals.note(error, request, source, team=team, name=name, now_ms=self.clock.now_ms())
