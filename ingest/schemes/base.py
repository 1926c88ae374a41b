"""What all schemes share: credentials in, a proof out, and how the signature and its time stand in a request."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ingest.fileform import Check, Stamp
from ingest.steps import Step, Unproven
from ingest.template import Scope, Template
from schemas.errors import SecretsUnavailable
from schemas.times import iso, ms_of

_MAX_CANDIDATES = 64
_NUMBER = re.compile(r"[0-9]{1,16}")
Fetched = Callable[[str], bytes | None]


def _nothing(_url: str) -> bytes | None:
    return None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a source has to check with.  `fetched` gives a vendor's published key that is at hand."""

    secrets: tuple[str, ...] = field(default=(), repr=False)
    public_keys: tuple[str, ...] = ()
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    fetched: Fetched = field(default=_nothing, repr=False)
    prepared: dict[Any, Any] = field(default_factory=dict, repr=False)

    def usable(self) -> tuple[str, ...]:
        """The secrets that are not blank.  Raises `SecretsUnavailable` where there is none."""
        found = self.prepared.get("usable")
        if found is None:
            found = tuple(secret for secret in self.secrets if secret.strip())
            self.prepared["usable"] = found
        if not found:
            raise SecretsUnavailable
        return found

    def keys(self, encoding: str) -> tuple[bytes, ...]:
        """The secrets as key bytes; one that cannot be decoded is none.  Raises `SecretsUnavailable` where none is left."""
        found = self.prepared.get(encoding)
        if found is None:
            decode = KEY_ENCODINGS[encoding]
            found = tuple(key for key in (_attempted(decode, secret) for secret in self.usable()) if key)
            self.prepared[encoding] = found
        if not found:
            raise SecretsUnavailable
        return found


@dataclass(slots=True)
class Proof:
    """What a check found out: the signed time, a token's claims, the named fields of the signature, the key that fitted.

    `opened` is the body with its sealed parts opened, where the vendor encrypts: it takes the body's place in the events.
    """

    signed_ms: int = 0
    claims: Mapping[str, Any] = field(default_factory=dict)
    signature: Mapping[str, str] = field(default_factory=dict)
    key: bytes = field(default=b"", repr=False)
    opened: bytes = field(default=b"", repr=False)


class Scheme(Protocol):
    """One way to prove where a request comes from."""

    def prove(self, scope: Scope, credentials: Credentials, now_ms: int) -> Proof:
        """Prove the request, or raise `Unproven` or `SecretsUnavailable`."""
        ...

    def sign(self, scope: Scope, credentials: Credentials, now_ms: int) -> dict[str, str]:
        """What the vendor would add to the request: texts by the template of their place."""
        ...

    def needs(self) -> str:
        """Which field of a source it checks with: `secrets`, `public_keys`, `password`, or nothing."""
        ...


def _attempted(decode: Callable[[str], bytes], secret: str) -> bytes:
    try:
        return decode(secret)
    except (ValueError, binascii.Error):
        return b""


def _base64(text: str) -> bytes:
    squeezed = text.strip()
    return b64decode(squeezed + "=" * (-len(squeezed) % 4), validate=True)


def _sha1(text: str) -> bytes:
    import hashlib

    return hashlib.sha1(text.encode(), usedforsecurity=False).digest()


def _unescaped(text: str) -> bytes:
    import html

    return html.unescape(text).encode()


KEY_ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "text": str.encode,
    "hex": lambda text: bytes.fromhex(text.strip()),
    "base64": _base64,
    "whsec": lambda text: _base64(text.strip().removeprefix("whsec_")),
    "whsec_or_text": lambda text: _base64(text.strip()[6:]) if text.strip().startswith("whsec_") else text.encode(),
    "unescaped_html": _unescaped,
    "sha1_of_text": _sha1,
}

ENCODINGS: dict[str, Callable[[bytes], str]] = {
    "hex": bytes.hex,
    "hex_any_case": bytes.hex,
    "base64": lambda raw: b64encode(raw).decode(),
    "base64url": lambda raw: urlsafe_b64encode(raw).rstrip(b"=").decode(),
}


def refuse_repeated(template: Template, scope: Scope) -> None:
    """Refuse a request that names a header of `template` twice: one of the two may be somebody else's."""
    for name in template.header_names(scope.options):
        if name in scope.request.repeated:
            raise Unproven(Step.SIGNATURE_REPEATED, f"the header {name} came more than once")


