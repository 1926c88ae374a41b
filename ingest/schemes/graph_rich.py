"""Microsoft Graph's notifications with resource data: tokens say who sends, and each item is sealed for the source's key.

The source's secrets are its clientState and the private key (PEM) of the certificate that it gave when subscribing.
"""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode
from typing import Any, NamedTuple

import orjson
from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import padding as asymmetric
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ingest.fileform import Check
from ingest.schemes.base import Credentials, Proof
from ingest.schemes.compare import same
from ingest.schemes.identity_token import IdentityToken
from ingest.steps import Step, Unproven
from ingest.template import Scope
from schemas.errors import SecretsUnavailable

_MAX_ITEMS = 1000
_IV_BYTES = 16
_OAEP = asymmetric.OAEP(mgf=asymmetric.MGF1(hashes.SHA1()), algorithm=hashes.SHA1(), label=None)  # noqa: S303 - what Graph seals with


class Known(NamedTuple):
    """The source's secrets, told apart."""

    states: tuple[bytes, ...]
    keys: tuple[rsa.RSAPrivateKey, ...]


class GraphRich:
    """The scheme `graph_rich`."""

    __slots__ = ("_token",)

    def __init__(self, check: Check) -> None:
        self._token = IdentityToken(check)

    def needs(self) -> str:
        """Secrets: the clientState and the private key; Microsoft publishes the keys of its tokens."""
        return "secrets"

    def prove(self, scope: Scope, credentials: Credentials, now_ms: int) -> Proof:
        """Prove one token, and every item: its clientState and its seal.  The proof holds the body with the items opened."""
        known = _told_apart(credentials)
        proof = self._token.prove(scope, credentials, now_ms)
        document = scope.request.document()
        items = document.get("value") if isinstance(document, dict) else None
        if not isinstance(items, list) or not items or len(items) > _MAX_ITEMS:
            raise Unproven(Step.ITEMS_MISSING, "nothing lies at /value, or too much")
        proof.opened = orjson.dumps({"value": [_opened(item, known) for item in items]})
        return proof

    def sign(self, scope: Scope, credentials: Credentials, now_ms: int) -> dict[str, str]:
        """Nothing: only Microsoft can sign its tokens."""
        return self._token.sign(scope, credentials, now_ms)


def _told_apart(credentials: Credentials) -> Known:
    found = credentials.prepared.get("graph_rich")
    if found is None:
        pems = [secret.strip() for secret in credentials.usable() if secret.strip().startswith("-----BEGIN")]
        states = tuple(secret.encode() for secret in credentials.usable() if secret.strip() not in pems)
        keys = tuple(key for key in map(_private, pems) if isinstance(key, rsa.RSAPrivateKey))
        found = credentials.prepared["graph_rich"] = Known(states, keys)
    if not found.states or not found.keys:
        raise SecretsUnavailable("the secrets must hold the clientState and the private key of the certificate")
    return Known(*found)


def _private(pem: str) -> Any:
    try:
        return serialization.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError) as exc:
        raise SecretsUnavailable("the private key is no PEM without a passphrase") from exc


def _opened(item: Any, known: Known) -> dict[str, Any]:
    """The item, with what was sealed in it as `content`."""
    state = item.get("clientState") if isinstance(item, dict) else None
    if not isinstance(state, str) or not any(same(state.encode("utf-8", "replace"), one) for one in known.states):
        raise Unproven(Step.CREDENTIAL_MISMATCH, "the clientState of an item is not this source's")
    sealed = item.get("encryptedContent")
    if not isinstance(sealed, dict):
        raise Unproven(Step.SIGNATURE_MISSING, "an item holds no encryptedContent: it is not bound to this source")
    left = {name: value for name, value in item.items() if name not in {"encryptedContent", "clientState"}}
    return {**left, "content": _unsealed(sealed, known.keys)}


def _unsealed(sealed: dict[str, Any], keys: tuple[rsa.RSAPrivateKey, ...]) -> Any:
    data, signature, wrapped = (_raw(sealed.get(name)) for name in ("data", "dataSignature", "dataKey"))
    for private in keys:
        try:
            key = private.decrypt(wrapped, _OAEP)
        except ValueError:
            continue
        if hmac.compare_digest(hmac.digest(key, data, "sha256"), signature):
            return _decrypted(key, data)
    raise Unproven(Step.SIGNATURE_MISMATCH, "no private key of this source opens an item, or its dataSignature is wrong")


def _decrypted(key: bytes, data: bytes) -> Any:
    try:
        machine = Cipher(algorithms.AES(key), modes.CBC(key[:_IV_BYTES])).decryptor()
        unpadder = padding.PKCS7(128).unpadder()
        padded = machine.update(data) + machine.finalize()
        return orjson.loads(unpadder.update(padded) + unpadder.finalize())
    except ValueError as exc:
        raise Unproven(Step.SIGNATURE_MALFORMED, "what an item seals cannot be read") from exc


def _raw(text: Any) -> bytes:
    try:
        return b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        return b""
