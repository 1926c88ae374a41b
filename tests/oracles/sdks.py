"""How each vendor's SDK is asked: `verify` by the SDK's own function, `sign` where it has one for tests.

A `verify` refuses by raising or by giving False; everything else is a yes.  SDKs are imported where they are asked, since some
take seconds to load.  Headers come in lower case, as a Request has them; the SDKs get them by the names that they look for.
"""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime
from functools import cache
from typing import Any

from ingest.inbound import Request

Headers = dict[str, str]


def _text(request: Request) -> str:
    return request.body.decode()


# --- Standard Webhooks and Svix -------------------------------------------------------------------------------------------


def standard(secret: str, request: Request) -> object:
    from standardwebhooks import Webhook

    return bool(Webhook(secret).verify(request.body, request.headers) or True)


def standard_sign(secret: str, request: Request, now_s: int) -> Headers:
    from standardwebhooks import Webhook

    code = Webhook(secret).sign("msg_1", datetime.fromtimestamp(now_s, UTC), _text(request))
    return {"webhook-id": "msg_1", "webhook-timestamp": str(now_s), "webhook-signature": code}


def of_text_key(secret: str) -> str:
    """The secret as the library wants it where the vendor's key is the text itself."""
    return b64encode(secret.encode()).decode()


def bigcommerce(secret: str, request: Request) -> object:
    return standard(of_text_key(secret), request)


def bigcommerce_sign(secret: str, request: Request, now_s: int) -> Headers:
    return standard_sign(of_text_key(secret), request, now_s)


def svix(secret: str, request: Request) -> object:
    from svix.webhooks import Webhook

    return Webhook(secret).verify(request.body, request.headers)


def svix_sign(secret: str, request: Request, now_s: int) -> Headers:
    from svix.webhooks import Webhook

    code = Webhook(secret).sign("msg_1", datetime.fromtimestamp(now_s, UTC), _text(request))
    return {"svix-id": "msg_1", "svix-timestamp": str(now_s), "svix-signature": code}


@cache
def _openai() -> Any:
    from openai import OpenAI

    return OpenAI(api_key="none").webhooks


def openai(secret: str, request: Request) -> object:
    return _openai().verify_signature(request.body, request.headers, secret=secret)


@cache
def _anthropic() -> Any:
    from anthropic import Anthropic

    return Anthropic(api_key="none").beta.webhooks


def anthropic(secret: str, request: Request) -> object:
    return _anthropic().unwrap(_text(request), headers=request.headers, key=secret)


def replicate(secret: str, request: Request) -> object:
    from replicate.webhook import Webhooks, WebhookSigningSecret

    return Webhooks.validate(
        headers=request.headers, body=_text(request), secret=WebhookSigningSecret(key=secret), tolerance=300
    )


def resend(secret: str, request: Request) -> object:
    import resend as sdk

    names = {name: request.headers.get(f"svix-{name}", "") for name in ("id", "timestamp", "signature")}
    return sdk.Webhooks.verify({"payload": _text(request), "headers": names, "webhook_secret": secret})


# --- Stripe and its like: t=…,v1=… --------------------------------------------------------------------------------------


def stripe(secret: str, request: Request) -> object:
    from stripe import WebhookSignature

    return WebhookSignature.verify_header(request.body, request.headers.get("stripe-signature"), secret, 300)


def stripe_sign(secret: str, request: Request, now_s: int) -> Headers:
    from stripe import WebhookSignature

    return {"stripe-signature": WebhookSignature.generate_signature_header(_text(request), secret, now_s)}


def stripe_thin(secret: str, request: Request) -> object:
    from stripe import StripeClient

    found = StripeClient("sk_test_1").parse_event_notification(request.body, request.headers.get("stripe-signature"), secret)
    return found is not None


def paddle_billing(secret: str, request: Request) -> object:
    from paddle_billing.Notifications import Secret, Verifier

    class Asked:
        body = request.body
        headers: Headers = {"Paddle-Signature": request.headers.get("paddle-signature", "")}  # noqa: RUF012 - read once

    return Verifier(5).verify(Asked(), Secret(secret))


def paddle_billing_sign(secret: str, request: Request, now_s: int) -> Headers:
    from paddle_billing.Notifications.PaddleSignature import PaddleSignature

    code = PaddleSignature.calculate_hmac(secret, b"%d:%s" % (now_s, request.body)).hexdigest()
    return {"paddle-signature": f"ts={now_s};h1={code}"}


def workos(secret: str, request: Request) -> object:
    from workos.webhooks._verification import verify_header

    return verify_header(
        event_body=request.body, event_signature=request.headers["workos-signature"], secret=secret, tolerance=180
    )


@cache
def _elevenlabs() -> Any:
    from elevenlabs.client import ElevenLabs

    return ElevenLabs(api_key="none").webhooks


def elevenlabs(secret: str, request: Request) -> object:
    return _elevenlabs().construct_event(_text(request), request.headers.get("elevenlabs-signature", ""), secret) is not None


# --- a MAC of the body, and of little more ------------------------------------------------------------------------------


