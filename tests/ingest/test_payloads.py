"""Real payloads: what vendors send becomes events with the type, subject, actor and time that a person would give them.

The corpus is not part of the project: `NBTEST_PAYLOADS_DIR` names the folder that holds its `payloads.jsonl`.
"""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ingest.catalogue import catalogue
from ingest.inbound import Request
from ingest.normalize import to_events
from ingest.samples import source_of
from ingest.schemes.base import Proof
from schemas.event import Event

NOW_MS = 1_750_000_000_000
FOLDER = os.environ.get("NBTEST_PAYLOADS_DIR", "")


def corpus() -> list[Any]:
    if not FOLDER:
        return []
    lines = (Path(FOLDER) / "payloads.jsonl").read_text(encoding="utf-8").split("\n")
    cases = [json.loads(line) for line in lines if line]
    return [pytest.param(case, id=f"{case['provider']}-{case['name']}") for case in cases if case["provider"] in catalogue()]


CORPUS = corpus() or [pytest.param(None, marks=pytest.mark.skip(reason="NBTEST_PAYLOADS_DIR is not set"))]


def events_of(case: dict[str, Any]) -> list[Event]:
    provider = catalogue()[case["provider"]]
    request = Request("POST", "https://hooks.example.com/in/source", case["headers"].items(), case["body"].encode())
    return to_events(request, source_of(provider), Proof(), NOW_MS)


def plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def names_one_of(text: str, wanted: list[str]) -> bool:
    return any(plain(one) in plain(text) for one in wanted)


@pytest.mark.parametrize("case", CORPUS)
def test_a_real_payload_has_a_type_a_subject_and_an_ordering_key(case: dict[str, Any]):
    events = events_of(case)

    if case["expect"].get("handshake") or case["kind"] == "legacy":
        return
    assert events
    for event in events:
        named = event.type.removeprefix(f"{event.family}.")
        assert named not in {"", "unknown"}
        assert event.subject, named
        assert event.partitionkey != event.id, f"{named} has no ordering key"


@pytest.mark.parametrize("case", CORPUS)
def test_a_real_payload_says_what_a_person_reads_in_it(case: dict[str, Any]):
    expect = case["expect"]
    if expect.get("handshake") or case["kind"] == "legacy":
        pytest.skip("a handshake or an older format")

    event = events_of(case)[0]

    if expect["type_contains"]:
        assert plain(expect["type_contains"]) in plain(event.type)
    if expect["subject_any"]:
        assert names_one_of(f"{event.subject} {event.partitionkey}", expect["subject_any"]), (event.subject, event.partitionkey)
    if expect["subject_hint"]:
        assert names_one_of(event.subject, expect["subject_any"]), event.subject
    if expect["actor_hint"]:
        assert names_one_of(event.actor, expect["actor_any"]), event.actor
    hinted = hinted_ms(expect.get("time_hint") or {"unix_ms": 0})
    if hinted:  # the epoch itself is no time that anything happened at
        assert abs(event.time_ms - hinted) < 1000, event.time_ms


def hinted_ms(hint: dict[str, Any]) -> float:
    if "unix_s" in hint:
        return hint["unix_s"] * 1000
    if "unix_ms" in hint:
        return hint["unix_ms"]
    moment = datetime.fromisoformat(hint["iso"])
    return moment.timestamp() * 1000
