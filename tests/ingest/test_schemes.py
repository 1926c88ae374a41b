"""Schemes beyond the HMAC of a body: keys by reference, tokens, items, secrets that arrive."""

from __future__ import annotations

import hmac
import time
from base64 import b64encode

import orjson
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ingest.inbound import Reply, Request
from ingest.receive import receive
from ingest.schemes.key_source import is_vendors
from ingest.steps import KeyNeeded, Step, Unproven
from schemas.errors import BadSignature, SecretsUnavailable
from tests.fakes.provider_forms import MAC, provider, source

NOW_MS = 1_750_000_000_000
TRACE = "00-t"


def post(body: bytes, *headers: tuple[str, str], url: str = "https://h/in/src", method: str = "POST") -> Request:
    return Request(method, url, [("Content-Type", "application/json"), *headers], body)


def taken(request: Request, made, now_ms: int = NOW_MS):
    return receive(request, made, now_ms, traceparent=TRACE)


@pytest.mark.parametrize(
    ("url", "is_good"),
    [
        ("https://api.paypal.com/certs/a", True),
        ("https://api.sandbox.paypal.com/certs/a", True),
        ("http://api.paypal.com/certs/a", False),
        ("https://paypal.com.evil.example/certs/a", False),
        ("https://evilpaypal.com/certs/a", False),
        ("https://api.paypal.com@evil.example/certs/a", False),
        ("https://user@api.paypal.com/certs/a", False),
        ("https://api.paypal.com:8443/certs/a", False),
        ("https://api.paypal.com/other/a", False),
        ("https://api.paypal.com/certs/a#x", False),
        ("https://api.paypal.com\\@evil.example/certs/a", False),
        ("https://.paypal.com/certs/a", False),
        ("https://127.0.0.1/certs/a", False),
        ("https://API.PAYPAL.COM/certs/a", False),
        ("https://api.paypal.com/certs/a b", False),
        ("https://[::1/certs/a", False),
        ("", False),
    ],
)
def test_only_the_vendors_own_address_may_name_a_key(url: str, is_good: bool):
    import re

    assert is_vendors(url, (".paypal.com",), re.compile("/certs/.*")) is is_good


KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
BY_ADDRESS = provider(
    '[[verify]]\nscheme = "public_key"\nalgorithm = "rsa_sha256"\nencoding = "base64"\nsignature = "{header:X-Sig}"\nsigned = "{body}"\n'
    '[verify.keys_from]\nurl = "{header:X-Key}"\nhosts = ["keys.example.com"]\nform = "pem"\n'
)


def rsa_signed(body: bytes, url: str) -> Request:
    code = b64encode(KEY.sign(body, padding.PKCS1v15(), hashes.SHA256())).decode()
    return post(body, ("X-Sig", code), ("X-Key", url))


def test_a_key_that_is_not_at_hand_is_asked_for_and_then_used():
    request = rsa_signed(b'{"type":"x"}', "https://keys.example.com/1")

    with pytest.raises(KeyNeeded) as caught:
        taken(request, source(BY_ADDRESS))
    got = taken(request, source(BY_ADDRESS, fetched={caught.value.url: PEM.encode()}.get))

    assert got[0][0].type == "made.x"


def test_a_key_at_another_address_is_never_asked_for():
    with pytest.raises(Unproven) as caught:
        taken(rsa_signed(b"{}", "https://keys.example.com.evil/1"), source(BY_ADDRESS))

    assert caught.value.step is Step.KEY_ADDRESS


def test_a_key_of_the_sources_own_comes_before_any_address():
    got = taken(rsa_signed(b'{"type":"x"}', "https://evil.example/1"), source(BY_ADDRESS, public_keys=[PEM]))

    assert got[0][0].type == "made.x"


BY_POST = provider(
    '[options.client_id]\nhelp = "ours"\n[[verify]]\nscheme = "public_key"\nalgorithm = "rsa_sha256"\nencoding = "base64"\n'
    'signature = "{header:X-Sig}"\nsigned = "{body}"\n'
    '[verify.keys_from]\nurl = "https://keys.example.com/get#{header:X-Key}"\nhosts = ["keys.example.com"]\nform = "pem"\n'
    'post = { id = "{option:client_id}", secret = "{secret}", key = "{header:X-Key}" }\n'
)


def test_a_key_that_is_asked_for_with_a_secret_is_kept_under_its_own_name():
    request = rsa_signed(b'{"type":"x"}', "k-1")
    given = {"secrets": ["s3cret"], "options": {"client_id": "c-1"}}

    with pytest.raises(KeyNeeded) as caught:
        taken(request, source(BY_POST, **given))
    got = taken(request, source(BY_POST, fetched={caught.value.name: PEM.encode()}.get, **given))

    assert caught.value.url == "https://keys.example.com/get"
    assert caught.value.name == "https://keys.example.com/get#k-1"
    assert orjson.loads(caught.value.posted) == {"id": "c-1", "secret": "s3cret", "key": "k-1"}
    assert b"s3cret" not in repr(caught.value).encode()
    assert got[0][0].type == "made.x"


@pytest.mark.parametrize("given", [{}, {"secrets": ["s3cret"]}, {"options": {"client_id": "c-1"}}])
def test_a_key_is_not_asked_for_with_half_of_what_it_takes(given: dict[str, object]):
    with pytest.raises(SecretsUnavailable) as caught:
        taken(rsa_signed(b"{}", "k-1"), source(BY_POST, **given))

    assert not isinstance(caught.value, KeyNeeded)


