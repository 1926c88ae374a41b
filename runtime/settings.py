"""Every setting of a process: one model, read once from the environment (`.env` too) at the start.

Each field is one variable: `NIGHTBELL_` and its name in capitals.  A unit stands in the name, the bounds stand in the field,
and the description is the sentence that the documents show (`runtime.settings_table` writes them from here).
"""

from __future__ import annotations

import difflib
import os
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.errors import BadSetting

PREFIX = "NIGHTBELL_"
MAX_PORT = 65_535
_MIB = 1024 * 1024

Role = Literal["ingest", "router", "dispatcher", "api"]
ROLES: frozenset[str] = frozenset(get_args(Role))
LogLevel = Literal["debug", "info", "warning", "error"]
SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


class Address(NamedTuple):
    """Where a listener binds; port 0 lets the system choose."""

    host: str
    port: int


def address_of(bind: str) -> Address:
    """The address that `host:port` names (`[::1]:8080` for IPv6).  Raises ValueError."""
    host, colon, port = bind.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > MAX_PORT:
        raise ValueError("write host:port, as in 127.0.0.1:8080 ([::1]:8080 for IPv6; port 0 lets the system choose)")
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


def _bind(text: str) -> str:
    address_of(text)
    return text


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("write an http or https URL without a query, as in https://hooks.example.com")
    return text.rstrip("/")


def _url_of(*schemes: str) -> AfterValidator:
    def checked(text: str) -> str:
        if not text.startswith(schemes):
            raise ValueError(f"must start with one of {', '.join(schemes)}")
        return text

    return AfterValidator(checked)


