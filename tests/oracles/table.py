"""Which SDK, or independent implementation, judges which provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from ingest.inbound import Request
from tests.oracles import drawn, sdks, sdks_inside

_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Oracle:
    """One judge.  `stricter`: mutants (as globs) that it takes and we refuse, each with a word of the note that says why."""

    provider: str
    package: str
    verify: Callable[[str, Request], object]
    sign: Callable[[str, Request, int], dict[str, str]] | None = None
    secrets: st.SearchStrategy[str] = drawn.ANY_SECRETS
    bodies: st.SearchStrategy[bytes] = field(default_factory=drawn.json_bodies)
    urls: st.SearchStrategy[str] = field(default_factory=lambda: st.just("https://hooks.example.com/in/a"))
    headers: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    content_type: str = _JSON
    key_pair: str = ""
    user: str = ""  # Basic credentials: this user, the secret being the password
    ours: bool = True
    stricter: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For the test's id."""
        return f"{self.provider}-{self.package}"


_THIN = {
    "id": "evt_1",
    "object": "v2.core.event",
    "type": "v1.billing.meter.error_report_triggered",
    "created": "2025-06-15T00:00:00Z",
    "livemode": False,
    "context": None,
    "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"},
}
_ADYEN_ITEM = {
    "pspReference": "7914073381342284", "merchantAccountCode": "TestMerchant", "merchantReference": "a:b\\c",
    "amount": {"currency": "EUR", "value": 1130}, "eventCode": "AUTHORISATION", "success": "true",
    "additionalData": {"hmacSignature": "x"},
}  # fmt: skip
_AIRTABLE = {"base": {"id": "app1"}, "webhook": {"id": "ach1"}, "timestamp": "2022-02-01T21:25:05.663Z"}
_SNS = {
    "Type": "Notification", "MessageId": "m-1", "TopicArn": "arn:aws:sns:us-east-1:1:t", "Message": "Hello", "Subject": "S",
    "Timestamp": "2025-06-15T15:06:40.000Z", "SignatureVersion": "1", "Signature": "x",
    "SigningCertURL": "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem",
}  # fmt: skip
_FUTURE = {"future by *": "future"}
_BASE64 = {
    f"signature, {name}": "base64" for name in ("one more", "twice", "NUL", "more padding", "quoted", "another character at *")
}
_STANDARD = {**_BASE64, "time, padded": "time"}
_BRAINTREE = "PG5vdGlmaWNhdGlvbj4KICA8dGltZXN0YW1wIHR5cGU9ImRhdGV0aW1lIj4yMDI1LTA2LTE1VDE1\nOjA2OjQwWjwvdGltZXN0YW1wPgogIDxraW5kPmNoZWNrPC9raW5kPgogIDxzdWJqZWN0PjxjaGVj\nayB0eXBlPSJib29sZWFuIj50cnVlPC9jaGVjaz48L3N1YmplY3Q+Cjwvbm90aWZpY2F0aW9uPgo=\n"


def _dropbox_sign() -> bytes:
    import json

    event = {"event_time": "1700000000", "event_type": "signature_request_sent", "event_hash": "x", "event_metadata": {}}
    return sdks_inside.as_form(json=json.dumps({"event": event}))


def _standard(provider: str, **changes: Any) -> Oracle:
    values = {"sign": sdks.standard_sign, "secrets": drawn.WHSEC_SECRETS, "stricter": _STANDARD, **changes}
    return Oracle(provider, "standardwebhooks", sdks.standard, **values)


def _svix(provider: str) -> Oracle:
    return Oracle(provider, "svix", sdks.svix, sdks.svix_sign, drawn.WHSEC_SECRETS, stricter=_STANDARD)


