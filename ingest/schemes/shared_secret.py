"""A secret that the vendor sends along: in a header, the query, the body, or as Basic credentials.  It signs nothing."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode

from ingest.fileform import Check
from ingest.schemes.base import Credentials, Proof, Reader
from ingest.schemes.compare import same
from ingest.steps import Step, Unproven
from ingest.template import Scope
from schemas.errors import SecretsUnavailable


class SharedSecret:
    """The scheme `shared_secret`."""

    __slots__ = ("_check", "_is_basic", "_reader")

    def __init__(self, check: Check) -> None:
        if not check.signature:
            raise ValueError("scheme shared_secret takes signature: where the secret stands")
        self._is_basic = check.credentials == "basic"
        self._check = check
        self._reader = Reader(check)

    def needs(self) -> str:
        """A secret, or a user and a password."""
        return "password" if self._is_basic else "secrets"

    def prove(self, scope: Scope, credentials: Credentials, now_ms: int) -> Proof:
        """Prove the request: some candidate is some live secret."""
        del now_ms  # a shared secret has no time
        known = self._known(credentials)
        try:
            candidates, fields = self._reader.read(scope)
        except Unproven as exc:
            missing = exc.step is Step.SIGNATURE_MISSING
            step = Step.CREDENTIAL_MISSING if missing else exc.step
            raise Unproven(step, exc.reason.replace("signature", "credential")) from exc
        found = b""
        for candidate in candidates:
            given = _basic(candidate) if self._is_basic else candidate
            for secret in known:
                if same(given, secret):
                    found = secret
        if not found:
            raise Unproven(Step.CREDENTIAL_MISMATCH, f"the credential in {self._reader.described()} is none of this source")
        return Proof(signature=fields, key=b"" if self._is_basic else found)

    def _known(self, credentials: Credentials) -> tuple[bytes, ...]:
        if not self._is_basic:
            return credentials.keys("text")
        if not (credentials.password or "").strip():
            raise SecretsUnavailable
        return (f"{credentials.username or ''}:{credentials.password}".encode(),)

    def sign(self, scope: Scope, credentials: Credentials, now_ms: int) -> dict[str, str]:
        """The credential as the vendor sends it."""
        del now_ms
        known = self._known(credentials)[0]
        text = b64encode(known).decode() if self._is_basic else known.decode()
        return {self._reader.place(): self._reader.prefix(scope) + text}


def _basic(text: bytes) -> bytes:
    try:
        raw = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return raw if b64encode(raw) == text else b""
