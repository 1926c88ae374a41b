"""The rules of the Kafka driver that go beyond the contract."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pydantic import SecretStr

from eventlog.config import KafkaConfig, LogConfig
from eventlog.kafka import KafkaLog
from eventlog.kafka_access import options
from eventlog.kafka_errors import family_of, translated
from eventlog.observer import Observer
from schemas.errors import BadSetting, LogUnavailable, NightbellError
from schemas.topics import Draft, Place
from tests.contracts.event_log import collect, cursors, draft
from tests.eventlog.conftest import FAST, KafkaBench
from tests.servers import kafka
from tests.servers.ports import free_port

ROOTS = {errors.KafkaError, errors.BrokerResponseError}
CLASSES = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, errors.KafkaError) and each not in ROOTS and each.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_of_aiokafkas_errors_is_one_of_ours(kind: type[Exception]) -> None:
    assert family_of(kind) is not None
    assert isinstance(translated(kind("secret")), NightbellError)
    assert "secret" not in translated(kind("secret")).detail


def test_there_are_errors_to_map() -> None:
    assert len(CLASSES) > 80


def test_an_error_that_nobody_thought_of_is_seen_by_the_mapping() -> None:
    class Novel(errors.KafkaError):
        pass

    assert family_of(Novel) is None


def test_a_certificate_that_is_not_there_is_a_bad_setting() -> None:
    with pytest.raises(BadSetting):
        options(["x:9092"], KafkaConfig(security="SSL", ca_file="/nowhere/ca.pem"))


def test_sasl_without_a_password_is_a_bad_setting() -> None:
    with pytest.raises(BadSetting):
        options(["x:9092"], KafkaConfig(security="SASL_PLAINTEXT", username="bell"))


async def test_a_cluster_that_is_not_there_is_told_in_time() -> None:
    log = KafkaLog([f"127.0.0.1:{free_port()}"], LogConfig(kafka=KafkaConfig(request_timeout_s=0.5)))

    with pytest.raises(LogUnavailable):
        async with asyncio.timeout(5):
            await log.start()


@pytest.mark.kafka
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_tls_with_sasl_carries_records(kafka_cluster: kafka.Cluster, kafka_bench: KafkaBench, mechanism: str) -> None:
    secure = FAST.model_copy(
        update={
            "security": "SASL_SSL",
            "sasl_mechanism": mechanism,
            "username": kafka.USERNAME,
            "password": SecretStr(kafka.PASSWORD),
            "ca_file": str(kafka_cluster.folder / "ca.pem"),
        }
    )
    log = KafkaLog(kafka_cluster.secure_url.removeprefix("kafka://").split(","), LogConfig(partitions=1, kafka=secure))
    await log.start()

    [(place, position)] = await log.append([draft(f"{kafka_bench.prefix}.secure")])

    assert (await log.read(place, position))[0].value == b"v"
    await log.aclose(grace_s=1)


@pytest.mark.kafka
async def test_a_wrong_password_is_the_operators_to_mend(kafka_cluster: kafka.Cluster) -> None:
    wrong = FAST.model_copy(
        update={
            "security": "SASL_SSL",
            "sasl_mechanism": "PLAIN",
            "username": kafka.USERNAME,
            "password": SecretStr("wrong"),
            "ca_file": str(kafka_cluster.folder / "ca.pem"),
        }
    )
    log = KafkaLog(kafka_cluster.secure_url.removeprefix("kafka://").split(","), LogConfig(kafka=wrong))

    with pytest.raises((BadSetting, LogUnavailable)):
        await log.start()


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("setting", "value"), [("retention.ms", "60000"), ("max.message.bytes", "1000"), ("min.insync.replicas", "1")]
)
async def test_a_topic_with_another_setting_is_refused_with_the_command_that_mends_it(
    kafka_cluster: kafka.Cluster, kafka_bench: KafkaBench, setting: str, value: str
) -> None:
    topic = f"{kafka_bench.prefix}.odd"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_cluster.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "100000000", setting: value})])
    await admin.close()
    strict = FAST.model_copy(update={"min_insync_replicas": 2 if setting == "min.insync.replicas" else 1})
    log = KafkaLog(kafka_cluster.bootstrap.split(","), LogConfig(kafka=strict))
    await log.start()

    with pytest.raises(BadSetting, match=f"kafka-configs.sh .*--entity-name {topic} --add-config {setting}="):
        await log.ensure({topic: 1})
    await log.aclose(grace_s=1)


@pytest.mark.kafka
async def test_events_travel_in_cloudevents_binary_mode_on_javas_partition(
    kafka_cluster: kafka.Cluster, kafka_bench: KafkaBench
) -> None:
    log = await kafka_bench.open(LogConfig(partitions=6))
    topic = f"{kafka_bench.prefix}.events.github"
    headers = {"ce_specversion": "1.0", "ce_id": "evt_1", "ce_subject": "Zürich"}

    [(place, position)] = await log.append([Draft(topic, "default/src/acme/api", b'{"a": 1}', headers)])

    consumer = AIOKafkaConsumer(bootstrap_servers=kafka_cluster.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition(*place)])
    consumer.seek(TopicPartition(*place), position)
    raw = await consumer.getone()
    await consumer.stop()
    assert (raw.key, raw.value) == (b"default/src/acme/api", b'{"a": 1}')
    assert dict(raw.headers) == {"ce_specversion": b"1.0", "ce_id": b"evt_1", "ce_subject": "Zürich".encode()}
    assert raw.timestamp_type == 1  # the log's own time


@pytest.mark.kafka
async def test_progress_is_committed_in_the_background_and_never_read_back(
    kafka_cluster: kafka.Cluster, kafka_bench: KafkaBench
) -> None:
    log = await kafka_bench.open(LogConfig(partitions=1))
    topic = f"{kafka_bench.prefix}.t"
    places = await log.append([draft(topic, value=b"%d" % n) for n in range(5)])
    place = places[0][0]
    reader = log.reader(group=f"{topic}.g", topics=[topic], start=cursors())
    await collect(reader, 5)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_cluster.bootstrap)
    await admin.start()

    async with asyncio.timeout(10):
        while not (await admin.list_consumer_group_offsets(f"{topic}.g")).get(TopicPartition(*place)):
            await asyncio.sleep(0.05)
    committed = (await admin.list_consumer_group_offsets(f"{topic}.g"))[TopicPartition(*place)].offset
    await admin.close()
    await reader.aclose()
    again = log.reader(group=f"{topic}.g", topics=[topic], start=cursors({place: places[2][1]}))

    assert committed == places[-1][1] + 1
    assert [record.value for record in await collect(again, 3)] == [b"2", b"3", b"4"]
    await again.aclose()


@pytest.mark.kafka
async def test_a_frozen_broker_fails_appends_in_time_and_its_producer_is_replaced() -> None:
    replaced: list[str] = []
    quick = KafkaConfig(request_timeout_s=1, append_timeout_s=1.5, session_timeout_s=6, rebalance_timeout_s=6)
    with kafka.Cluster() as cluster:
        log = KafkaLog(
            cluster.bootstrap.split(","), LogConfig(partitions=1, kafka=quick), observer=Observer(replaced=replaced.append)
        )
        await log.start()
        await log.append([draft("t", value=b"before")])

        cluster.brokers[0].freeze()
        async with asyncio.timeout(6):
            failed = await asyncio.gather(
                *[log.append([draft("t", value=b"during")]) for _ in range(5)], return_exceptions=True
            )
        is_healthy = await log.healthy()
        cluster.brokers[0].thaw()
        async with asyncio.timeout(20):
            while True:
                try:
                    await log.append([draft("t", value=b"after")])
                    break
                except LogUnavailable:
                    await asyncio.sleep(0.2)
        position, end = await log.bounds(Place("t", 0))
        values = [record.value for record in await log.read(Place("t", 0), position)]
        await log.aclose(grace_s=1)

    assert all(isinstance(error, LogUnavailable) for error in failed)
    assert not is_healthy
    assert replaced
    assert values[0] == b"before"
    assert values[-1] == b"after"
    assert end - position == len(values)


@pytest.mark.kafka
async def test_a_reader_goes_on_after_the_broker_was_killed_and_restarted() -> None:
    quick = KafkaConfig(request_timeout_s=1, append_timeout_s=1.5, session_timeout_s=6, rebalance_timeout_s=6)
    with kafka.Cluster() as cluster:
        log = KafkaLog(cluster.bootstrap.split(","), LogConfig(partitions=1, kafka=quick))
        await log.start()
        acknowledged = {b"0"}
        await log.append([draft("t", value=b"0")])
        kept: dict[Place, int] = {}
        reader = log.reader(group="g", topics=["t"], start=cursors(kept))
        seen: set[bytes] = set()

        async def read() -> None:
            while not acknowledged <= seen or len(acknowledged) < 20:
                try:
                    batch = await reader.next()
                except LogUnavailable:
                    await asyncio.sleep(0.1)
                    continue
                seen.update(record.value for record in batch.records)
                kept[batch.place] = batch.after
                reader.progressed(batch.place, batch.after)

        reading = asyncio.create_task(read())
        while not seen:
            await asyncio.sleep(0.05)
        cluster.brokers[0].kill()
        await asyncio.to_thread(cluster.brokers[0].start)
        async with asyncio.timeout(40):
            for n in range(1, 20):
                while True:
                    try:
                        await log.append([draft("t", value=b"%d" % n)])
                        break
                    except LogUnavailable:
                        await asyncio.sleep(0.2)
                acknowledged.add(b"%d" % n)
            await reading
        await log.aclose(grace_s=1)

    assert acknowledged <= seen


@pytest.mark.kafka
async def test_appends_whose_callers_gave_up_are_still_counted_and_still_retire_the_producer() -> None:
    replaced: list[str] = []
    quick = KafkaConfig(request_timeout_s=1, append_timeout_s=1.5, session_timeout_s=6, rebalance_timeout_s=6)
    with kafka.Cluster() as cluster:
        log = KafkaLog(
            cluster.bootstrap.split(","), LogConfig(partitions=1, kafka=quick), observer=Observer(replaced=replaced.append)
        )
        await log.start()
        await log.append([draft("t", value=b"before")])

        cluster.brokers[0].freeze()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await log.append([draft("t", value=b"x" * 1000)])
        counted = log.queued_bytes
        async with asyncio.timeout(10):
            while not replaced or log.queued_records:
                await asyncio.sleep(0.05)
        cluster.brokers[0].thaw()
        await log.aclose(grace_s=1)

    assert counted > 3000
    assert log.queued_bytes == 0