def github(secret: str, request: Request) -> object:
    from gidgethub.sansio import validate_event

    return validate_event(request.body, signature=request.headers["x-hub-signature-256"], secret=secret)


def hub_signature(secret: str, request: Request) -> object:
    """X-Hub-Signature as WebSub has it: GitHub took it from there, and so did others."""
    from gidgethub.sansio import validate_event

    return validate_event(request.body, signature=request.headers["x-hub-signature"], secret=secret)


def meta(secret: str, request: Request) -> object:
    from pywa.utils import webhook_updates_validator

    return webhook_updates_validator(secret, request.body, request.headers["x-hub-signature-256"])


def square(secret: str, request: Request) -> object:
    from square.utils.webhooks_helper import verify_signature

    return verify_signature(
        request_body=_text(request),
        signature_header=request.headers["x-square-hmacsha256-signature"],
        signature_key=secret,
        notification_url=request.url,
    )


def adyen_platform(secret: str, request: Request) -> object:
    from Adyen.util import is_valid_hmac_payload

    return is_valid_hmac_payload(request.headers["hmacsignature"], secret, request.body)


def adyen_platform_sign(secret: str, request: Request, now_s: int) -> Headers:
    from Adyen.util import generate_payload_sig

    return {"hmacsignature": generate_payload_sig(request.body, secret).decode()}


def adyen_standard(secret: str, request: Request) -> object:
    from Adyen.util import is_valid_hmac_notification

    items = json.loads(request.body)["notificationItems"]
    return bool(items) and all(is_valid_hmac_notification(item["NotificationRequestItem"], secret) for item in items)


def razorpay(secret: str, request: Request) -> object:
    from razorpay.utility import Utility

    return Utility().verify_webhook_signature(_text(request), request.headers["x-razorpay-signature"], secret)


def gocardless(secret: str, request: Request) -> object:
    from gocardless_pro import webhooks

    return webhooks.parse(request.body, secret, request.headers["webhook-signature"]) is not None


def coinbase_commerce(secret: str, request: Request) -> object:
    from coinbase_commerce.webhook import WebhookSignature

    return WebhookSignature.verify_sig_header(_text(request), request.headers["x-cc-webhook-signature"], secret)


def slack(secret: str, request: Request) -> object:
    from slack_sdk.signature import SignatureVerifier

    return SignatureVerifier(secret).is_valid_request(request.body, request.headers)


def slack_sign(secret: str, request: Request, now_s: int) -> Headers:
    from slack_sdk.signature import SignatureVerifier

    code = SignatureVerifier(secret).generate_signature(timestamp=str(now_s), body=request.body)
    return {"x-slack-request-timestamp": str(now_s), "x-slack-signature": code or ""}


def hubspot(version: str) -> Any:
    def verify(secret: str, request: Request) -> object:
        from hubspot.utils.signature import Signature

        header = "x-hubspot-signature-v3" if version == "v3" else "x-hubspot-signature"
        return Signature.is_valid(
            request.headers[header],
            secret,
            _text(request),
            request.url,
            request.method,
            version,
            request.headers.get("x-hubspot-request-timestamp"),
        )

    return verify


def hubspot_sign(version: str) -> Any:
    def sign(secret: str, request: Request, now_s: int) -> Headers:
        from hubspot.utils.signature import Signature

        stamp = str(now_s * 1000)
        code = Signature.get_signature(secret, _text(request), version, request.url, request.method, stamp)
        if version == "v3":
            return {"x-hubspot-signature-v3": code, "x-hubspot-request-timestamp": stamp}
        return {"x-hubspot-signature": code}

    return sign


def airtable(secret: str, request: Request) -> object:
    from pyairtable.models.webhook import WebhookNotification

    return WebhookNotification.from_request(_text(request), request.headers["x-airtable-content-mac"], secret) is not None


def box(secret: str, request: Request) -> object:
    from box_sdk_gen.managers.webhooks import WebhooksManager

    return WebhooksManager.validate_message(_text(request), request.headers, secret)


def box_sign(secret: str, request: Request, now_s: int) -> Headers:
    """The other form: the body with what is not ASCII escaped, as the SDK tries it second."""
    from box_sdk_gen.internal.utils import compute_webhook_signature

    stamp = {"box-delivery-timestamp": datetime.fromtimestamp(now_s, UTC).isoformat()}
    code = compute_webhook_signature(_text(request), {**request.headers, **stamp}, secret, escape_body=True)
    return {**stamp, "box-signature-primary": code or ""}


def shopify(header: str) -> Any:
    def check(secret: str, request: Request) -> object:
        from verifyshopify.verify import verify

        return verify(data_bytes=request.body, shared_secret=secret.encode(), hmac_sha256=request.headers[header])

    return check


def linear(secret: str, request: Request) -> object:
    from linear_events import LinearDispatcher

    judge = LinearDispatcher(secret)
    judge._check_freshness(json.loads(request.body)["webhookTimestamp"])
    return judge.verify_signature(request.body, request.headers["linear-signature"])
