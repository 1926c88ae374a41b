"""An injection on its whole way: route, request, headers, lookups and what policies read are those of its benign twin."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest

from curator.compose import Materials, compose
from curator.contract import contract_of
from curator.enrich import url_for
from dispatcher.protocols.webhook import Webhook
from ingest.catalogue import provider_named
from ingest.inbound import Request
from ingest.normalize import arrivals
from ingest.samples import source_of
from ingest.schemes.base import Proof
from router.plan import plan
from router.ruleset import build_ruleset
from schemas.config import ContextSpec, LookupSpec, SubscriptionConfig, SubscriptionSpec
from schemas.ledger import Head
from tests.contracts.agent_protocol import ATTEMPT, LINKS, TARGET
from tests.curator.injections import BENIGN, body_with, corpus

CORPUS = list(corpus())
RULES = {
    "all": {"pattern": {"type": [{"prefix": "github."}]}},
    "outsiders": {
        "pattern": {"type": ["github.pull_request.opened"], "data": {"pull_request": {"author_association": ["NONE"]}}}
    },
    "owners": {"pattern": {"data": {"pull_request": {"author_association": ["OWNER"]}}}},
    "merged": {"pattern": {"data": {"pull_request": {"merged": [True]}}}},
    "other": {"pattern": {"source": ["operator"]}},
    "deduped": {"pattern": {"type": [{"prefix": "github."}]}, "dedup": {"key": "data.pull_request.number", "window": "1h"}},
}
RULESET = build_ruleset(
    1,
    [
        SubscriptionConfig("default", name, f"uid-{name}", 1, SubscriptionSpec(agent="triage", **rule))
        for name, rule in RULES.items()
    ],
)
CONTRACT = contract_of(ContextSpec())
LOOKUP = LookupSpec(url="https://crm.example/{data.repository.full_name}/pulls/{data.pull_request.number}")


def way(document: dict):
    """What becomes of a delivery, apart from what outsiders wrote and what is a digest of it."""
    headers = [("Content-Type", "application/json"), ("X-GitHub-Event", "pull_request"), ("X-GitHub-Delivery", "d")]
    request = Request("POST", "https://hooks.example.com/in/source", headers, orjson.dumps(document))
    [(event, data)] = arrivals(request, source_of(provider_named("github")), Proof(), 1_795_149_372_120, traceparent="")
    event = replace(event, id="evt_aaaaaaaaaaaaaaaaaaaaaaaaaa")
    planned = plan(event, data, RULESET, position=0, now_ms=1_795_149_372_120)
    work = planned.invocations[0]
    curated = compose(CONTRACT, event, data, Materials(), invocation_id=work.id, fence_secret=b"k" * 32)
    call = Webhook().build(Head(work, event, 0, 0), curated, TARGET, LINKS, ATTEMPT)
    body = orjson.loads(call.body)
    for name in ("subject", "actor", "summary", "url"):
        body["event"].pop(name, None)
    body["provenance"].pop("actor", None)
    for measured in ("tokens", "pruned", "hidden", "cut"):
        body["manifest"].pop(measured, None)
    outside = {name: value for name, value in body.items() if name != "context"}
    signed = {name: value for name, value in call.headers.items() if name != "webhook-signature"}
    return {
        "event": (
            event.type,
            event.kind,
            event.source,
            event.provider,
            event.partitionkey,
            event.time_ms,
            event.flags,
            event.url,
        ),
        "route": planned.invocations,
        "request": (call.method, call.url, signed),
        "outside": orjson.dumps(outside),
        "lookup": url_for(LOOKUP, event.document(data)),
        "verdict": (curated.verdict, curated.reason, curated.missing),
    }


TWIN = way(body_with("title", BENIGN))


def test_the_twin_is_routed_by_what_is_trusted():
    assert {each.subscription for each in TWIN["route"]} == {"all", "outsiders", "deduped"}


@pytest.mark.parametrize(("place", "text"), [each[1:] for each in CORPUS], ids=[each[0] for each in CORPUS])
def test_an_injection_changes_nothing_on_the_way(place, text):
    assert way(body_with(place, text)) == TWIN
