"""Providers written in a test, as a file would write them."""

from __future__ import annotations

from ingest.catalogue import Provider, read_file
from ingest.prepared import PreparedSource
from schemas.config import SourceConfig, SourceSpec

HEAD = """
name = "made"
family = "made"
title = "Made in a test"
confirmed = true
[docs]
signature = "https://example.com"
[setup]
steps = ["{url}"]
"""
MAC = '[[verify]]\nscheme = "mac"\nalgorithm = "sha256"\nsignature = "{header:X-Sig}"\nsigned = "{body}"\n'


def provider(*parts: str, event: str = 'type = "{/type}"', identity: str = 'kind = "body"') -> Provider:
    return read_file("\n".join([HEAD, "[event]", event, "[identity]", identity, *parts]), "made.toml")


def source(made: Provider, *, fetched=None, name: str = "src", **fields: object) -> PreparedSource:
    spec = SourceSpec.model_validate({"provider": "made", **fields})
    return PreparedSource(SourceConfig("default", name, "uid", spec), made, fetched=fetched or (lambda _: None))