ITEMS = provider(
    '[[verify]]\nscheme = "mac"\nalgorithm = "sha256"\neach = "/items/*"\nsignature = "{/sig}"\nsigned = "{/id}:{/amount?}"\n',
    event='type = "x"\nbatch = "/items/*"',
)


def item(identifier: str, *, secret: str = "s") -> dict[str, str]:
    return {"id": identifier, "amount": "5", "sig": hmac.new(secret.encode(), f"{identifier}:5".encode(), "sha256").hexdigest()}


def test_every_item_must_prove():
    good = post(orjson.dumps({"items": [item("a"), item("b")]}))
    half = post(orjson.dumps({"items": [item("a"), item("b", secret="other")]}))
    none = post(b'{"items":[]}')

    assert len(taken(good, source(ITEMS, secrets=["s"]))) == 2
    for bad in (half, none, post(b"{}")):
        with pytest.raises(BadSignature):
            taken(bad, source(ITEMS, secrets=["s"]))


BRINGS = provider(
    MAC,
    '[[handshake]]\nname = "secret"\nsigned = false\nwhen = [{value = "{header:X-Hook-Secret}", present = true}]\n'
    'keep_secret = "{header:X-Hook-Secret}"\nheaders = {X-Hook-Secret = "{header:X-Hook-Secret}"}\n',
)


def test_a_secret_that_arrives_is_kept_only_while_there_is_none():
    request = post(b"", ("X-Hook-Secret", "brought"))

    got = taken(request, source(BRINGS))

    assert isinstance(got, Reply)
    assert (got.status, got.kept_secret, got.headers) == (200, "brought", {"X-Hook-Secret": "brought"})
    with pytest.raises(Unproven):
        taken(request, source(BRINGS, secrets=["mine"]))


def test_a_challenge_cannot_smuggle_headers():
    from schemas.errors import MalformedRequest

    with pytest.raises(MalformedRequest):
        taken(post(b"", ("X-Hook-Secret", "a\r\nSet-Cookie: b")), source(BRINGS))


ASKED = provider(
    MAC,
    '[[handshake]]\nname = "subscribe"\nmethods = ["GET"]\nsigned = false\nwhen = [{value = "{query:hub.mode}", equals = "subscribe"}]\n'
    'require = [{value = "{query:hub.verify_token}", equals = "{option:verify_token}"}]\nbody = "{query:hub.challenge}"\n',
    '[options.verify_token]\nhelp = "x"\n',
)


def test_a_subscription_is_confirmed_only_with_our_token():
    def get(token: str) -> Request:
        return post(b"", url=f"https://h/in/src?hub.mode=subscribe&hub.verify_token={token}&hub.challenge=77", method="GET")

    made = source(ASKED, secrets=["s"], options={"verify_token": "mine"})

    assert taken(get("mine"), made).body == b"77"
    assert taken(get("theirs"), made).status == 403
    assert taken(get("mine"), source(ASKED, secrets=["s"])).status == 403


PINNED = provider(
    MAC + 'require = [{value = "{/account}", equals = "{option:accounts}"}]\n',
    '[options.accounts]\ntype = "list"\nhelp = "x"\n',
)


def test_an_account_that_is_not_pinned_is_refused_though_it_is_authentic():
    def request(account: str) -> Request:
        body = orjson.dumps({"account": account})
        return post(body, ("X-Sig", hmac.new(b"s", body, "sha256").hexdigest()))

    made = source(PINNED, secrets=["s"], options={"accounts": ["a", "b"]})

    assert len(taken(request("b"), made)) == 1
    for bad, at in [
        (request("c"), made),
        (request("b"), source(PINNED, secrets=["s"])),
        (request("b"), source(PINNED, secrets=["s"], options={"accounts": []})),
    ]:
        with pytest.raises(Unproven) as caught:
            taken(bad, at)
        assert caught.value.step is Step.REQUIREMENT


def test_a_check_that_breaks_accepts_nothing():
    made = source(provider(MAC), secrets=["s"])
    made.provider.checks[0].scheme = BrokenScheme()

    with pytest.raises(SecretsUnavailable):
        taken(post(b"{}", ("X-Sig", "00")), made)


class BrokenScheme:
    def prove(self, *_: object) -> None:
        raise ZeroDivisionError


def test_five_thousand_signatures_cost_no_more_than_a_few():
    made = source(provider(MAC.replace("signed =", 'separator = ","\nsigned =')), secrets=["s"] * 10)
    request = post(b"x" * 100_000, ("X-Sig", ",".join(["0" * 64] * 5000)))

    started = time.process_time()
    with pytest.raises(BadSignature):
        taken(request, made)

    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("kid", ["../evil", "a@evil.example", "x?y=1", "", "key%2f..%2fother", "key\n"])
def test_a_key_id_cannot_lead_to_another_address(kid: str):
    import json
    from base64 import urlsafe_b64encode

    made = provider(
        '[[verify]]\nscheme = "identity_token"\nalgorithm = "RS256"\nsignature = "{header:Authorization}"\n'
        'keys_from = {url = "https://keys.example.com/{sig:kid|quote}", hosts = ["keys.example.com"], path = "/[0-9A-Za-z_-]+", form = "pem"}\n'
    )
    parts = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "RS256", "kid": kid}, {"iss": "x"})]
    token = b".".join([*parts, b"AAAA"]).decode()

    with pytest.raises(Unproven) as caught:
        taken(post(b"{}", ("Authorization", token)), source(made))

    assert caught.value.step == Step.KEY_ADDRESS
