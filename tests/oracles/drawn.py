"""What the oracles are asked about: secrets, keys and bodies as their vendors have them, drawn at random."""

from __future__ import annotations

import json
import string
from base64 import b64encode
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import strategies as st

TEXTS = st.text(max_size=12)
PLAIN = string.ascii_letters + string.digits + "-_"
PLAIN_SECRETS = st.text(alphabet=PLAIN, min_size=32, max_size=48)
ANY_SECRETS = st.text(alphabet=PLAIN + "$!/+= ü", min_size=4, max_size=40).map(lambda text: f"s{text}e")
# Not all zeros: HMAC pads keys with zeros, so that such a key is the same as an empty one.
HEX_SECRETS = st.binary(min_size=32, max_size=32).filter(any).map(bytes.hex)
BASE64_SECRETS = st.binary(min_size=24, max_size=64).filter(any).map(lambda raw: b64encode(raw).decode())
WHSEC_SECRETS = BASE64_SECRETS.map(lambda text: f"whsec_{text}")

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=15),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def json_bodies(draw: st.DrawFn, base: dict[str, Any] | None = None, *, ascii_only: bool = False) -> bytes:
    """A JSON object, written as this or that vendor writes: spaced or not, non-ASCII characters escaped or not."""
    document = {"id": draw(TEXTS), **draw(st.dictionaries(TEXTS, JSONS, max_size=3)), **(base or {})}
    spaced = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    return json.dumps(document, ensure_ascii=ascii_only or draw(st.booleans()), separators=spaced).encode()


@st.composite
def form_bodies(draw: st.DrawFn, base: dict[str, str] | None = None) -> bytes:
    """A urlencoded form; no name twice."""
    names = st.text(alphabet=string.ascii_letters + "_", min_size=1, max_size=10)
    return urlencode({**draw(st.dictionaries(names, TEXTS, max_size=5)), **(base or {})}).encode()


PLAIN_BODIES = st.text(alphabet=f"{PLAIN} é漢😀", max_size=20).map(
    lambda text: json.dumps({"source": text}, ensure_ascii=False).encode()
)

URLS = st.builds(
    lambda host, path, query: f"https://{host}/{path}{query}",
    st.sampled_from(["hooks.example.com", "hooks.example.com:8443"]),
    st.sampled_from(["", "in/a", "in/a/", "in/caf%C3%A9"]),
    st.sampled_from(["", "?x=1", "?b=2&a=%20y&a=z", "?u=https%3A%2F%2Fa.example%2Fb"]),
)


@cache
def key_pair(kind: str) -> tuple[str, str]:
    """A private key (PEM), and its public key in the form that the vendor shows it."""
    private = {
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }[kind]()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    public = private.public_key()
    if kind == "ed25519":
        return pem, public.public_bytes_raw().hex()
    if kind == "p256":
        der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return pem, b64encode(der).decode()
    return pem, public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


@cache
def certificate() -> bytes:
    """A certificate of the RSA key, in its own name."""
    private = serialization.load_pem_private_key(key_pair("rsa")[0].encode(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    start = datetime(2020, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, private.public_key(), 1, start, start.replace(year=2040))
    return builder.sign(private, SHA256()).public_bytes(serialization.Encoding.PEM)
