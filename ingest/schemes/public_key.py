"""Signatures by the vendor's private key: Ed25519, ECDSA P-256, RSA PKCS #1 v1.5."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode

from ingest.fileform import Check
from ingest.schemes.base import Clock, Credentials, Proof, Reader, composed
from ingest.schemes.key_source import KeyRing
from ingest.schemes.keys import VERIFIERS, private_signature, verifies
from ingest.steps import Step, Unproven
from ingest.template import Scope, Template


class PublicKeySignature:
    """The scheme `public_key`."""

    __slots__ = ("_check", "_clock", "_reader", "_ring", "_signed", "_verifier")

    def __init__(self, check: Check) -> None:
        if check.algorithm not in VERIFIERS:
            raise ValueError(f"algorithm: {check.algorithm!r} is none of {', '.join(VERIFIERS)}")
        if check.encoding not in {"hex", "base64"}:
            raise ValueError("encoding: public_key takes hex or base64")
        self._check = check
        self._reader = Reader(check)
        self._clock = Clock(check.time) if check.time else None
        self._signed = [Template(text) for text in check.signed]
        self._verifier = VERIFIERS[check.algorithm]
        self._ring = KeyRing(check)

    def needs(self) -> str:
        """Public keys, unless the vendor publishes them."""
        return "public_keys" if self._ring.is_configured else ""

    def prove(self, scope: Scope, credentials: Credentials, now_ms: int) -> Proof:
        """Prove the request."""
        candidates, fields = self._reader.read(scope)
        scope.signature = fields
        signed_ms = self._clock.read(scope, now_ms) if self._clock else 0
        signatures = [raw for raw in (self._decoded(text) for text in candidates) if raw]
        if not signatures:
            raise Unproven(Step.SIGNATURE_MALFORMED, f"the signature is no {self._check.encoding}")
        keys = self._ring.find(scope, credentials, now_ms)
        texts = [text for text in (template.raw(scope) for template in self._signed) if text is not None]
        if not texts:
            raise Unproven(Step.SIGNED_PART_MISSING, f"a part of {self._signed[0].source} is not in the request")
        for signature in signatures:
            if any(verifies(self._verifier, keys, signature, text) for text in texts):
                return Proof(signed_ms=signed_ms, signature=fields)
        raise Unproven(Step.SIGNATURE_MISMATCH, "wrong public key, or the body is not the one that was signed")

    def _decoded(self, text: bytes) -> bytes:
        """The signature's bytes, if it is written exactly as the vendor writes it; none otherwise."""
        try:
            if self._check.encoding == "hex":
                raw = bytes.fromhex(text.decode("ascii"))
                return raw if raw.hex().encode() == text else b""
            raw = b64decode(text, validate=True)
            return raw if b64encode(raw) == text else b""
        except (ValueError, binascii.Error):
            return b""

    def sign(self, scope: Scope, credentials: Credentials, now_ms: int) -> dict[str, str]:
        """The signature by the private key that stands first among the secrets."""
        placed: dict[str, str] = {}
        stamp = ""
        if self._clock:
            stamp = self._clock.written(now_ms)
            placed[self._clock.place] = stamp
            name = self._clock.place.removeprefix("{header:").removesuffix("}").lower()
            scope.request.headers[name] = stamp
        text = self._signed[0].raw(scope)
        if text is None:
            raise ValueError(f"a part of {self._signed[0].source} is not in the request")
        raw = private_signature(self._check.algorithm, credentials.usable()[0], text)
        written = raw.hex() if self._check.encoding == "hex" else b64encode(raw).decode()
        placed[self._reader.place()] = composed(self._check, self._reader, self._clock, scope, signature=written, stamp=stamp)
        return placed