class Reader:
    """Reads candidates for a signature, and the named fields beside them, from where the provider's file says."""

    __slots__ = ("_fold", "_headers", "_optional", "_places", "_prefix", "_repeated", "_separator")

    def __init__(self, check: Check) -> None:
        self._places = [Template(place) for place in check.signature]
        self._headers = [name.lower() for place in self._places for name in place.headers]
        self._separator = check.separator
        self._prefix = Template(check.prefix)
        self._optional = check.prefix_optional
        self._repeated = check.repeated
        self._fold = check.encoding == "hex_any_case"

    def read(self, scope: Scope) -> tuple[list[bytes], dict[str, str]]:
        """The candidates and the named fields.  Raises `Unproven`."""
        prefix = self._prefix.text(scope)
        if prefix is None:
            raise Unproven(Step.SIGNATURE_MALFORMED, "the prefix of the signature depends on an option that is not set")
        candidates: list[str] = []
        fields: dict[str, str] = {}
        texts = self._texts(scope)
        for text in texts:
            if self._separator:
                self._split(text, prefix, candidates, fields)
            elif text.startswith(prefix):
                candidates.append(text[len(prefix) :])
            elif self._optional:
                candidates.append(text)
        if not texts:
            raise Unproven(Step.SIGNATURE_MISSING, f"no signature in {self.described()}")
        if not any(candidates):
            raise Unproven(Step.SIGNATURE_MALFORMED, f"{self.described()} has no signature of the form that is asked for")
        if len(candidates) > _MAX_CANDIDATES:
            raise Unproven(Step.SIGNATURE_MALFORMED, f"more than {_MAX_CANDIDATES} signatures")
        return [self._bytes(text) for text in candidates if text], fields

    def _texts(self, scope: Scope) -> list[str]:
        request = scope.request
        if request.repeated and not self._repeated:
            for place in self._places:
                refuse_repeated(place, scope)
        if self._repeated and request.repeated:
            return [value for name in self._headers for value in request.values(name) if value]
        return [text for text in (place.text(scope) for place in self._places) if text]

    def _split(self, text: str, prefix: str, candidates: list[str], fields: dict[str, str]) -> None:
        for index, raw_entry in enumerate(text.split(self._separator)):
            entry = raw_entry.strip()
            name, equals, value = entry.partition("=")
            if equals:
                fields[name] = "" if name in fields else value
            fields[str(index)] = entry
            if entry.startswith(prefix):
                candidates.append(entry[len(prefix) :])
            elif self._optional:
                candidates.append(entry)

    def _bytes(self, text: str) -> bytes:
        return (text.lower() if self._fold else text).encode("utf-8", "surrogatepass")

    def described(self) -> str:
        """The places, for the operator."""
        return " or ".join(place.source for place in self._places)

    def place(self) -> str:
        """Where our own signer puts the signature."""
        return self._places[0].source

    def prefix(self, scope: Scope) -> str:
        """The text before a signature."""
        return self._prefix.text(scope) or ""


class Clock:
    """Reads the signed time, and holds it against a tolerance both ways."""

    __slots__ = ("_template", "_tolerance_s", "unit")

    def __init__(self, stamp: Stamp) -> None:
        self._template = Template(stamp.value)
        self._tolerance_s = stamp.tolerance_s
        self.unit = stamp.unit

    @property
    def place(self) -> str:
        """Where the time stands."""
        return self._template.source

    def read(self, scope: Scope, now_ms: int) -> int:
        """The signed time in ms.  Raises `Unproven`."""
        if scope.request.repeated:
            refuse_repeated(self._template, scope)
        text = self._template.text(scope)
        if not text:
            raise Unproven(Step.TIMESTAMP_MISSING, f"no time in {self._template.source}")
        signed_ms = self._parsed(text)
        tolerance_s = scope.options.get("tolerance_s") or self._tolerance_s
        if tolerance_s:
            late_s = (now_ms - signed_ms) / 1000
            if late_s > tolerance_s:
                raise Unproven(Step.TIMESTAMP_STALE, f"signed {late_s:.0f} s ago; {tolerance_s:g} s are allowed")
            if late_s < -tolerance_s:
                raise Unproven(Step.TIMESTAMP_FUTURE, f"signed {-late_s:.0f} s in the future; {tolerance_s:g} s are allowed")
        return signed_ms

    def _parsed(self, text: str) -> int:
        try:
            if self.unit == "iso":
                return ms_of(text)
            if _NUMBER.fullmatch(text):
                return int(text) * (1000 if self.unit == "s" else 1)
        except (ValueError, OverflowError):
            pass
        raise Unproven(Step.TIMESTAMP_MALFORMED, f"the time in {self._template.source} is none (unit: {self.unit})")

    def written(self, now_ms: int) -> str:
        """Now, as the vendor writes it."""
        if self.unit == "iso":
            return iso(now_ms)
        return str(now_ms // 1000 if self.unit == "s" else now_ms)


def composed(check: Check, reader: Reader, clock: Clock | None, scope: Scope, *, signature: str, stamp: str) -> str:
    """The signature's header text as the vendor writes it."""
    entry = reader.prefix(scope) + signature
    if check.compose:
        return check.compose.replace("{signature}", signature).replace("{timestamp}", stamp)
    if clock is not None and clock.place.startswith("{sig:"):
        name = clock.place[5:-1]
        lead = stamp if name.isdigit() else f"{name}={stamp}"
        return f"{lead}{check.separator}{entry}"
    return entry