Bind = Annotated[str, AfterValidator(_bind)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
LogUrl = Annotated[str, _url_of("sqlite:///", "kafka://", "memory:")]
StoreUrl = Annotated[str, _url_of("sqlite:///", "postgresql://")]


def _retention(name: str) -> AliasChoices:
    # The documents write these names short (`…_LOG_DAYS`); both readings of that are taken.
    return AliasChoices(f"{PREFIX}RETENTION_{name}", f"{PREFIX}{name}")


def _in_data_dir(name: str, *, scheme: str = "") -> Callable[[dict[str, Any]], str]:
    return lambda given: f"{scheme}{given['data_dir'].absolute() / name}"


def _process_name() -> str:
    return f"{platform.node() or 'localhost'}-{os.getpid()}"


class Settings(BaseSettings):
    """What a Nightbell process is told from outside."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )

    # where things are
    data_dir: Path = Field(
        default=Path(".nightbell"), description="Folder of the embedded log, the store, the key files and the spool."
    )
    log_url: LogUrl = Field(
        default_factory=_in_data_dir("log.db", scheme="sqlite:///"), repr=False, json_schema_extra={"shown": "sqlite:///<data>/log.db"},
        description="The event log: `sqlite:///FILE`, or `kafka://host:9092[,host…]`.",
    )  # fmt: skip
    store_url: StoreUrl = Field(
        default_factory=_in_data_dir("store.db", scheme="sqlite:///"), repr=False, json_schema_extra={"shown": "sqlite:///<data>/store.db"},
        description="The store: `sqlite:///FILE`, or `postgresql://user:password@host/database`.",
    )  # fmt: skip
    topic_prefix: str = Field(
        default="nightbell", pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="What the names of topics start with."
    )
    instance_id: str = Field(
        default_factory=_process_name, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        json_schema_extra={"shown": "host name and process id"},
        description="This process's name among its peers.",
    )  # fmt: skip

    # the faces
    ingest_bind: Bind = Field(
        default="127.0.0.1:8080", description="Where webhooks are received; port 0 takes a free one and prints it."
    )
    api_bind: Bind = Field(
        default="127.0.0.1:8081",
        description="Where the API, the metrics and the health checks are served; port 0 takes a free one.",
    )
    ingest_url: BaseUrl | None = Field(
        default=None, description="How the world reaches the ingest listener; used in signatures and in URLs to paste."
    )
    api_url: BaseUrl | None = Field(default=None, description="How agents and the command line reach the API; used in links.")
    api_key: SecretStr | None = Field(
        default=None, description="The API key of the command line; absent: the key file in the data folder."
    )
    master_key: SecretStr | None = Field(
        default=None,
        description="Encrypts secrets at rest: 32 bytes in base64; the embedded default makes one, else it is demanded.",
    )

    # ingest
    max_body_bytes: int = Field(default=26 * _MIB, ge=1024, le=26 * _MIB, description="The largest webhook body that is taken.")
    max_requests_in_flight: int = Field(
        default=1024, ge=1, le=100_000, description="Webhook requests at once, before 503 with Retry-After."
    )
    max_bytes_in_flight: int = Field(
        default=256 * _MIB, ge=_MIB, description="Bytes of webhook bodies held at once, before 503 with Retry-After."
    )
    body_timeout_s: float = Field(default=10.0, gt=0, le=120, description="How long a webhook's body may take to arrive.")
    append_timeout_s: float = Field(
        default=2.5, gt=0, le=60, description="How long an append may take before the sender gets 503, or the spool takes over."
    )
    spool_dir: Path = Field(
        default_factory=_in_data_dir("spool"), validate_default=True, json_schema_extra={"shown": "<data>/spool"},
        description="Where ingest spools while Kafka is out of reach: a persistent folder.",
    )  # fmt: skip
    max_spool_bytes: int = Field(
        default=4096 * _MIB, ge=_MIB, description="How much the spool may hold before events are refused."
    )
    max_spool_age_h: float = Field(
        default=24.0, gt=0, description="How old the spool's oldest event may be before events are refused."
    )

    # router and dispatcher
    topic_partitions: int = Field(default=6, ge=1, le=1000, description="Partitions of a new topic; fixed when it is created.")
    max_attempts_in_flight: int = Field(
        default=512, ge=1, le=10_000, description="Calls to agents at once in one dispatcher, over all agents."
    )
    shard_lease_s: float = Field(
        default=15.0, ge=1, le=300, description="How long a dispatcher owns a shard without renewing it."
    )
    dispatch_queue_count: int = Field(
        default=4096, ge=1, le=1_000_000, description="Invocations handed over in memory before the router is slowed."
    )
    max_outcome_hops: int = Field(
        default=8, ge=1, le=1000,
        description="How many outcomes, each waking an agent by the one before, may follow one event before the chain is cut.",
    )  # fmt: skip
    max_outcome_wakes_per_minute: int = Field(
        default=100, ge=1, le=1_000_000,
        description="How often one event may wake one subscription by outcomes in a minute before the chain is cut.",
    )  # fmt: skip
    drain_timeout_s: float = Field(
        default=25.0, ge=0, le=3600, description="How long a stopping process finishes what is under way."
    )

    # the store
    store_pool_size: int = Field(default=8, ge=1, le=200, description="Connections to PostgreSQL that one process holds.")

    # retention
    retention_log_days: float = Field(
        default=7.0, gt=0, le=3650, validation_alias=_retention("LOG_DAYS"), description="How long the event log keeps records."
    )
    retention_events_days: float = Field(
        default=30.0,
        gt=0,
        le=3650,
        validation_alias=_retention("EVENTS_DAYS"),
        description="How long events and contexts are kept.",
    )
    keep_sent: Literal["all", "failed", "none"] = Field(
        default="all",
        description="Whose sent bytes are kept, as long as the event: every attempt's (some 500 bytes each), those of attempts "
        "that failed, or none.",
    )
    retention_bodies_days: float = Field(
        default=14.0,
        gt=0,
        le=3650,
        validation_alias=_retention("BODIES_DAYS"),
        description="How long the vendors' bodies are kept.",
    )
    retention_seen_days: float = Field(
        default=35.0,
        gt=0,
        le=3650,
        validation_alias=_retention("SEEN_DAYS"),
        description="How long a redelivery is recognised.",
    )

    # Kafka
    kafka_tls: bool = Field(default=False, description="Whether to speak TLS to Kafka.")
    kafka_ca_file: Path | None = Field(
        default=None, description="PEM file of the authority that signed the brokers' certificates."
    )
    kafka_cert_file: Path | None = Field(default=None, description="PEM file of this client's certificate, for mutual TLS.")
    kafka_key_file: Path | None = Field(default=None, description="PEM file of the client certificate's private key.")
    kafka_key_password: SecretStr | None = Field(default=None, description="Password of that private key.")
    kafka_sasl_mechanism: SaslMechanism | None = Field(default=None, description="How to sign in to Kafka; absent: not at all.")
    kafka_sasl_username: str | None = Field(default=None, description="User name for SASL.")
    kafka_sasl_password: SecretStr | None = Field(default=None, description="Password for SASL.")
    kafka_replication: int | None = Field(
        default=None, ge=1, le=32, description="Replicas of a topic that Nightbell creates; absent: the brokers' default."
    )
    kafka_min_insync_replicas: int = Field(
        default=1, ge=1, le=32, description="Replicas that must hold a record before it counts as durable; checked at start."
    )
    kafka_session_timeout_s: float = Field(
        default=30.0, ge=1, le=1800, description="How long a silent consumer keeps its partitions."
    )

    # logging
    log_level: LogLevel = Field(default="info", description="The least grave lines that are written.")
    log_format: Literal["console", "json"] | None = Field(
        default=None, description="How lines are written; absent: `console` on a terminal, `json` elsewhere."
    )

    @model_validator(mode="after")
    def _agree(self) -> Settings:
        if self.kafka_sasl_mechanism and not (self.kafka_sasl_username and self.kafka_sasl_password):
            raise ValueError(
                "NIGHTBELL_KAFKA_SASL_MECHANISM needs NIGHTBELL_KAFKA_SASL_USERNAME and NIGHTBELL_KAFKA_SASL_PASSWORD"
            )
        if bool(self.kafka_cert_file) != bool(self.kafka_key_file):
            raise ValueError("NIGHTBELL_KAFKA_CERT_FILE and NIGHTBELL_KAFKA_KEY_FILE go together")
        if self.kafka_replication and self.kafka_min_insync_replicas > self.kafka_replication:
            raise ValueError("NIGHTBELL_KAFKA_MIN_INSYNC_REPLICAS is larger than NIGHTBELL_KAFKA_REPLICATION")
        return self

    @property
    def is_embedded(self) -> bool:
        """Whether log and store are files of this machine: one process, no other server."""
        return self.store_url.startswith("sqlite:") and not self.log_url.startswith("kafka:")

    @property
    def has_spool(self) -> bool:
        """Whether the log is on other machines, so that ingest keeps a spool before it."""
        return self.log_url.startswith("kafka:")


def known_variables() -> dict[str, str]:
    """The field that each variable sets, by the variable's name; several may set one."""
    found: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        choices = [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [PREFIX + name.upper()]
        found.update((choice, name) for choice in choices if choice.startswith(PREFIX))
    return found


def load_settings(*, env_file: Path | None = Path(".env"), **overrides: Any) -> Settings:
    """The settings of this process: `overrides`, then the environment, then `env_file` where there is one.

    Raises `BadSetting`, naming every variable that is wrong; for an unknown one, the nearest that is known.
    """
    written = dotenv_values(env_file) if env_file is not None and env_file.is_file() else {}
    if wrong := list(_strangers([*os.environ, *written])):
        raise BadSetting("; ".join(wrong))
    try:
        return Settings(_env_file=env_file, **overrides)  # type: ignore[call-arg]  # pydantic-settings' own argument
    except ValidationError as exc:
        errors = exc.errors(include_input=False, include_url=False)
        # A default that is derived from a wrong field is only an echo of that field's error.
        raise BadSetting("; ".join(_sentence(e) for e in errors if e["type"] != "default_factory_not_called")) from exc


def _strangers(names: Iterable[str]) -> Iterable[str]:
    known = known_variables()
    for name in sorted({name for name in names if name.upper().startswith(PREFIX) and name.upper() not in known}):
        near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.0)
        yield f"{name} is no setting; the nearest is {near[0]}"


def _sentence(error: Any) -> str:
    place = str(error["loc"][0]).upper() if error["loc"] else ""
    message = error["msg"].removeprefix("Value error, ")
    return f"{place if place.startswith(PREFIX) else PREFIX + place}: {message}" if place else message
