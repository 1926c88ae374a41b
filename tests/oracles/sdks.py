"""How each vendor's SDK is asked: `verify` by the SDK's own function, `sign` where it has one for tests.

A `verify` refuses by raising or by giving False; everything else is a yes.  SDKs are imported where they are asked, since some
take seconds to load.  Headers come in lower case, as a Request has them; the SDKs get them by the names that they look for.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

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
    judge._check_freshness(json.loads(request.body)["webhookTimestamp"])  # noqa: SLF001 - its public way is a web server's
    return judge.verify_signature(request.body, request.headers["linear-signature"])


# --- forms, and codes inside the body ------------------------------------------------------------------------------------


def _form(request: Request) -> dict[str, str]:
    return dict(request.form())


def twilio_form(secret: str, request: Request) -> object:
    from twilio.request_validator import RequestValidator

    return RequestValidator(secret).validate(request.url, _form(request), request.headers["x-twilio-signature"])


def twilio_form_sign(secret: str, request: Request, now_s: int) -> Headers:
    from twilio.request_validator import RequestValidator

    return {"x-twilio-signature": RequestValidator(secret).compute_signature(request.url, _form(request))}


def twilio_json(secret: str, request: Request) -> object:
    from twilio.request_validator import RequestValidator

    return RequestValidator(secret).validate(request.url, _text(request), request.headers["x-twilio-signature"])


def mailgun(secret: str, request: Request) -> object:
    from mailgun.security import SecurityGuard

    found = json.loads(request.body)["signature"]
    return SecurityGuard.verify_webhook(secret, found["token"], found["timestamp"], found["signature"], 0)


@cache
def _django() -> Any:
    from django.conf import settings
    from django.test import RequestFactory

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="none")  # noqa: S106 - no secret of ours
    return RequestFactory()


def mandrill(secret: str, request: Request) -> object:
    asked = _django().post(
        "/",
        data=request.body,
        content_type=request.content_type,
        headers={"X-Mandrill-Signature": request.headers["x-mandrill-signature"]},
    )
    from anymail.webhooks.mandrill import MandrillSignatureMixin

    class View(MandrillSignatureMixin):
        esp_name = "Mandrill"

    return View(webhook_key=secret, webhook_url=request.url).validate_request(asked)


def braintree(secret: str, request: Request) -> object:
    from braintree import BraintreeGateway, Configuration, Environment

    form = _form(request)
    gateway = BraintreeGateway(Configuration(Environment.Sandbox, "merchant", "integration_public_key", secret))
    return gateway.webhook_notification.parse(form["bt_signature"], form["bt_payload"]) is not None


def vonage_sms(secret: str, request: Request) -> object:
    from vonage_http_client.auth import Auth

    return Auth(api_key="k", signature_secret=secret, signature_method="sha256").check_signature(_form(request))


def dropbox_sign(secret: str, request: Request) -> object:
    from dropbox_sign import EventCallbackHelper
    from dropbox_sign.models import EventCallbackRequest

    return EventCallbackHelper.is_valid(secret, EventCallbackRequest.init(json.loads(_form(request)["json"])))


# --- public keys ---------------------------------------------------------------------------------------------------------


def discord(public_key: str, request: Request) -> object:
    from discord_interactions import verify_key

    return verify_key(
        request.body, request.headers["x-signature-ed25519"], request.headers["x-signature-timestamp"], public_key
    )


def sendgrid(public_key: str, request: Request) -> object:
    from sendgrid.helpers.eventwebhook import EventWebhook

    head = "x-twilio-email-event-webhook"
    return EventWebhook(public_key).verify_signature(
        _text(request), request.headers[f"{head}-signature"], request.headers[f"{head}-timestamp"]
    )


def paypal(public_key: str, request: Request) -> object:
    """The SDK's signed text; its `verify` fetches the certificate, and pins a chain that has expired."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from paypalrestsdk.notifications import WebhookEvent

    told = {name: request.headers[f"paypal-{name}"] for name in ("transmission-id", "transmission-time", "transmission-sig")}
    if request.headers["paypal-auth-algo"] != "SHA256withRSA":
        return False
    text = WebhookEvent._get_expected_sig(told["transmission-id"], told["transmission-time"], "WH-1", _text(request))  # noqa: SLF001 - the one part of the SDK that works alone
    key: Any = load_pem_public_key(public_key.encode())
    return key.verify(b64decode(told["transmission-sig"], validate=True), text.encode(), PKCS1v15(), SHA256())