ORACLES = [
    _standard("standard_webhooks"),
    _standard("gitlab_signing"),
    _standard("render"),
    Oracle("bigcommerce", "standardwebhooks", sdks.bigcommerce, sdks.bigcommerce_sign, stricter=_STANDARD),
    _svix("svix"),
    _svix("clerk"),
    _svix("stytch"),
    Oracle("resend", "resend", sdks.resend, sdks.svix_sign, drawn.WHSEC_SECRETS),
    Oracle("openai", "openai", sdks.openai, sdks.standard_sign, drawn.WHSEC_SECRETS, stricter={"signature, without what stands before it": "v1"}),
    Oracle("anthropic", "anthropic", sdks.anthropic, sdks.standard_sign, drawn.WHSEC_SECRETS, stricter=_STANDARD),
    Oracle("replicate", "replicate", sdks.replicate, sdks.standard_sign, drawn.WHSEC_SECRETS, stricter=_BASE64),
    Oracle("stripe", "stripe", sdks.stripe, sdks.stripe_sign, stricter=_FUTURE),
    Oracle("stripe_connect", "stripe", sdks.stripe, sdks.stripe_sign, stricter=_FUTURE),
    Oracle("stripe_v2_thin", "stripe", sdks.stripe_thin, sdks.stripe_sign, bodies=drawn.json_bodies(_THIN), stricter=_FUTURE),
    Oracle("paddle_billing", "paddle-python-sdk", sdks.paddle_billing, sdks.paddle_billing_sign),
    Oracle("workos", "workos", sdks.workos),
    Oracle("elevenlabs", "elevenlabs", sdks.elevenlabs, stricter=_FUTURE),
    Oracle("github", "gidgethub", sdks.github),
    Oracle("meta", "pywa", sdks.meta, stricter={"signature, without what stands before it": "pywa"}),
    Oracle("square", "squareup", sdks.square, urls=drawn.URLS),
    Oracle("adyen_platform", "Adyen", sdks.adyen_platform, sdks.adyen_platform_sign, drawn.HEX_SECRETS),
    Oracle(
        "adyen_standard", "Adyen", sdks.adyen_standard, secrets=drawn.HEX_SECRETS,
        bodies=drawn.json_bodies({"live": "false", "notificationItems": [{"NotificationRequestItem": _ADYEN_ITEM}]}),
    ),
    Oracle("razorpay", "razorpay", sdks.razorpay),
    Oracle("gocardless", "gocardless-pro", sdks.gocardless, bodies=drawn.json_bodies({"events": []})),
    Oracle("coinbase_commerce", "coinbase-commerce", sdks.coinbase_commerce),
    Oracle("slack_events", "slack-sdk", sdks.slack, sdks.slack_sign),
    Oracle("slack_interactivity", "slack-sdk", sdks.slack, sdks.slack_sign, bodies=drawn.form_bodies({"payload": '{"type":"shortcut"}'}), content_type=_FORM),
    Oracle("slack_slash_command", "slack-sdk", sdks.slack, sdks.slack_sign, bodies=drawn.form_bodies({"command": "/nb"}), content_type=_FORM),
    Oracle("hubspot_v1", "hubspot-api-client", sdks.hubspot("v1"), sdks.hubspot_sign("v1")),
    Oracle("hubspot_v2", "hubspot-api-client", sdks.hubspot("v2"), sdks.hubspot_sign("v2"), urls=drawn.URLS),
    Oracle("hubspot_v3", "hubspot-api-client", sdks.hubspot("v3"), sdks.hubspot_sign("v3"), stricter=_FUTURE),
    Oracle("airtable", "pyairtable", sdks.airtable, secrets=drawn.BASE64_SECRETS, bodies=drawn.json_bodies(_AIRTABLE, ascii_only=True)),
    Oracle(
        "box", "box-sdk-gen", sdks.box, sdks.box_sign, bodies=drawn.PLAIN_BODIES,
        headers={"BOX-SIGNATURE-VERSION": "1", "BOX-SIGNATURE-ALGORITHM": "HmacSHA256", "BOX-DELIVERY-ID": "d-1"},
    ),
    Oracle("shopify", "verifyshopify", sdks.shopify("x-shopify-hmac-sha256"), stricter=_BASE64),
    Oracle("shopify_events", "verifyshopify", sdks.shopify("shopify-hmac-sha256"), stricter=_BASE64),
    Oracle("linear", "linear-events", sdks.linear, bodies=drawn.json_bodies({"webhookTimestamp": 1})),
    *(Oracle(name, "gidgethub", sdks.hub_signature) for name in ("bitbucket_cloud", "bitbucket_server", "jira", "confluence", "intercom")),
    Oracle("twilio_form", "twilio", sdks_inside.twilio_form, sdks_inside.twilio_form_sign, bodies=drawn.form_bodies({"CallSid": "CA1"}), urls=drawn.URLS, content_type=_FORM),
    Oracle("twilio_json", "twilio", sdks_inside.twilio_json, urls=drawn.URLS),
    Oracle("mailgun", "mailgun", sdks_inside.mailgun, bodies=drawn.json_bodies({"signature": {"timestamp": "1", "token": "tok", "signature": "x"}})),
    Oracle(
        "mandrill", "django-anymail", sdks_inside.mandrill, secrets=drawn.PLAIN_SECRETS,
        bodies=drawn.form_bodies({"mandrill_events": "[]"}), urls=drawn.URLS, content_type=_FORM,
    ),
    Oracle(
        "braintree", "braintree", sdks_inside.braintree, secrets=drawn.PLAIN_SECRETS, options={"public_key": "integration_public_key"},
        bodies=st.just(sdks_inside.as_form(bt_signature="integration_public_key|0", bt_payload=_BRAINTREE)), content_type=_FORM,
    ),
    Oracle(
        "vonage_sms_sig", "vonage-http-client", sdks_inside.vonage_sms, options={"method": "sha256"},
        bodies=drawn.form_bodies({"msisdn": "4477", "text": "a=b & c", "timestamp": "1577880000", "sig": "x"}), content_type=_FORM,
    ),
    Oracle("dropbox_sign", "dropbox-sign", sdks_inside.dropbox_sign, bodies=st.just(_dropbox_sign()), content_type=_FORM),
    Oracle("discord_interactions", "discord-interactions", sdks_inside.discord, key_pair="ed25519", stricter={"signature, upper case": "upper case"}),
    Oracle("discord_webhook_events", "discord-interactions", sdks_inside.discord, key_pair="ed25519", stricter={"signature, upper case": "upper case"}),
    Oracle("sendgrid_event", "sendgrid", sdks_inside.sendgrid, key_pair="p256", stricter=_BASE64),
    Oracle("sendgrid_inbound", "sendgrid", sdks_inside.sendgrid, key_pair="p256", bodies=drawn.form_bodies({"from": "a@b"}), content_type=_FORM, stricter=_BASE64),
    Oracle("paypal", "paypalrestsdk", sdks_inside.paypal, key_pair="rsa", options={"webhook_id": "WH-1"}, headers={"PAYPAL-AUTH-ALGO": "SHA256withRSA"}, stricter=_BASE64),
    Oracle("aws_sns", "aws-sns-message-validator", sdks_inside.aws_sns, key_pair="rsa", bodies=drawn.json_bodies(_SNS), options={"topic_arns": [_SNS["TopicArn"]]}, stricter=_BASE64),
    Oracle("vonage_jwt", "vonage-jwt", sdks_inside.vonage_jwt, secrets=drawn.PLAIN_SECRETS),
    Oracle("netlify", "PyJWT", sdks_inside.netlify, sdks_inside.netlify_sign, drawn.PLAIN_SECRETS),
    Oracle("monday", "PyJWT", sdks_inside.monday, sdks_inside.monday_sign, drawn.PLAIN_SECRETS, urls=drawn.URLS),
    Oracle(
        "atlassian_connect", "atlassian-jwt", sdks_inside.atlassian, sdks_inside.atlassian_sign, drawn.PLAIN_SECRETS, urls=drawn.URLS,
        options={"base_url": "https://hooks.example.com", "client_key": "client-key-1"},
    ),
    Oracle("plaid", "PyJWT", sdks_inside.plaid, sdks_inside.plaid_sign, key_pair="p256", ours=False),
    Oracle(
        "google_pubsub_push", "google-auth", sdks_inside.google, sdks_inside.google_sign, key_pair="rsa", ours=False,
        options={"service_account": "push@p.iam.gserviceaccount.com"},
    ),
]  # fmt: skip
