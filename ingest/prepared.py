"""A source made ready: its provider compiled, its credentials unpacked, its options filled in."""

from __future__ import annotations

from typing import Any

from ingest.catalogue import Provider
from ingest.schemes.base import Credentials, Fetched
from schemas.config import SourceConfig, SourceSpec


def _nothing(_url: str) -> bytes | None:
    return None


class PreparedSource:
    """What one request needs to know of its source.  Built once per change of the book."""

    __slots__ = ("credentials", "name", "options", "provider", "spec", "team", "uid")

    def __init__(self, config: SourceConfig, provider: Provider, *, fetched: Fetched = _nothing) -> None:
        spec: SourceSpec = config.spec
        self.team = config.team
        self.name = config.name
        self.uid = config.uid
        self.spec = spec
        self.provider = provider
        self.options: dict[str, Any] = provider.with_defaults(spec.options)
        for field in ("secrets", "public_keys", "password"):
            if getattr(spec, field):
                self.options[f"source:{field}"] = "true"
        self.credentials = Credentials(
            secrets=tuple(secret.get_secret_value() for secret in spec.secrets),
            public_keys=spec.public_keys,
            username=spec.username,
            password=spec.password.get_secret_value() if spec.password else None,
            fetched=fetched,
        )


def prepared(spec: SourceSpec, *, team: str = "default", name: str = "source", fetched: Fetched = _nothing) -> PreparedSource:
    """A source that stands in no book: for the command line and for tests.  Raises `NotFound`."""
    from ingest.catalogue import provider_named

    return PreparedSource(SourceConfig(team, name, name, spec), provider_named(spec.provider), fetched=fetched)