def aws_sns(public_key: str, request: Request) -> object:
    from sns_message_validator import SNSMessageValidator

    from tests.oracles import drawn

    if public_key != drawn.key_pair("rsa")[1]:
        return False

    class Published:
        content = drawn.certificate()

        def get(self, _url: str) -> Published:
            return self

    judge = SNSMessageValidator()
    judge._cert_session = Published()  # noqa: SLF001 - it would fetch the certificate
    return judge.validate_message(json.loads(request.body))


# --- tokens --------------------------------------------------------------------------------------------------------------


def _sha256(body: bytes) -> str:
    import hashlib

    return hashlib.sha256(body).hexdigest()


def _bearer(request: Request) -> str:
    scheme, _, token = request.headers["authorization"].partition(" ")
    if scheme != "Bearer":
        raise ValueError(scheme)
    return token


def vonage_jwt(secret: str, request: Request) -> object:
    """The SDK proves the token alone; that the token speaks of this body is for its caller to check, as Vonage describes."""
    import jwt
    from vonage_jwt import verify_signature

    token = _bearer(request)
    claims = jwt.decode(token, options={"verify_signature": False})
    return verify_signature(token, secret) and claims["payload_hash"] == _sha256(request.body) and claims["iss"] == "Vonage"


def netlify(secret: str, request: Request) -> object:
    import jwt

    claims = jwt.decode(request.headers["x-webhook-signature"], secret, algorithms=["HS256"], issuer="netlify")
    return claims["sha256"] == _sha256(request.body)


def netlify_sign(secret: str, request: Request, now_s: int) -> Headers:
    import jwt

    claims = {"iss": "netlify", "sha256": _sha256(request.body)}
    return {"x-webhook-signature": jwt.encode(claims, secret, algorithm="HS256")}


def monday(secret: str, request: Request) -> object:
    import jwt

    token = request.headers["authorization"].removeprefix("Bearer ")
    return jwt.decode(token, secret, algorithms=["HS256"], audience=request.url) is not None


def monday_sign(secret: str, request: Request, now_s: int) -> Headers:
    import jwt

    claims = {"aud": request.url, "iat": now_s, "exp": now_s + 300, "accountId": 1, "userId": 2}
    return {"authorization": jwt.encode(claims, secret, algorithm="HS256")}


def atlassian(secret: str, request: Request) -> object:
    import atlassian_jwt

    class Tenants(atlassian_jwt.Authenticator):
        def get_shared_secret(self, client_key: str) -> str:
            return secret if client_key == "client-key-1" else ""

    below = request.url.removeprefix("https://hooks.example.com:8443").removeprefix("https://hooks.example.com")
    return Tenants().authenticate(request.method, below, request.headers) is not None


def atlassian_sign(secret: str, request: Request, now_s: int) -> Headers:
    import atlassian_jwt

    below = request.url.removeprefix("https://hooks.example.com:8443").removeprefix("https://hooks.example.com")
    claims = {"iat": now_s, "exp": now_s + 180}
    token = atlassian_jwt.encode_token(request.method, below, "client-key-1", secret, payload_kwargs=claims)
    return {"authorization": f"JWT {token}"}


def plaid(public_key: str, request: Request) -> object:
    """Plaid's page on webhook verification, by the library that it names."""
    import time

    import jwt
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    key: Any = load_der_public_key(b64decode(public_key))
    claims = jwt.decode(request.headers["plaid-verification"], key, algorithms=["ES256"])
    return claims["request_body_sha256"] == _sha256(request.body) and abs(time.time() - claims["iat"]) <= 300  # noqa: PLR2004


def plaid_sign(private_key: str, request: Request, now_s: int) -> Headers:
    import jwt

    claims = {"iat": now_s, "request_body_sha256": _sha256(request.body)}
    return {"plaid-verification": jwt.encode(claims, private_key, algorithm="ES256", headers={"kid": "k1"})}


def google(public_key: str, request: Request) -> object:
    from google.oauth2 import id_token

    class Published:
        status = 200
        data = json.dumps({"k1": public_key}).encode()

    claims = id_token.verify_oauth2_token(_bearer(request), lambda *_, **__: Published(), audience=request.url)
    return claims["email"] == "push@p.iam.gserviceaccount.com" and claims["email_verified"] is True


def google_sign(private_key: str, request: Request, now_s: int) -> Headers:
    import jwt

    claims = {
        "iss": "https://accounts.google.com",
        "aud": request.url,
        "iat": now_s,
        "exp": now_s + 3600,
        "email": "push@p.iam.gserviceaccount.com",
        "email_verified": True,
    }
    return {"authorization": "Bearer " + jwt.encode(claims, private_key, algorithm="RS256", headers={"kid": "k1"})}


def as_form(**fields: str) -> bytes:
    """A urlencoded body."""
    return urlencode(fields).encode()
