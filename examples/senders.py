"""What SaaS vendors send, as they sign it: small independent senders of six providers, for the demo.

Each gives a `Delivery`: headers and body of one webhook, signed by the vendor's own recipe with the standard library alone, so that
the demo does not check Nightbell's signatures with Nightbell's code.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SECRETS = {
    "github-acme": "github-demo-secret",
    "gitlab-acme": "gitlab-demo-token",
    "stripe-acme": "whsec_stripe_demo",
    "slack-acme": "slack-demo-signing-secret",
    "shopify-acme": "shopify-demo-secret",
    "crm": "whsec_" + base64.b64encode(b"nightbell-demo-crm-secret-32byte").decode(),
}


@dataclass(frozen=True)
class Delivery:
    """One webhook on its way to `source`."""

    source: str
    headers: dict[str, str]
    body: bytes


def _mac(secret: bytes, message: bytes) -> hmac.HMAC:
    return hmac.new(secret, message, hashlib.sha256)


def _json(payload: Any) -> bytes:
    return json.dumps(payload, separators=(",", ":")).encode()


def _urls(kind: str, number: int) -> dict[str, str]:
    """The ballast of a real GitHub payload: what an agent must never pay for."""
    api = "https://api.github.com/repos/acme/shop"
    names = [
        "labels",
        "comments",
        "events",
        "timeline",
        "reactions",
        "assignees",
        "milestones",
        "forks",
        "keys",
        "hooks",
        "teams",
        "tags",
    ]
    return {f"{name}_url": f"{api}/{kind}/{number}/{name}{{/name}}" for name in names}


def github(number: int, *, version: int = 0, secret: str = "") -> Delivery:
    """An issue with the label `bug`, opened; later versions of it are edits."""
    action = "opened" if version == 0 else "edited"
    user = {"login": "nora", "id": 7, "type": "User", **_urls("users", 7)}
    issue = {
        "id": number, "node_id": f"I_{number}", "number": number, "title": f"Checkout charges twice ({number})", "state": "open",
        "body": "Since the last release a card is charged twice when the page is reloaded.", "user": user,
        "labels": [{"id": 1, "name": "bug", "color": "d73a4a"}], "updated_at": f"2026-11-21T10:{version:02d}:00Z",
        "html_url": f"https://github.com/acme/shop/issues/{number}", **_urls("issues", number),
    }  # fmt: skip
    repository = {"id": 99, "full_name": "acme/shop", "private": True, "owner": user, **_urls("repository", 99)}
    return signed_github(_json({"action": action, "issue": issue, "repository": repository, "sender": user}), secret=secret)


def signed_github(body: bytes, *, secret: str = "") -> Delivery:
    """These bytes, as GitHub signs them."""
    signature = _mac((secret or SECRETS["github-acme"]).encode(), body).hexdigest()
    return Delivery(
        "github-acme",
        {"X-GitHub-Event": "issues", "X-GitHub-Delivery": str(uuid.uuid4()), "X-Hub-Signature-256": f"sha256={signature}"},
        body,
    )


def gitlab(number: int, *, branch: str = "main", secret: str = "") -> Delivery:
    """A push of one commit."""
    payload = {
        "object_kind": "push", "event_name": "push", "ref": f"refs/heads/{branch}", "user_username": "tom", "project_id": number,
        "checkout_sha": hashlib.sha1(str(number).encode(), usedforsecurity=False).hexdigest(),
        "project": {"id": number, "path_with_namespace": f"acme/service-{number}", "web_url": f"https://gitlab.com/acme/service-{number}"},
        "commits": [{"id": "c1", "title": f"Release {number}", "author": {"name": "Tom"}}], "total_commits_count": 1,
    }  # fmt: skip
    return with_gitlab_token(_json(payload), secret=secret)


def with_gitlab_token(body: bytes, *, secret: str = "") -> Delivery:
    """These bytes, with the token that GitLab sends instead of a signature."""
    token = secret or SECRETS["gitlab-acme"]
    headers = {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": token, "Idempotency-Key": str(uuid.uuid4())}
    return Delivery("gitlab-acme", headers, body)


def stripe(number: int, *, at: float = 0, secret: str = "") -> Delivery:
    """A failed payment of an invoice."""
    sent = int(at or time.time())
    invoice = {
        "id": f"in_{number}", "object": "invoice", "amount_due": 4900 + number, "currency": "eur", "customer": f"cus_{number}",
        "customer_email": "pay@example.com", "attempt_count": 2, "hosted_invoice_url": f"https://pay.stripe.com/i/{number}",
        "lines": {"object": "list", "data": [{"id": f"il_{number}_{i}", "amount": 100, "description": "Seat"} for i in range(8)]},
    }  # fmt: skip
    body = _json(
        {
            "id": f"evt_{number}",
            "object": "event",
            "type": "invoice.payment_failed",
            "created": sent,
            "data": {"object": invoice},
        }
    )
    return signed_stripe(body, at=sent, secret=secret)


def signed_stripe(body: bytes, *, at: float = 0, secret: str = "") -> Delivery:
    """These bytes, as Stripe signs them at an instant."""
    sent = int(at or time.time())
    signature = _mac((secret or SECRETS["stripe-acme"]).encode(), f"{sent}.".encode() + body).hexdigest()
    return Delivery("stripe-acme", {"Stripe-Signature": f"t={sent},v1={signature}"}, body)


def slack(number: int, *, at: float = 0, secret: str = "") -> Delivery:
    """Somebody mentions the app in a channel."""
    sent = int(at or time.time())
    event = {
        "type": "app_mention",
        "user": "U061F7AUR",
        "text": f"<@U0LAN0Z89> status of order {number}?",
        "ts": f"{sent}.{number:06d}",
        "channel": "C123",
    }
    body = _json(
        {
            "token": "unused", "team_id": "T1", "api_app_id": "A1", "type": "event_callback", "event_id": f"Ev{number:08d}",
            "event_time": sent, "event": event,
        }
    )  # fmt: skip
    return signed_slack(body, at=sent, secret=secret)


def signed_slack(body: bytes, *, at: float = 0, secret: str = "") -> Delivery:
    """These bytes, as Slack signs them at an instant."""
    sent = int(at or time.time())
    signature = _mac((secret or SECRETS["slack-acme"]).encode(), f"v0:{sent}:".encode() + body).hexdigest()
    headers = {"X-Slack-Request-Timestamp": str(sent), "X-Slack-Signature": f"v0={signature}"}
    return Delivery("slack-acme", headers, body)


def shopify(number: int, *, topic: str = "orders/create", secret: str = "") -> Delivery:
    """A new order."""
    items = [{"id": number * 10 + i, "title": f"Lamp {i}", "quantity": 1, "price": "19.00", "sku": f"L-{i}"} for i in range(6)]
    order = {
        "id": 820982911 + number, "name": f"#{number}", "email": "jon@example.com", "total_price": "114.00", "currency": "EUR",
        "created_at": "2026-11-21T09:59:00Z", "updated_at": "2026-11-21T09:59:30Z", "line_items": items, "note": None,
    }  # fmt: skip
    return signed_shopify(_json(order), topic=topic, secret=secret)


def signed_shopify(body: bytes, *, topic: str = "orders/create", secret: str = "") -> Delivery:
    """These bytes, as Shopify signs them."""
    digest = base64.b64encode(_mac((secret or SECRETS["shopify-acme"]).encode(), body).digest()).decode()
    headers = {
        "X-Shopify-Topic": topic, "X-Shopify-Hmac-Sha256": digest, "X-Shopify-Shop-Domain": "acme.myshopify.com",
        "X-Shopify-Webhook-Id": str(uuid.uuid4()), "X-Shopify-Event-Id": str(uuid.uuid4()), "X-Shopify-Triggered-At": "2026-11-21T09:59:30Z",
    }  # fmt: skip
    return Delivery("shopify-acme", headers, body)


def crm(number: int, *, at: float = 0, secret: str = "") -> Delivery:
    """A deal is closed, by a vendor that follows the Standard Webhooks specification."""
    body = _json(
        {
            "type": "deal.closed",
            "timestamp": "2026-11-21T10:00:00Z",
            "data": {"deal": f"D{number}", "amount": 12_000, "owner": "iva"},
        }
    )
    return signed_crm(number, body, at=at, secret=secret)


def signed_crm(number: int, body: bytes, *, at: float = 0, secret: str = "") -> Delivery:
    """These bytes as message `number`, signed by the Standard Webhooks specification at an instant."""
    sent, message = int(at or time.time()), f"msg_{number:08d}"
    key = base64.b64decode((secret or SECRETS["crm"]).removeprefix("whsec_"))
    signature = base64.b64encode(_mac(key, f"{message}.{sent}.".encode() + body).digest()).decode()
    return Delivery(
        "crm", {"webhook-id": message, "webhook-timestamp": str(sent), "webhook-signature": f"v1,{signature}"}, body
    )


SENDERS: dict[str, Callable[..., Delivery]] = {
    "github": github,
    "gitlab": gitlab,
    "stripe": stripe,
    "slack": slack,
    "shopify": shopify,
    "crm": crm,
}
