"""What the curator's tests share: one event, and the payloads that a checkout may point at."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from schemas.event import Event


def make_event(data: Any = None, **wanted: Any) -> Event:
    body = wanted.pop("body", json.dumps(data or {}).encode())
    return Event(
        **{
            "id": "evt_7k3qaaaaaaaaaaaaaaaaaaaaaa", "team": "default", "source": "github-acme", "provider": "github",
            "family": "github", "type": "acme.unknown.thing", "partitionkey": "default/github-acme/1",
            "time_ms": 1_795_149_372_120, "received_ms": 1_795_149_373_000, "traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
            "datacontenttype": "application/json", "body": body, "actor": "nora",
        } | wanted
    )  # fmt: skip


@pytest.fixture
def event():
    return make_event


def lines_of(name: str) -> list[dict[str, Any]]:
    folder = os.environ.get("NBTEST_PAYLOADS_DIR")
    if not folder:
        pytest.skip("NBTEST_PAYLOADS_DIR names no folder of payloads")
    # `split`, not `splitlines`: bodies hold other Unicode line separators.
    return [json.loads(line) for line in (Path(folder) / name).read_text(encoding="utf-8").split("\n") if line]


@pytest.fixture(scope="session")
def payloads():
    return lines_of("payloads.jsonl")


@pytest.fixture(scope="session")
def facts():
    return {(each["provider"], each["name"]): each["facts"] for each in lines_of("facts.jsonl")}
