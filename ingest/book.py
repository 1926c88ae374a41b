"""The book of sources: in memory, in a sealed file on disk, and reloaded when the store says that it changed."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from ingest.catalogue import catalogue
from ingest.limits import Bucket
from ingest.ports import Seal, SourceShelf
from ingest.prepared import PreparedSource
from ingest.schemes.base import Fetched
from schemas.config import SourceConfig, SourceSpec
from schemas.errors import Busy, Misconfigured, NotFound, NotReady, SecretsUnavailable

_CONTEXT = "ingest book 1"
_SECRET_MODE = 0o600
Key = tuple[str, str]


def _no_keys(_url: str) -> bytes | None:
    return None


class Book:
    """Sources by team and name.  What a request sees is swapped whole, never changed in place."""

    def __init__(
        self,
        shelf: SourceShelf,
        *,
        seal: Seal | None = None,
        path: Path | None = None,
        fetched: Fetched = _no_keys,
        every_s: float = 0.5,
    ) -> None:
        """With `seal` and `path` the book outlives the store's absence, encrypted under the master key."""
        self._shelf = shelf
        self._seal = seal
        self._path = path
        self._fetched = fetched
        self._every_s = every_s
        self._version: int | None = None
        self._sources: dict[Key, PreparedSource] | None = None
        self._buckets: dict[Key, Bucket] = {}
        self._changed = asyncio.Event()
        self.unknown_providers: tuple[str, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Whether this process has ever had a book."""
        return self._sources is not None

    def source(self, team: str, name: str) -> PreparedSource:
        """The source.  Raises `NotFound`, or `NotReady` where there has never been a book: then nobody knows what there is."""
        if self._sources is None:
            raise NotReady
        found = self._sources.get((team, name))
        if found is None:
            raise NotFound
        return found

    def bucket(self, source: PreparedSource, now_s: float) -> Bucket | None:
        """The source's rate, if it has one.  A changed rate starts a new bucket."""
        if source.spec.rate_per_s is None:
            return None
        key = (source.team, source.name)
        found = self._buckets.get(key)
        if found is None:
            found = self._buckets[key] = Bucket(source.spec.rate_per_s, now_s)
        return found

    def sources(self) -> list[PreparedSource]:
        """All of them."""
        return list((self._sources or {}).values())

    def families(self) -> set[str]:
        """The families of all sources: each has a topic of its own."""
        return {source.provider.family for source in self.sources()}

    def notice(self) -> None:
        """Look at the store now: somebody says that it changed."""
        self._changed.set()

    async def open(self) -> None:
        """Read the store's book, or, where it is out of reach, the one on disk."""
        try:
            await self.refresh()
        except Busy:
            await self._read_file()

    async def refresh(self) -> bool:
        """Read the store's book if its version changed; whether it did.  Raises what the shelf raises."""
        version = await self._shelf.version()
        if version == self._version:
            return False
        configs = await self._shelf.sources()
        self._take(configs)
        self._version = version
        await self._write_file(configs)
        return True

    async def run(self) -> None:
        """Keep the book current, until cancelled.  A store that cannot be reached leaves the book as it is."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._changed.wait()
            self._changed.clear()
            with suppress(Busy):
                await self.refresh()

    def _take(self, configs: list[SourceConfig]) -> None:
        known = catalogue()
        made: dict[Key, PreparedSource] = {}
        unknown = []
        before = self._sources or {}
        for config in configs:
            provider = known.get(config.spec.provider)
            if provider is None:  # a store that a newer build wrote: the others must not suffer
                unknown.append(f"{config.team}/{config.name}")
                continue
            key = (config.team, config.name)
            made[key] = PreparedSource(config, provider, fetched=self._fetched)
            if key in before and before[key].spec.rate_per_s != config.spec.rate_per_s:
                self._buckets.pop(key, None)
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if key in made}
        self.unknown_providers = tuple(unknown)
        self._sources = made

    async def _read_file(self) -> None:
        if self._seal is None or self._path is None:
            return
        with suppress(FileNotFoundError, SecretsUnavailable, Misconfigured, ValidationError, orjson.JSONDecodeError):
            sealed = await asyncio.to_thread(self._path.read_bytes)
            self._take([_config_of(line) for line in orjson.loads(self._seal.unseal(sealed, context=_CONTEXT))])

    async def _write_file(self, configs: list[SourceConfig]) -> None:
        if self._seal is None or self._path is None:
            return
        sealed = self._seal.seal(orjson.dumps([_line_of(config) for config in configs]), context=_CONTEXT)
        with suppress(OSError):  # the book in memory is whole; the file serves only a start without the store
            await asyncio.to_thread(_replace, self._path, sealed)


def _replace(path: Path, content: bytes) -> None:
    """Write beside, sync, rename: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _SECRET_MODE)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _line_of(config: SourceConfig) -> dict[str, Any]:
    spec = config.spec.model_dump(mode="json")
    spec["secrets"] = [secret.get_secret_value() for secret in config.spec.secrets]
    spec["password"] = config.spec.password.get_secret_value() if config.spec.password else None
    return {"team": config.team, "name": config.name, "uid": config.uid, "spec": spec}


def _config_of(line: dict[str, Any]) -> SourceConfig:
    return SourceConfig(line["team"], line["name"], line["uid"], SourceSpec.model_validate(line["spec"]))
