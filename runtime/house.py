"""Opens what the roles share, and closes it: log, store, vault, the way out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from egress.client import Client
from eventlog.config import KafkaConfig, LogConfig
from eventlog.connect import connect as connect_log
from eventlog.log import EventLog
from eventlog.observer import SILENT, Observer
from runtime.health import nightbell_version
from runtime.keyfiles import master_key
from runtime.settings import Settings
from schemas.errors import BadSetting, LogUnavailable
from store.connect import Store
from store.connect import connect as connect_store
from store.vault import Vault, read_master_keys

_LOG_PATIENCE_S = 5.0
_LOG_PAUSE_S = 1.0


class Needs(NamedTuple):
    """What a process cannot start without.  `log_later`: it wants the log, and can wait for it."""

    store: bool = True
    log: bool = True
    log_later: bool = False


@dataclass
class House:
    """What is open.  Log and store are started, unless this process can do without them, or until they are in reach."""

    settings: Settings
    log: EventLog
    store: Store
    vault: Vault
    client: Client
    observer: Observer = SILENT
    is_store_open: bool = False
    is_log_open: bool = False
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def ensure_store(self) -> None:
        """Open the store where it is not yet.  Raises `StoreUnavailable`."""
        if self.is_store_open:
            return
        async with self._opening:
            if not self.is_store_open:
                await self.store.start(may_migrate=self.store.is_embedded)
                self.is_store_open = True

    async def open_log(self) -> None:
        """Start the log.  Raises `BadSetting`, `LogUnavailable`."""
        await self.log.start()
        self.is_log_open = True

    async def keep_opening_log(self) -> None:
        """Start the log as soon as it can be reached; then wait, until cancelled."""
        while not self.is_log_open:
            try:
                await self.open_log()
            except LogUnavailable as exc:
                structlog.get_logger().warning("log_out_of_reach", detail=exc.detail)
                await asyncio.sleep(_LOG_PAUSE_S)
        await asyncio.Event().wait()

    async def close_log(self) -> None:
        """Stop the log gracefully."""
        if self.is_log_open:
            await self.log.aclose()

    async def close_store(self) -> None:
        """Finish what is queued, and close it."""
        if self.is_store_open:
            await self.store.aclose()


def user_agent() -> str:
    """How we name ourselves to agents and vendors."""
    return f"Nightbell/{nightbell_version()}"


def open_vault(settings: Settings, *, make: bool) -> Vault:
    """The vault under this installation's master key.  Raises `BadSetting`."""
    return Vault(read_master_keys(master_key(settings, make=make)))


def log_config(settings: Settings) -> LogConfig:
    """The log's bounds and ways, as the settings say."""
    has_sasl, password = settings.kafka_sasl_mechanism is not None, settings.kafka_sasl_password
    kafka = {
        "security": ("SASL_" if has_sasl else "") + ("SSL" if settings.kafka_tls else "PLAINTEXT"),
        "username": settings.kafka_sasl_username,
        "password": password,
        "ca_file": _text(settings.kafka_ca_file),
        "cert_file": _text(settings.kafka_cert_file),
        "key_file": _text(settings.kafka_key_file),
        "key_password": settings.kafka_key_password,
        "min_insync_replicas": settings.kafka_min_insync_replicas,
        "replication": settings.kafka_replication or 1,
        "retention_s": settings.retention_log_days * 86_400,
        "session_timeout_s": settings.kafka_session_timeout_s,
        "append_timeout_s": settings.append_timeout_s,
    }
    if settings.kafka_sasl_mechanism:
        kafka["sasl_mechanism"] = settings.kafka_sasl_mechanism
    return LogConfig(partitions=settings.topic_partitions, kafka=KafkaConfig.model_validate(kafka))


def _text(path: object) -> str | None:
    return None if path is None else str(path)


def make_data_dir(settings: Settings) -> None:
    """Make the data folder, for its owner alone.  Raises `BadSetting`."""
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        raise BadSetting(f"cannot make the data folder {settings.data_dir}: {exc.strerror}") from exc


@asynccontextmanager
async def opened(settings: Settings, *, observer: Observer, needs: Needs) -> AsyncIterator[House]:
    """The house, for as long as the block lasts; what is not needed at the start may be out of reach then.

    Raises `BadSetting`, `LogUnavailable`, `StoreUnavailable`.
    """
    make_data_dir(settings)
    vault = open_vault(settings, make=True)
    log = connect_log(settings.log_url, config=log_config(settings), observer=observer)
    store = connect_store(settings.store_url, pool_size=settings.store_pool_size)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(user_agent=user_agent()))
        house = House(settings, log, store, vault, client, observer)
        stack.push_async_callback(house.close_store)
        stack.push_async_callback(house.close_log)
        if needs.store:
            await house.ensure_store()
        if needs.log:
            await house.open_log()
        elif needs.log_later:
            with suppress(LogUnavailable, TimeoutError):  # the spool is there; `keep_opening_log` goes on
                async with asyncio.timeout(_LOG_PATIENCE_S):
                    await house.open_log()
        yield house
