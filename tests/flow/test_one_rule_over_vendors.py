"""One rule over several vendors: the same fact has the same `kind`, whatever each vendor calls it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ingest.catalogue import catalogue
from ingest.inbound import Reply
from ingest.kinds import KINDS
from ingest.prepared import prepared
from ingest.receive import receive
from ingest.sign import signed
from router.pattern import compile_pattern
from schemas.config import SourceSpec

NOW_MS = 1_750_000_000_000
HEX_KEY = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"
PULL = {
    "action": "opened", "number": 7, "sender": {"login": "nora"}, "repository": {"full_name": "acme/shop"},
    "pull_request": {"node_id": "PR_1", "number": 7, "title": "Mend the lift"},
}  # fmt: skip
MERGE = {
    "object_kind": "merge_request", "user": {"username": "nora"}, "project": {"id": 1, "path_with_namespace": "acme/shop"},
    "object_attributes": {"id": 99, "iid": 7, "action": "open", "title": "Mend the lift"},
}  # fmt: skip
CHARGE = {
    "id": "evt_1",
    "object": "event",
    "type": "charge.failed",
    "created": 1_750_000_000,
    "data": {"object": {"id": "ch_1", "object": "charge"}},
}
REFUSED = {
    "live": "false",
    "notificationItems": [{"NotificationRequestItem": {
        "eventCode": "AUTHORISATION", "success": "false", "pspReference": "8515", "merchantAccountCode": "Acme", "merchantReference": "order-1",
        "amount": {"currency": "EUR", "value": 100}, "eventDate": "2025-06-15T15:06:40+02:00", "additionalData": {"hmacSignature": ""},
    }}],
}  # fmt: skip
ISSUE = {
    "webhookEvent": "jira:issue_created", "timestamp": NOW_MS, "user": {"displayName": "Nora"},
    "issue": {"id": "10040", "key": "OPS-1", "fields": {"summary": "The lift is stuck"}},
}  # fmt: skip
LINEAR = {
    "type": "Issue", "action": "create", "webhookTimestamp": 0, "webhookId": "w", "createdAt": "2025-06-15T15:06:40.000Z",
    "data": {"id": "i-1", "identifier": "OPS-1", "title": "The lift is stuck"}, "url": "https://linear.app/acme/issue/OPS-1/x",
}  # fmt: skip
SAME = [
    ("code.change_request.opened", {"github": PULL, "gitlab_token": MERGE}),
    ("payment.failed", {"stripe": CHARGE, "adyen_standard": REFUSED}),
    ("ticket.created", {"jira": ISSUE, "linear": LINEAR}),
]


def delivered(name: str, document: dict[str, Any]) -> dict[str, Any]:
    """The event that a rule sees, of a delivery that is signed and verified."""
    secret = HEX_KEY if name.startswith("adyen") else "a-secret-of-this-source"
    source = prepared(SourceSpec.model_validate({"provider": name, "secrets": [secret]}))
    request = signed(source, url="https://hooks.example.com/in/source", body=orjson.dumps(document), now_ms=NOW_MS)
    got = receive(request, source, NOW_MS, traceparent="00-t")
    assert not isinstance(got, Reply)
    (event, data) = got[0]
    return {**event.envelope(), "data": data}


@pytest.mark.parametrize(("kind", "deliveries"), SAME)
def test_one_rule_by_kind_catches_the_same_fact_of_every_vendor(kind: str, deliveries: dict[str, dict[str, Any]]):
    rule = compile_pattern({"kind": [kind]})
    seen = {name: delivered(name, document) for name, document in deliveries.items()}

    assert all(rule.matches(event) for event in seen.values()), {name: event.get("kind") for name, event in seen.items()}
    assert len({event["type"] for event in seen.values()}) == len(seen)


@pytest.mark.parametrize(("kind", "deliveries"), SAME)
def test_a_rule_by_another_kind_does_not(kind: str, deliveries: dict[str, dict[str, Any]]):
    rule = compile_pattern({"kind": [{"anything-but": kind}]})

    assert not any(rule.matches(delivered(name, document)) for name, document in deliveries.items())


@pytest.mark.parametrize(
    "kind", [kind for kind, _ in SAME] + ["message.received", "incident.triggered", "build.failed", "deal.closed"]
)
def test_a_kind_that_rules_are_written_over_is_spoken_by_several_families(kind: str):
    speakers = {
        provider.family for provider in catalogue().values()
        if kind in provider.file.kinds.values() or any(choice.value == kind for choice in provider.file.event.kind)
    }  # fmt: skip

    assert kind in KINDS
    assert len(speakers) >= 3, speakers
