from __future__ import annotations

from pathlib import Path

import pytest

from eventlog.config import LogConfig
from eventlog.connect import connect, sqlite_path
from eventlog.kafka import KafkaLog
from eventlog.memory import MemoryLog
from eventlog.sql import SqlLog
from schemas.errors import BadSetting
from schemas.topics import Draft


def test_a_url_names_its_driver() -> None:
    assert isinstance(connect("memory:"), MemoryLog)
    assert isinstance(connect("sqlite:///log.db"), SqlLog)


async def test_a_kafka_url_names_its_driver() -> None:
    assert isinstance(connect("kafka://one:9092,two:9092"), KafkaLog)


def test_three_slashes_are_relative_and_four_absolute() -> None:
    assert sqlite_path("sqlite:///data/log.db") == Path("data/log.db")
    assert sqlite_path("sqlite:////var/lib/my%20log.db") == Path("/var/lib/my log.db")


@pytest.mark.parametrize("url", ["", "log.db", "redis://x", "sqlite://", "sqlite:///", "sqlite://host/x"])
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(BadSetting):
        connect(url)


async def test_the_number_of_partitions_stands_above_the_configs() -> None:
    log = connect("memory:", partitions=3, config=LogConfig(partitions=5))
    await log.start()

    await log.append([Draft("t", "k", b"", {})])

    assert len(await log.places("t")) == 3
