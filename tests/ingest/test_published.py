"""Payloads that packages publish become events with a type, a subject and an ordering key.

`@octokit/webhooks-examples` holds GitHub's and every GitHub Enterprise Server's; `published/packages.toml` lists the others with
their numbers, which `make test-all` fetches.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ingest.catalogue import provider_named
from ingest.inbound import Request
from ingest.normalize import to_events
from ingest.samples import source_of
from ingest.schemes.base import Proof
from ingest.template import Scope
from schemas.event import Event
from tests.ingest.published.payloads import PACKAGES, Payload, folder_of, payloads
from tests.npm.fetch import ROOT, installed

NOW_MS = 1_750_000_000_000
TAKES = [
    pytest.param(package, take, id=f"{package['name']}-{take['provider']}-{number}")
    for package in PACKAGES
    for number, take in enumerate(package["take"])
]
EDITIONS = {"api.github.com": 329, "ghes-31": 49, "ghes-32": 49, "ghes-33": 50, "ghes-34": 124, "ghes-35": 125}


def events_of(name: str, payload: Payload) -> list[Event]:
    """What a delivery of this body would become, with the headers that `nightbell send` would give it."""
    provider = provider_named(name)
    request = Request("POST", "https://hooks.example.com/in/source", [("Content-Type", payload.content_type)], payload.body)
    scope = Scope(request, {})
    sent = [(header, text) for header, choices in provider.send_headers.items() if (text := choices.text(scope))]
    request = Request("POST", request.url, [*request.fields, *sent], payload.body)
    return to_events(request, source_of(provider), Proof(), NOW_MS)


def lacking(events: list[Event]) -> list[str]:
    """What a person or a lane would miss."""
    found = [] if events else ["events"]
    for event in events:
        named = event.type.removeprefix(f"{event.family}.")
        found += ["type"] if named in {"", "unknown"} else []
        found += [] if event.subject else ["subject"]
        found += ["ordering key"] if event.partitionkey == event.id else []
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("package", "take"), TAKES)
def test_a_published_payload_has_a_type_a_subject_and_an_ordering_key(package: dict[str, Any], take: dict[str, Any]):
    found = payloads(folder_of(package), take)

    wrong = {payload.place: lacks for payload in found if (lacks := lacking(events_of(take["provider"], payload)))}

    assert wrong == {}
    assert len(found) == take["count"]


@cache
def octokit(edition: str) -> list[dict[str, Any]]:
    folder: Path = installed(ROOT / "tests/npm") / "node_modules/@octokit/webhooks-examples"
    return json.loads((folder / edition / "index.json").read_text())


@pytest.mark.node
@pytest.mark.timeout(240)
@pytest.mark.parametrize("edition", EDITIONS)
def test_every_example_of_octokit_has_a_type_a_subject_and_an_ordering_key(edition: str):
    github = provider_named("github")
    wrong = []
    count = 0
    for event in octokit(edition):
        for number, document in enumerate(event["examples"]):
            headers = [("Content-Type", "application/json"), ("X-GitHub-Event", event["name"]), ("X-GitHub-Delivery", "d")]
            body = json.dumps(document).encode()
            request = Request("POST", "https://hooks.example.com/in/source", headers, body)
            events = to_events(request, source_of(github), Proof(), NOW_MS)
            count += 1
            action = document.get("action")
            named = f"github.{event['name']}.{action}" if action else f"github.{event['name']}"
            if event["name"] != "ping" and (lacking(events) or [one.type for one in events] != [named]):
                wrong.append((event["name"], number, lacking(events)))

    assert wrong == []
    assert count == EDITIONS[edition]
