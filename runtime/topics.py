"""Keeps the log's topics in step with the sources: a family's topic is there, and read, once a source needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import structlog

from eventlog.log import EventLog
from ingest.catalogue import Provider
from schemas.config import SourceConfig
from schemas.errors import NightbellError
from schemas.topics import events_topic

Families = Callable[[], Awaitable[set[str]]]


def families_of(catalogue: Mapping[str, Provider], sources: Iterable[SourceConfig]) -> set[str]:
    """The provider families of these sources; a provider that this build does not know has none."""
    names = {source.spec.provider for source in sources}
    return {catalogue[name].family for name in names if name in catalogue}


class Topics:
    """Looks at the sources every `look_every_s`, or when told; `watch` is given the topics of all of them."""

    def __init__(
        self,
        log: EventLog,
        families: Families,
        *,
        prefix: str,
        partitions: int,
        watch: Callable[[Sequence[str]], None] = lambda _: None,
        look_every_s: float = 1.0,
    ) -> None:
        self._log, self._families = log, families
        self._prefix, self._partitions, self._watch = prefix, partitions, watch
        self._look_every_s = look_every_s
        self._known: set[str] = set()
        self._changed = asyncio.Event()
        self._say = structlog.get_logger()

    def notice(self) -> None:
        """Sources changed in this process: look now."""
        self._changed.set()

    async def keep(self) -> None:
        """Make the missing topics, and have all of them watched."""
        wanted = {events_topic(family, self._prefix) for family in await self._families()} - self._known
        if not wanted:
            return
        await self._log.ensure(dict.fromkeys(sorted(wanted), self._partitions))
        self._known |= wanted
        self._watch(sorted(self._known))

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._changed.clear()
            try:
                await self.keep()
            except NightbellError as exc:
                self._say.warning("topics_not_made", code=exc.code, detail=exc.detail)
            try:
                async with asyncio.timeout(self._look_every_s):
                    await self._changed.wait()
            except TimeoutError:
                continue
