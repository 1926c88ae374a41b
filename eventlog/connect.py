"""Which driver a log's URL means."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from eventlog.config import LogConfig
from eventlog.log import EventLog
from eventlog.memory import MemoryLog
from eventlog.observer import SILENT, Observer
from eventlog.sql import SqlLog
from schemas.errors import BadSetting


def connect(
    url: str, *, partitions: int | None = None, config: LogConfig | None = None, observer: Observer = SILENT
) -> EventLog:
    """The log at `url`, not yet started: `memory:`, `sqlite:///path` (four slashes: absolute) or `kafka://host:port[,host:port]`.

    `partitions` is what a topic gets that an append creates; it stands above `config`'s.  Raises `BadSetting`.
    """
    config = config or LogConfig()
    if partitions is not None:
        config = config.model_copy(update={"partitions": partitions})
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return MemoryLog(config, observer=observer)
    if parts.scheme == "sqlite":
        return SqlLog(sqlite_path(url), config, observer=observer)
    if parts.scheme == "kafka":
        from eventlog.kafka import KafkaLog  # the embedded default loads no Kafka client

        return KafkaLog(parts.netloc.split(","), config, observer=observer)
    raise BadSetting("a log's URL starts with memory:, sqlite:/// or kafka://")


def sqlite_path(url: str) -> Path:
    """The file that a `sqlite:///…` URL names.  Raises `BadSetting`."""
    prefix = "sqlite:///"
    path = unquote(url.removeprefix(prefix))
    if not url.startswith(prefix) or not path:
        raise BadSetting("an SQLite URL is sqlite:///relative/file or sqlite:////absolute/file")
    return Path(path)
