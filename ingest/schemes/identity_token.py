"""Identity tokens: a JWS whose claims say who sends, and sometimes the digest of what."""

from __future__ import annotations

import binascii
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from ingest.fileform import Check
from ingest.schemes.base import Credentials, Proof, Reader
from ingest.schemes.compare import same
from ingest.schemes.key_source import KeyRing
from ingest.schemes.keys import TOKEN_VERIFIERS, verifies
from ingest.steps import Step, Unproven
from ingest.template import Scope, Template

_HASHES = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
_PARTS = 3


class Token(NamedTuple):
    """A compact JWS, taken apart; nothing in it is believed yet."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes


class IdentityToken:
    """The scheme `identity_token`."""

    __slots__ = ("_audience", "_check", "_issuers", "_reader", "_ring")

    def __init__(self, check: Check) -> None:
        if check.algorithm not in {*_HASHES, *TOKEN_VERIFIERS}:
            raise ValueError(f"algorithm: {check.algorithm!r} is none of {', '.join([*_HASHES, *TOKEN_VERIFIERS])}")
        if not check.signature:
            raise ValueError("scheme identity_token takes signature: where the token stands")
        self._check = check
        self._reader = Reader(check)
        self._issuers = [Template(text) for text in check.issuers]
        self._audience = [Template(text) for text in check.audience]
        self._ring = KeyRing(check)

    def needs(self) -> str:
        """A secret for HS…; public keys otherwise, unless the vendor publishes them."""
        if self._check.algorithm in _HASHES:
            return "secrets"
        return "public_keys" if self._ring.is_configured else ""

    def prove(self, scope: Scope, credentials: Credentials, now_ms: int) -> Proof:
        """Prove the token, then what it claims."""
        algorithm = self._check.algorithm
        keys = credentials.keys(self._check.key) if algorithm in _HASHES else ()
        candidates, fields = self._reader.read(scope)
        token = taken_apart(candidates[0])
        if token.header.get("alg") != algorithm or "crit" in token.header:
            raise Unproven(Step.TOKEN_ALGORITHM, f"the token is not signed with {algorithm}")
        key = self._signing_key(token, scope, credentials, now_ms, keys)
        self._hold(token.claims, scope, now_ms)
        scope.claims = token.claims
        return Proof(signed_ms=_milliseconds(token.claims.get("iat")), claims=token.claims, signature=fields, key=key)

    def _signing_key(self, token: Token, scope: Scope, credentials: Credentials, now_ms: int, keys: tuple[bytes, ...]) -> bytes:
        algorithm = self._check.algorithm
        found = b""
        if algorithm in _HASHES:
            for key in keys:
                if same(hmac.digest(key, token.signed, _HASHES[algorithm]), token.signature):
                    found = key
            if found:
                return found
        else:
            kid = str(token.header.get("kid") or "")
            scope.signature = {"kid": kid}  # not believed: an address made of it must still be the vendor's
            public = self._ring.find(scope, credentials, now_ms, kid=kid)
            if verifies(TOKEN_VERIFIERS[algorithm], public, token.signature, token.signed):
                return b""
        raise Unproven(Step.SIGNATURE_MISMATCH, "wrong secret or key, or the token was changed")

    def _hold(self, claims: Mapping[str, Any], scope: Scope, now_ms: int) -> None:
        now_s, leeway_s = now_ms / 1000, self._check.leeway_s
        expires, begins, issued = (_number(claims, name) for name in ("exp", "nbf", "iat"))
        if (expires is None and self._check.expires) or (expires is not None and now_s >= expires + leeway_s):
            raise Unproven(Step.TOKEN_EXPIRED, "the token has expired, or does not say when it does")
        if begins is not None and now_s < begins - leeway_s:
            raise Unproven(Step.TIMESTAMP_FUTURE, "the token is not valid yet")
        max_age_s = scope.options.get("tolerance_s") or self._check.max_age_s
        if max_age_s and (issued is None or now_s - issued > max_age_s):
            raise Unproven(Step.TIMESTAMP_STALE, f"the token is older than {max_age_s:g} s, or does not say how old it is")
        if max_age_s and issued is not None and issued - now_s > max_age_s:
            raise Unproven(Step.TIMESTAMP_FUTURE, "the token was issued in the future")
        self._hold_names(claims, scope)

    def _hold_names(self, claims: Mapping[str, Any], scope: Scope) -> None:
        if self._issuers and claims.get("iss") not in _texts(self._issuers, scope):
            raise Unproven(Step.TOKEN_CLAIM, "the token is another issuer's")
        if self._audience:
            wanted = _texts(self._audience, scope)
            given = claims.get("aud")
            listed = given if isinstance(given, list) else [given]
            if not any(isinstance(one, str) and one in wanted for one in listed):
                raise Unproven(Step.TOKEN_CLAIM, "the token is for another audience")

    def sign(self, scope: Scope, credentials: Credentials, now_ms: int) -> dict[str, str]:
        """A token with the claims that the file requires: HS… only, since nobody but the vendor has its private key."""
        if self._check.algorithm not in _HASHES:
            raise ValueError("only the vendor can sign this token")
        claims: dict[str, Any] = {"iat": now_ms // 1000, "exp": now_ms // 1000 + 300}
        if self._issuers:
            claims["iss"] = self._issuers[0].text(scope)
        if self._audience:
            claims["aud"] = self._audience[0].text(scope)
        for rule in self._check.require:
            if rule.value.startswith("{claim:"):
                claims[rule.value[7:].rstrip("}")] = Template(rule.equals).text(scope)
        head = _written({"alg": self._check.algorithm, "typ": "JWT"}) + b"." + _written(claims)
        code = hmac.digest(credentials.keys(self._check.key)[0], head, _HASHES[self._check.algorithm])
        token = (head + b"." + urlsafe_b64encode(code).rstrip(b"=")).decode()
        return {self._reader.place(): self._reader.prefix(scope) + token}


def taken_apart(text: bytes) -> Token:
    """The parts of a compact JWS.  Raises `Unproven`."""
    parts = text.split(b".")
    if len(parts) == _PARTS:
        try:
            header, claims = orjson.loads(_decoded(parts[0])), orjson.loads(_decoded(parts[1]))
            signature = _decoded(parts[2])
        except (ValueError, binascii.Error) as exc:
            raise Unproven(Step.TOKEN_MALFORMED, "the credential is no compact JWS") from exc
        if isinstance(header, dict) and isinstance(claims, dict):
            return Token(header, claims, parts[0] + b"." + parts[1], signature)
    raise Unproven(Step.TOKEN_MALFORMED, "the credential is no compact JWS")


def _decoded(part: bytes) -> bytes:
    raw = urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    if urlsafe_b64encode(raw).rstrip(b"=") != part:
        raise ValueError("no base64url as it must be written")
    return raw


def _written(value: Mapping[str, Any]) -> bytes:
    return urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=")


def _texts(templates: list[Template], scope: Scope) -> set[str]:
    return {text for text in (template.text(scope) for template in templates) if text}


def _number(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unproven(Step.TOKEN_MALFORMED, f"the claim {name} is no time")
    return float(value)


def _milliseconds(issued: Any) -> int:
    return int(issued * 1000) if isinstance(issued, int | float) else 0
