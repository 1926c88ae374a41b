"""Message authentication codes over a template of parts: HMAC, or the plain hash of a text that holds the secret."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from functools import lru_cache

from ingest.fileform import Check
from ingest.schemes.base import ENCODINGS, Clock, Credentials, Proof, Reader, composed
from ingest.schemes.compare import same
from ingest.steps import Step, Unproven
from ingest.template import Scope, Template
from schemas.errors import SecretsUnavailable

Encode = Callable[[bytes], str]
ALGORITHMS = {"md5", "sha1", "sha256", "sha384", "sha512"}


class Mac:
    """The scheme `mac`."""

    __slots__ = ("_algorithm", "_check", "_clock", "_encoding", "_is_hash", "_key", "_option", "_reader", "_signed")

    def __init__(self, check: Check) -> None:
        self._option = check.algorithm[1:] if check.algorithm.startswith("$") else ""
        self._algorithm = check.algorithm
        if not self._option and check.algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm: {check.algorithm!r} is none of {', '.join(sorted(ALGORITHMS))}")
        if not check.signature or not check.signed:
            raise ValueError("scheme mac takes signature and signed")
        if (check.key == "fixed") != bool(check.fixed_key):
            raise ValueError('fixed_key goes with key = "fixed"')
        self._check = check
        self._reader = Reader(check)
        self._clock = Clock(check.time) if check.time else None
        self._signed = [text[1:] if text.startswith("$") else Template(text) for text in check.signed]
        self._encoding = check.encoding
        if check.encoding not in ENCODINGS and not check.encoding.startswith("$"):
            raise ValueError(f"encoding: {check.encoding!r} is none of {', '.join(ENCODINGS)}")
        self._is_hash = check.construction == "hash"
        self._key = check.key

    def needs(self) -> str:
        """Secrets, unless the key is a fixed one."""
        return "" if self._key == "fixed" else "secrets"

    def keys(self, credentials: Credentials) -> tuple[bytes, ...]:
        """The keys, newest first."""
        return (self._check.fixed_key.encode(),) if self._key == "fixed" else credentials.keys(self._key)

    def prove(self, scope: Scope, credentials: Credentials, now_ms: int) -> Proof:
        """Prove the request.  All candidates are compared with all keys' codes."""
        keys = self.keys(credentials)
        candidates, fields = self._reader.read(scope)
        scope.signature = fields
        signed_ms = self._clock.read(scope, now_ms) if self._clock else 0
        algorithm = self._algorithm_of(scope)
        encode = self._encoder(scope)
        found: bytes | None = None
        is_complete = False
        for signed in self._signed:
            template = signed if signed.__class__ is Template else _of_option(scope, str(signed))
            for key in keys:
                code = self._code(template, scope, key, algorithm, encode)
                if code is None:
                    break
                is_complete = True
                for candidate in candidates:
                    if same(candidate, code):
                        found = key
        if not is_complete:
            raise Unproven(Step.SIGNED_PART_MISSING, f"a part of {self._check.signed[0]} is not in the request")
        if found is None:
            raise Unproven(Step.SIGNATURE_MISMATCH, "wrong secret, or the body (or URL) is not the one that was signed")
        return Proof(signed_ms=signed_ms, signature=fields, key=found)

    def _code(self, template: Template, scope: Scope, key: bytes, algorithm: str, encode: Encode) -> bytes | None:
        scope.key = key
        text = template.raw(scope)
        if text is None:
            return None
        raw = (
            hashlib.new(algorithm, text, usedforsecurity=False).digest() if self._is_hash else hmac.digest(key, text, algorithm)
        )
        return encode(raw).encode()

    def _algorithm_of(self, scope: Scope) -> str:
        if not self._option:
            return self._algorithm
        algorithm = str(scope.options.get(self._option, ""))
        if algorithm not in ALGORITHMS:
            raise SecretsUnavailable(f"the option {self._option} names no algorithm")
        return algorithm

    def _encoder(self, scope: Scope) -> Encode:
        named = self._encoding
        if named.startswith("$"):
            named = str(scope.options.get(named[1:], ""))
        try:
            return ENCODINGS[named]
        except KeyError as exc:
            raise SecretsUnavailable("the option for the encoding names none") from exc

    def sign(self, scope: Scope, credentials: Credentials, now_ms: int) -> dict[str, str]:
        """The signature's text, and the time where it stands apart."""
        placed: dict[str, str] = {}
        stamp = ""
        if self._clock:
            stamp = self._clock.written(now_ms)
            place = self._clock.place
            if place.startswith("{sig:"):
                scope.signature = {place[5:-1]: stamp}
            else:
                placed[place] = stamp
                scope.request.headers[_header_of(place, scope)] = stamp
        key = self.keys(credentials)[0]
        signed = self._signed[0]
        template = signed if isinstance(signed, Template) else _of_option(scope, signed)
        code = self._code(template, scope, key, self._algorithm_of(scope), self._encoder(scope))
        if code is None:
            raise ValueError(f"a part of {template.source} is not in the request")
        text = composed(self._check, self._reader, self._clock, scope, signature=code.decode(), stamp=stamp)
        placed[self._reader.place()] = text
        return placed


def _of_option(scope: Scope, name: str) -> Template:
    """The template that a source's option writes.  Raises `SecretsUnavailable` where it is none: nothing can be checked."""
    try:
        return _compiled(str(scope.options[name]))
    except (KeyError, ValueError) as exc:
        raise SecretsUnavailable(f"the option {name} holds no template") from exc


@lru_cache(maxsize=256)
def _compiled(source: str) -> Template:
    return Template(source)


def _header_of(place: str, scope: Scope) -> str:
    return next(iter(Template(place).header_names(scope.options)), "")
