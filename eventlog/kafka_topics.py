"""What Kafka's topics must be like: created where they are missing, checked where they are there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka import errors
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from eventlog.config import LogConfig
from schemas.errors import BadSetting

SLACK_BYTES = 1 << 20  # what a batch adds to its records


class TopicShapes:
    """Asks and tells the cluster by an admin client.  The caller bounds every wait."""

    def __init__(self, admin: Any, server: str, config: LogConfig) -> None:
        self._admin = admin
        self._server = server
        self._config = config
        self._kafka = config.kafka

    async def ensure(self, topics: Mapping[str, int]) -> None:
        """Create what is missing, wait until it has leaders, and check the rest.  Raises `BadSetting`."""
        there = await self.described()
        missing = {topic: count for topic, count in topics.items() if topic not in there}
        if missing:
            await self._create(missing)
            there = await self._appeared(missing)
        for topic, count in topics.items():
            self._check_shape(topic, count, there[topic])
            if topic not in missing:
                await self._check_config(topic)

    async def described(self) -> dict[str, list[dict[str, Any]]]:
        """The partitions of every topic that is there."""
        described = await self._admin.describe_topics()
        return {topic["topic"]: topic["partitions"] for topic in described if topic["error_code"] == 0}

    async def _create(self, missing: Mapping[str, int]) -> None:
        wanted = self._wanted() | {"message.timestamp.type": "LogAppendTime"}
        new = [
            NewTopic(topic, count, self._kafka.replication, topic_configs={key: str(value) for key, value in wanted.items()})
            for topic, count in missing.items()
        ]
        answer = await self._admin.create_topics(new)
        for topic, code, *text in answer.topic_errors:
            error = errors.for_code(code)
            if error not in {errors.NoError, errors.TopicAlreadyExistsError}:
                raise BadSetting(f"Kafka would not create topic {topic}: {error.__name__} {text[0] if text else ''}".strip())

    async def _appeared(self, missing: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
        while True:
            there = await self.described()
            if all(topic in there and all(part["leader"] >= 0 for part in there[topic]) for topic in missing):
                return there
            await asyncio.sleep(0.05)

    def _wanted(self) -> dict[str, int]:
        return {
            "retention.ms": int(self._kafka.retention_s * 1000),
            "min.insync.replicas": self._kafka.min_insync_replicas,
            "max.message.bytes": self._config.max_record_bytes + SLACK_BYTES,
        }

    def _check_shape(self, topic: str, count: int, partitions: list[dict[str, Any]]) -> None:
        if len(partitions) != count:
            raise BadSetting(f"topic {topic} has {len(partitions)} partitions, not {count}: the number is fixed at creation")
        fewest = min(len(part["replicas"]) for part in partitions)
        if fewest < self._kafka.replication:
            raise BadSetting(
                f"topic {topic} has {fewest} replicas, and {self._kafka.replication} are asked for: run "
                f"kafka-reassign-partitions.sh --bootstrap-server {self._server} with more replicas"
            )

    async def _check_config(self, topic: str) -> None:
        [answer] = await self._admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        [(_, _, _, _, entries)] = answer.resources
        found = {entry[0]: entry[1] for entry in entries}
        wrong = {
            key: wanted
            for key, wanted in self._wanted().items()
            if key in found and int(found[key]) < wanted and not (key == "retention.ms" and int(found[key]) == -1)
        }
        if wrong:
            change = ",".join(f"{key}={value}" for key, value in wrong.items())
            now = ", ".join(f"{key}={found[key]}" for key in wrong)
            raise BadSetting(
                f"topic {topic} has {now}: run kafka-configs.sh --bootstrap-server {self._server} "
                f"--alter --entity-type topics --entity-name {topic} --add-config {change}"
            )
