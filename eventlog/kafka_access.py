"""How the brokers are reached: addresses, TLS and SASL, as aiokafka's clients want to be told."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any

from eventlog.config import KafkaConfig
from schemas.errors import BadSetting


def tls_context(config: KafkaConfig) -> ssl.SSLContext | None:
    """The TLS settings, where TLS is on.  Raises `BadSetting`."""
    if config.security not in {"SSL", "SASL_SSL"}:
        return None
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.cert_file:
            password = config.key_password.get_secret_value() if config.key_password else None
            context.load_cert_chain(config.cert_file, config.key_file, password)
    except OSError as exc:
        raise BadSetting(f"a certificate or key for Kafka cannot be read: {exc.strerror or exc}") from exc
    return context


def options(servers: Sequence[str], config: KafkaConfig) -> dict[str, Any]:
    """What every client of the cluster is told."""
    if config.security.startswith("SASL") and not (config.username and config.password):
        raise BadSetting("SASL needs a username and a password")
    return {
        "bootstrap_servers": list(servers),
        "client_id": config.client_id,
        "request_timeout_ms": int(config.request_timeout_s * 1000),
        "metadata_max_age_ms": 30_000,
        "security_protocol": config.security,
        "ssl_context": tls_context(config),
        "sasl_mechanism": config.sasl_mechanism,
        "sasl_plain_username": config.username,
        "sasl_plain_password": config.password.get_secret_value() if config.password else None,
    }
