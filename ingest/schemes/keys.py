"""Public keys as vendors show them, and what they verify."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, urlsafe_b64decode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from ingest.steps import Step, Unproven

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey
Verifier = Callable[[Any, bytes, bytes], None]

_HEX_KEY = re.compile(r"[0-9a-fA-F]{64}")
_RAW_BYTES = 32
_COORDINATE = 32
_MIN_RSA_BITS = 1024


def public_key(text: str) -> PublicKey:
    """The key in `text`: PEM (key or certificate), a JWK, 64 hex digits, base64 of a raw or DER key.  Raises ValueError."""
    stripped = text.strip()
    try:
        if stripped.startswith("-----BEGIN CERTIFICATE"):
            return _accepted(x509.load_pem_x509_certificate(stripped.encode()).public_key())
        if stripped.startswith("-----BEGIN"):
            return _accepted(serialization.load_pem_public_key(stripped.encode()))
        if stripped.startswith("{"):
            return jwk(orjson.loads(stripped))
        if _HEX_KEY.fullmatch(stripped):
            return ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(stripped))
        raw = b64decode("".join(stripped.removeprefix("whpk_").split()), validate=True)
        if len(raw) == _RAW_BYTES:
            return ed25519.Ed25519PublicKey.from_public_bytes(raw)
        return _accepted(serialization.load_der_public_key(raw))
    except (binascii.Error, UnsupportedAlgorithm, KeyError, TypeError) as exc:
        raise ValueError("no public key in a form that is known") from exc


def _accepted(key: Any) -> PublicKey:
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        raise ValueError("an RSA key of less than 1024 bits")
    if isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        return key
    raise ValueError("a key of a kind that no scheme uses")


def jwk(found: Mapping[str, Any]) -> PublicKey:
    """The key of a JSON Web Key.  Raises ValueError or KeyError."""
    kind = found["kty"]
    if kind == "RSA":
        return _accepted(rsa.RSAPublicNumbers(_number(found["e"]), _number(found["n"])).public_key())
    if kind == "EC" and found.get("crv") == "P-256":
        return ec.EllipticCurvePublicNumbers(_number(found["x"]), _number(found["y"]), ec.SECP256R1()).public_key()
    if kind == "OKP" and found.get("crv") == "Ed25519":
        return ed25519.Ed25519PublicKey.from_public_bytes(_bytes(found["x"]))
    raise ValueError("a JWK of a kind that no scheme uses")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _number(text: str) -> int:
    return int.from_bytes(_bytes(text), "big")


def kid_of(text: str) -> str:
    """The key id of a configured JWK; empty for other forms."""
    if not text.lstrip().startswith("{"):
        return ""
    try:
        return str(orjson.loads(text).get("kid", ""))
    except orjson.JSONDecodeError:
        return ""


def certificate_key(pem: bytes, *, now_ms: int, common_name: str) -> PublicKey:
    """The key of a certificate that is valid now, and whose common name ends as it must.  Raises `Unproven`."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        now = datetime.fromtimestamp(now_ms / 1000, UTC)
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise Unproven(Step.KEY_UNKNOWN, "the vendor's certificate is not valid at this time")
        names = [str(name.value) for name in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
        if common_name and not any(name == common_name.lstrip(".") or name.endswith(common_name) for name in names):
            raise Unproven(Step.KEY_UNKNOWN, "the certificate is not the vendor's")
        return _accepted(certificate.public_key())
    except ValueError as exc:
        raise Unproven(Step.KEY_UNKNOWN, "what the key's address gave is no certificate") from exc


def jwks_keys(document: bytes) -> list[tuple[str, PublicKey]]:
    """The keys of a JWKS with their ids, those of unknown kinds left out; of Google's PEM map too."""
    try:
        found = orjson.loads(document)
    except orjson.JSONDecodeError:
        return []
    if not isinstance(found, dict):
        return []
    entries = found.get("keys")
    if entries is None:
        entries = [found.get("key", found)]
    keys = []
    for entry in entries if isinstance(entries, list) else []:
        try:
            keys.append((str(entry.get("kid", "")), jwk(entry)))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return keys


def _ed25519(key: Any, signature: bytes, signed: bytes) -> None:
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise InvalidSignature
    key.verify(signature, signed)


def _ecdsa(key: Any, signature: bytes, signed: bytes) -> None:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidSignature
    key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))


def _ecdsa_raw(key: Any, signature: bytes, signed: bytes) -> None:
    if len(signature) != 2 * _COORDINATE:
        raise InvalidSignature
    r, s = int.from_bytes(signature[:_COORDINATE], "big"), int.from_bytes(signature[_COORDINATE:], "big")
    _ecdsa(key, encode_dss_signature(r, s), signed)


def _rsa(algorithm: hashes.HashAlgorithm) -> Verifier:
    def verifier(key: Any, signature: bytes, signed: bytes) -> None:
        if not isinstance(key, rsa.RSAPublicKey):
            raise InvalidSignature
        key.verify(signature, signed, padding.PKCS1v15(), algorithm)

    return verifier


VERIFIERS: dict[str, Verifier] = {
    "ed25519": _ed25519,
    "ecdsa_p256_sha256": _ecdsa,
    "rsa_sha256": _rsa(hashes.SHA256()),
    "rsa_sha1": _rsa(hashes.SHA1()),  # noqa: S303 - SNS version 1 and Paddle Classic sign with it; the files that use it say so
}
TOKEN_VERIFIERS: dict[str, Verifier] = {
    "RS256": _rsa(hashes.SHA256()),
    "RS384": _rsa(hashes.SHA384()),
    "RS512": _rsa(hashes.SHA512()),
    "ES256": _ecdsa_raw,
    "EdDSA": _ed25519,
}


def verifies(verifier: Verifier, keys: list[PublicKey], signature: bytes, signed: bytes) -> bool:
    """Whether one of `keys` made `signature` over `signed`."""
    for key in keys:
        try:
            verifier(key, signature, signed)
        except (InvalidSignature, ValueError):
            continue
        return True
    return False


def private_signature(algorithm: str, private: str, signed: bytes) -> bytes:
    """A signature by a private key (PEM, or hex or base64 of an Ed25519 seed): for `nightbell send` and for tests."""
    key: Any = _private(private.strip())
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(signed)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(signed, ec.ECDSA(hashes.SHA256()))
    digest = hashes.SHA1() if algorithm == "rsa_sha1" else hashes.SHA256()  # noqa: S303 - as above
    return bytes(key.sign(signed, padding.PKCS1v15(), digest))


def _private(text: str) -> Any:
    if text.startswith("-----BEGIN"):
        return serialization.load_pem_private_key(text.encode(), None)
    if _HEX_KEY.fullmatch(text):
        return ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text))
    return ed25519.Ed25519PrivateKey.from_private_bytes(b64decode(text.removeprefix("whsk_"))[:_RAW_BYTES])
