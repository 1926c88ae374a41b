"""Which SDK for node, or which implementation in it, judges which provider."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tests.oracles import drawn, sdks_inside
from tests.oracles.node import signer, verifier
from tests.oracles.table import _ADYEN_ITEM as ADYEN_ITEM
from tests.oracles.table import _BRAINTREE as BRAINTREE
from tests.oracles.table import _FORM as FORM
from tests.oracles.table import _FUTURE as FUTURE
from tests.oracles.table import _SNS as SNS
from tests.oracles.table import _THIN as THIN
from tests.oracles.table import Oracle
from tests.oracles.table import _dropbox_sign as dropbox_sign

_SIGNERS = {
    "@octokit/webhooks-methods", "standardwebhooks", "svix", "stripe", "@workos-inc/node", "@adyen/api-library",
    "coinbase-commerce-node", "twilio, form", "@notionhq/client", "sign-payload", "@sanity/webhook", "@contentful/node-apps-toolkit", "atlassian-jwt",
}  # fmt: skip
_PACKAGES = {"n8n": "n8n-nodes-base", "nuxt": "nuxt-webhook-validators", "tern": "@hookflo/tern"}
# Written as JSON.stringify writes: these SDKs parse the body, write it anew and sign that.
WRITTEN_ANEW = st.text(alphabet=f"{drawn.PLAIN} é漢😀", max_size=20).map(
    lambda text: json.dumps({"event": text, "payload": {"n": 1}}, ensure_ascii=False, separators=(",", ":")).encode()
)
_ANEW = {"body, a newline more": "newline"}
_LOOSE = (
    "one more",
    "one less",
    "twice",
    "NUL",
    "non-ASCII",
    "more padding",
    "other alphabet",
    "without padding",
    "quoted",
    "with a space that takes no room",
)
BUFFERS = {
    f"signature, {name}": "base64" for name in (*_LOOSE, "another character at *")
}  # node's Buffer skips what is no base64
HEX = {f"signature, {name}": "hex" for name in ("NUL", "one more", "one less", "non-ASCII", "upper case", "quoted")}
_UNSET = {"secret, blank ''": "n8n"}
_ANY_AGE = {"stale by *": "stale", "future by *": "future"}
_SPELLED = {"time, padded": "spellings"}
_PADDED = {"time, padded": "padded"}


def _by(judge: str, provider: str, *, asked_with: dict[str, Any] | None = None, **changes: Any) -> Oracle:
    asked = asked_with or {}
    sign = signer(judge, **asked) if judge in _SIGNERS else None
    of = judge.partition(",")[0]
    return Oracle(provider, _PACKAGES.get(of, of), verifier(judge, **asked), **{"sign": sign, **changes})


ORACLES = [
    _by("@octokit/webhooks-methods", "github"),
    *(_by("standardwebhooks", name, secrets=drawn.WHSEC_SECRETS, stricter=_SPELLED) for name in ("standard_webhooks", "gitlab_signing", "render")),
    _by("standardwebhooks, text", "bigcommerce", stricter=_SPELLED),
    *(_by("svix", name, secrets=drawn.WHSEC_SECRETS, stricter=_SPELLED) for name in ("svix", "stytch")),
    _by("@clerk/backend", "clerk", sign=signer("svix"), secrets=drawn.WHSEC_SECRETS, ours=False, stricter=_SPELLED),
    _by("resend", "resend", sign=signer("svix"), secrets=drawn.WHSEC_SECRETS, stricter=_SPELLED),
    _by("openai", "openai", sign=signer("standardwebhooks"), secrets=drawn.WHSEC_SECRETS, stricter={**BUFFERS, "signature, without what stands before it": "v1"}),
    _by("@anthropic-ai/sdk", "anthropic", sign=signer("standardwebhooks"), secrets=drawn.WHSEC_SECRETS, stricter=_SPELLED),
    _by("replicate", "replicate", sign=signer("standardwebhooks"), secrets=drawn.WHSEC_SECRETS),
    *(_by("stripe", name, stricter=FUTURE) for name in ("stripe", "stripe_connect")),
    _by("stripe, thin", "stripe_v2_thin", sign=signer("stripe"), bodies=drawn.json_bodies(THIN), stricter=FUTURE),
    _by("@paddle/paddle-node-sdk", "paddle_billing", stricter=FUTURE),
    _by("@workos-inc/node", "workos", bodies=WRITTEN_ANEW, stricter={**_ANEW, **FUTURE}),
    _by("@elevenlabs/elevenlabs-js", "elevenlabs", stricter=FUTURE),
    _by("square", "square", urls=drawn.URLS),
    _by("@adyen/api-library", "adyen_platform", secrets=drawn.HEX_SECRETS, stricter=BUFFERS),
    _by("@adyen/api-library, item", "adyen_standard", secrets=drawn.HEX_SECRETS, bodies=drawn.json_bodies({"live": "false", "notificationItems": [{"NotificationRequestItem": ADYEN_ITEM}]}), stricter=BUFFERS),
    _by("braintree", "braintree", secrets=drawn.PLAIN_SECRETS, options={"public_key": "integration_public_key"}, bodies=st.just(sdks_inside.as_form(bt_signature="integration_public_key|0", bt_payload=BRAINTREE)), content_type=FORM, stricter={"signature, NUL": "NUL"}),
    _by("razorpay", "razorpay"),
    _by("chargebee", "chargebee", user="hook", secrets=drawn.PLAIN_SECRETS, stricter=BUFFERS),
    _by("gocardless-nodejs", "gocardless", bodies=drawn.json_bodies({"events": []}), stricter=HEX),
    _by("coinbase-commerce-node", "coinbase_commerce"),
    _by("@shopify/shopify-api", "shopify"),
    _by("@shopify/shopify-api", "shopify_events"),
    _by("@slack/bolt", "slack_events", stricter=FUTURE),
    _by("@slack/bolt", "slack_interactivity", bodies=drawn.form_bodies({"payload": '{"type":"shortcut"}'}), content_type=FORM, stricter=FUTURE),
    _by("@slack/bolt", "slack_slash_command", bodies=drawn.form_bodies({"command": "/nb"}), content_type=FORM, stricter=FUTURE),
    *(_by("discord-interactions", name, key_pair="ed25519", stricter=HEX) for name in ("discord_interactions", "discord_webhook_events")),
    _by("twilio, form", "twilio_form", bodies=drawn.form_bodies({"CallSid": "CA1"}), urls=drawn.URLS, content_type=FORM),
    _by("twilio, json", "twilio_json", urls=drawn.URLS),
    _by("@sendgrid/eventwebhook", "sendgrid_event", key_pair="p256", stricter=BUFFERS),
    _by("@vonage/jwt", "vonage_jwt", secrets=drawn.PLAIN_SECRETS, stricter={"signature, without what stands before it": "Bearer"}),
    _by("@zoom/rivet", "zoom", bodies=WRITTEN_ANEW, stricter={**_ANEW, **_PADDED}),
    _by("@twurple/eventsub-http", "twitch_eventsub", stricter={**HEX, **_ANY_AGE}),
    _by("twitter-autohook", "x"),
    _by("@hubspot/api-client, v1", "hubspot_v1"),
    _by("@hubspot/api-client, v2", "hubspot_v2", urls=drawn.URLS),
    _by("@hubspot/api-client, v3", "hubspot_v3", stricter=FUTURE),
    _by("atlassian-jwt", "atlassian_connect", secrets=drawn.PLAIN_SECRETS, urls=drawn.URLS, asked_with={"base_url": "https://hooks.example.com"}, options={"base_url": "https://hooks.example.com", "client_key": "client-key-1"}),
    _by("@linear/sdk", "linear", bodies=drawn.json_bodies({"webhookTimestamp": 1})),
    _by("@notionhq/client", "notion"),
    _by("@dropbox/sign", "dropbox_sign", bodies=st.just(dropbox_sign()), content_type=FORM),
    _by("box-node-sdk", "box", bodies=drawn.PLAIN_BODIES, headers={"BOX-SIGNATURE-VERSION": "1", "BOX-SIGNATURE-ALGORITHM": "HmacSHA256", "BOX-DELIVERY-ID": "d-1"}, stricter=BUFFERS),
    _by("sns-validator", "aws_sns", key_pair="rsa", asked_with={"certificate": drawn.certificate().decode()}, bodies=drawn.json_bodies(SNS), options={"topic_arns": [SNS["TopicArn"]]}, stricter=BUFFERS),
    _by("@contentful/node-apps-toolkit", "contentful", secrets=drawn.HEX_SECRETS, urls=drawn.URLS, bodies=drawn.json_bodies({"sys": {"type": "Entry", "id": "e1"}}), stricter={**FUTURE, **_PADDED}),
    _by("@sanity/webhook", "sanity"),
    _by("webflow-api", "webflow", stricter=_ANY_AGE),
    _by("sign-payload", "npm_hooks"),
    _by("tern, lemonsqueezy", "lemon_squeezy"),
    _by("tern, woocommerce", "woocommerce"),
    _by("tern, sentry", "sentry", bodies=WRITTEN_ANEW, stricter=_ANEW),
    _by("tern, grafana", "grafana_alerting"),
    _by("n8n, asana", "asana", stricter=_UNSET),
    _by("n8n, box", "box", bodies=drawn.PLAIN_BODIES, stricter=_UNSET),
    _by("n8n, cal", "cal_com", stricter=_UNSET),
    _by("n8n, calendly", "calendly", stricter={**_UNSET, "stale by a second": "180", "future by a second": "180"}),
    _by("n8n, clickup", "clickup", bodies=WRITTEN_ANEW, stricter=_ANEW),
    _by("n8n, figma", "figma", bodies=drawn.json_bodies({"passcode": "x"}), stricter=_UNSET),
    _by("n8n, gitlab", "gitlab_token", stricter=_UNSET),
    _by("n8n, helpscout", "helpscout"),
    _by("n8n, linear", "linear", bodies=drawn.json_bodies({"webhookTimestamp": 1}), stricter=_UNSET),
    _by("n8n, netlify", "netlify", secrets=drawn.PLAIN_SECRETS, stricter=_UNSET),
    _by("n8n, trello", "trello", urls=drawn.URLS, stricter=_UNSET),
    _by("n8n, typeform", "typeform", stricter=_UNSET),
    _by("n8n, webflow", "webflow"),
    _by("n8n, zendesk", "zendesk", stricter=_UNSET),
    _by("nuxt, bitbucket", "bitbucket_cloud"),
    _by("nuxt, docusign", "docusign"),
    _by("nuxt, dropbox", "dropbox"),
    _by("nuxt, gitlab", "gitlab_token", secrets=drawn.PLAIN_SECRETS),
    _by("nuxt, heroku", "heroku"),
    _by("nuxt, meta", "meta"),
    _by("nuxt, vercel", "vercel"),
]  # fmt: skip
