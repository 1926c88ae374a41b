"""As sdks: SDKs of vendors whose codes stand in forms or in the body, who sign with a private key, or send tokens."""

from __future__ import annotations

import json
from base64 import b64decode
from functools import cache
from typing import Any
from urllib.parse import urlencode

from ingest.inbound import Request
from tests.oracles import drawn

Headers = dict[str, str]


def _text(request: Request) -> str:
    return request.body.decode()


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
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="none")
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
    text = WebhookEvent._get_expected_sig(told["transmission-id"], told["transmission-time"], "WH-1", _text(request))
    key: Any = load_pem_public_key(public_key.encode())
    return key.verify(b64decode(told["transmission-sig"], validate=True), text.encode(), PKCS1v15(), SHA256())


def aws_sns(public_key: str, request: Request) -> object:
    from sns_message_validator import SNSMessageValidator

    if public_key != drawn.key_pair("rsa")[1]:
        return False

    class Published:
        content = drawn.certificate()

        def get(self, _url: str) -> Published:
            return self

    judge = SNSMessageValidator()
    judge._cert_session = Published()
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
    return claims["request_body_sha256"] == _sha256(request.body) and abs(time.time() - claims["iat"]) <= 300


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
