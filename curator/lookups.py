"""Lookups, the part that asks: in parallel, cached, each answer fetched once, a failing source left in peace."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from curator.enrich import NoUrl, found_in, headers_with, secrets_in, url_for
from curator.ports import Credentials, Fetch, Found
from schemas.config import LookupSpec
from schemas.errors import NightbellError

MAX_CACHED = 2048
BREAK_AFTER = 5
BREAK_MS = 30_000

Key = tuple[str, str, str]  # team, name with its spec, URL


@dataclass(slots=True)
class _Break:
    """Failures of one source in a row, and until when it is left in peace."""

    failures: int = 0
    until_ms: int = 0


class Lookups:
    """Fetches what contexts ask for.  One object a process: its cache is why fifty agents of one event ask once."""

    def __init__(self, fetch: Fetch, credentials: Credentials, clock_ms: Callable[[], int]) -> None:
        """`clock_ms` is wall time; ages are told from it."""
        self._fetch = fetch
        self._credentials = credentials
        self._clock_ms = clock_ms
        self._cache: OrderedDict[Key, Found] = OrderedDict()
        self._running: dict[Key, asyncio.Future[Found]] = {}
        self._breaks: dict[Key, _Break] = {}

    async def all_of(self, specs: Mapping[str, LookupSpec], *, team: str, document: dict[str, Any]) -> dict[str, Found]:
        """What each lookup gives for this event, asked at the same time; a failure is a Found with its reason."""
        if not specs:
            return {}
        async with asyncio.TaskGroup() as group:
            running = {name: group.create_task(self._one(name, spec, team, document)) for name, spec in specs.items()}
        return {name: task.result() for name, task in running.items()}

    async def _one(self, name: str, spec: LookupSpec, team: str, document: dict[str, Any]) -> Found:
        try:
            url = url_for(spec, document)
        except NoUrl as exc:
            return Found(failure=str(exc))
        key = (team, f"{name}\0{spec.view}\0{sorted(spec.headers.items())}", url)
        now_ms = self._clock_ms()
        cached = self._cache.get(key)
        if cached is not None and now_ms - cached.fetched_ms <= spec.cache * 1000:
            self._cache.move_to_end(key)
            return cached
        running = self._running.get(key)
        if running is not None:
            return await asyncio.shield(running)
        return await self._asked_once(key, name, spec, team, url)

    async def _asked_once(self, key: Key, name: str, spec: LookupSpec, team: str, url: str) -> Found:
        promise: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._running[key] = promise
        found = Found(failure="canceled")
        try:
            found = await self._guarded(name, spec, team, url)
        finally:
            del self._running[key]
            promise.set_result(found)
        if not found.failure and spec.cache:
            self._cache[key] = found
            while len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)
        return found

    async def _guarded(self, name: str, spec: LookupSpec, team: str, url: str) -> Found:
        state = self._breaks.setdefault((team, name, spec.url), _Break())
        if self._clock_ms() < state.until_ms:
            return Found(failure="resting after failures")
        found = await self._fetched(spec, team, url)
        is_sick = found.failure and not found.failure.startswith("status 4")
        state.failures = state.failures + 1 if is_sick else 0
        if state.failures >= BREAK_AFTER:
            state.until_ms = self._clock_ms() + BREAK_MS
        return found

    async def _fetched(self, spec: LookupSpec, team: str, url: str) -> Found:
        try:
            secrets = {each: await self._credentials.secret(team=team, name=each) for each in secrets_in(spec)}
            reply = await self._fetch(
                "GET",
                url,
                headers=headers_with(spec, secrets),
                timeout_s=spec.timeout,
                allow_private=spec.allow_private,
                max_answer_bytes=spec.max_bytes,
            )
        except NightbellError as exc:
            return Found(fetched_ms=self._clock_ms(), failure=exc.code)
        return found_in(reply, spec, fetched_ms=self._clock_ms())
