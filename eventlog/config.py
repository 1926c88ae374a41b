"""What an event log is told when it is opened: sizes, bounds and how to reach Kafka."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from schemas.topics import DEFAULT_PARTITIONS, MAX_RECORD_BYTES

_MIB = 1024 * 1024


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class KafkaConfig(_Frozen):
    """How to reach a Kafka cluster, and what its topics must be like.  Spans are seconds."""

    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="how to connect"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="with SASL only"
    )
    username: str | None = Field(default=None, description="with SASL only")
    password: SecretStr | None = Field(default=None, description="with SASL only")
    ca_file: str | None = Field(
        default=None, description="PEM of the authorities that sign the brokers' certificates; absent: the system's"
    )
    cert_file: str | None = Field(default=None, description="PEM of our own certificate, where the brokers ask for one")
    key_file: str | None = Field(default=None, description="PEM of our own certificate's key")
    key_password: SecretStr | None = Field(default=None, description="of `key_file`, where it has one")
    replication: int = Field(default=1, ge=1, le=9, description="replicas of the topics that we create; 3 in production")
    min_insync_replicas: int = Field(
        default=1, ge=1, le=9, description="replicas that must have a record before it counts as durable"
    )
    retention_s: float = Field(default=7 * 86_400.0, ge=60, description="how long the topics keep records")
    client_id: str = Field(default="nightbell", description="how we name ourselves to the brokers")
    request_timeout_s: float = Field(
        default=3.0, ge=0.5, le=60, description="for one request to a broker, and for a batch without a leader"
    )
    append_timeout_s: float = Field(default=5.0, ge=0.5, le=120, description="for an append, retries included")
    linger_s: float = Field(default=0.0, ge=0, le=1, description="how long a batch waits for company")
    session_timeout_s: float = Field(
        default=45.0, ge=6, le=300, description="a reader that is silent for so long loses its partitions"
    )
    rebalance_timeout_s: float = Field(
        default=60.0, ge=6, le=600, description="how long a rebalance waits for readers to let go"
    )
    commit_interval_s: float = Field(default=0.5, ge=0.05, le=60, description="between two background commits for lag displays")
    stall_timeout_s: float = Field(
        default=60.0, ge=1, le=3600, description="a reader without progress before records for so long is opened anew"
    )


class LogConfig(_Frozen):
    """Bounds of an event log, whatever its driver."""

    partitions: int = Field(default=DEFAULT_PARTITIONS, ge=1, le=1000, description="of a topic that an append creates")
    max_record_bytes: int = Field(
        default=MAX_RECORD_BYTES, ge=1024, le=512 * _MIB, description="the largest record: key, value, headers"
    )
    queue_records: int = Field(default=20_000, ge=1, description="appends that may wait at once, in records")
    queue_bytes: int = Field(default=128 * _MIB, ge=1024, description="appends that may wait at once, in bytes")
    tail_bytes: int = Field(default=32 * _MIB, ge=0, description="newest records kept in memory for readers that keep up")
    batch_records: int = Field(default=256, ge=1, le=10_000, description="records that a reader gets at once, at most")
    reserve_bytes: int = Field(default=64 * _MIB, ge=0, description="free disk space below which appends are refused")
    check_bytes: int = Field(
        default=64 * _MIB, ge=0, description="a log file up to this size is checked in whole when it is opened"
    )
    memory_bytes: int = Field(default=1024 * _MIB, ge=1024, description="what a log in memory holds before it refuses appends")
    kafka: KafkaConfig = KafkaConfig()
