"""The public keys that a request may be checked with: the source's own, the file's, or the vendor's by address."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import orjson

from ingest.fileform import Check, KeySource
from ingest.schemes.base import Credentials
from ingest.schemes.keys import PublicKey, certificate_key, jwks_keys, kid_of, public_key
from ingest.steps import KeyNeeded, Step, Unproven
from ingest.template import Scope, Template
from schemas.errors import SecretsUnavailable

_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}")


class KeyRing:
    """Finds public keys."""

    __slots__ = ("_fixed", "_path", "_post", "_source", "_url")

    def __init__(self, check: Check) -> None:
        self._fixed = [public_key(text) for text in check.keys]
        self._source = check.keys_from
        self._url = Template(check.keys_from.url) if check.keys_from else None
        self._post = {name: Template(text) for name, text in check.keys_from.post.items()} if check.keys_from else {}
        self._path = re.compile(check.keys_from.path) if check.keys_from and check.keys_from.path else None

    @property
    def is_configured(self) -> bool:
        """Whether the source itself must have the keys."""
        return not self._fixed and self._source is None

    def find(self, scope: Scope, credentials: Credentials, now_ms: int, *, kid: str = "") -> list[PublicKey]:
        """The keys.  Raises `KeyNeeded` where they must be fetched, `Unproven` where that address may not be."""
        own = _own(credentials)
        if own:
            named = [key for name, key in own if not kid or not name or name == kid]
            if not named:
                raise Unproven(Step.KEY_UNKNOWN, "the token names a key that this source does not have")
            return named
        if self._fixed:
            return self._fixed
        if self._source is None:
            raise SecretsUnavailable("this source has no public key")
        return self._published(self._source, scope, credentials, now_ms, kid=kid)

    def _published(
        self, source: KeySource, scope: Scope, credentials: Credentials, now_ms: int, *, kid: str
    ) -> list[PublicKey]:
        assert self._url is not None
        name = self._url.text(scope)
        if not name:
            raise Unproven(Step.KEY_UNKNOWN, "the request does not name the key that it was signed with")
        url = name.partition("#")[0] if self._post else name
        if not is_vendors(url, source.hosts, self._path):
            raise Unproven(Step.KEY_ADDRESS, "the request names a key at an address that is not the vendor's")
        document = credentials.fetched(name)
        if document is None:
            raise KeyNeeded(url, name=name, posted=self._posted(scope, credentials))
        if source.form == "certificate":
            return [certificate_key(document, now_ms=now_ms, common_name=source.common_name)]
        if source.form == "pem":
            return [_published_pem(document)]
        named = [key for name, key in jwks_keys(document) if not kid or name == kid]
        if not named:
            raise Unproven(Step.KEY_UNKNOWN, "the token names a key that the vendor does not publish")
        return named

    def _posted(self, scope: Scope, credentials: Credentials) -> bytes:
        """What is posted to the vendor's address.  Raises `SecretsUnavailable` where the source lacks a part of it."""
        if not self._post:
            return b""
        scope.key = credentials.usable()[0].encode()
        found = {name: template.text(scope) for name, template in self._post.items()}
        if None in found.values():
            raise SecretsUnavailable("an option that the vendor's key is asked for with is not set")
        return orjson.dumps(found)


def _own(credentials: Credentials) -> list[tuple[str, PublicKey]]:
    found = credentials.prepared.get("public_keys")
    if found is None:
        found = [(kid_of(text), _readable(text)) for text in credentials.public_keys if text.strip()]
        credentials.prepared["public_keys"] = found
    return found


def is_vendors(url: str, hosts: tuple[str, ...], path: re.Pattern[str] | None) -> bool:
    """Whether `url` is https on port 443 of one of `hosts`, plain in all its parts, and of that path."""
    try:
        split = urlsplit(url)
    except ValueError:
        return False
    # The authority is a lower-case host name and nothing else: no user, no port, no address, no trick of a parser.
    is_plain = url.isascii() and url.isprintable() and not any(mark in url for mark in "@\\# ")
    if split.scheme != "https" or not is_plain or not _HOST.fullmatch(split.netloc):
        return False
    return any(_is_host(split.netloc, allowed) for allowed in hosts) and (
        path is None or path.fullmatch(split.path) is not None
    )


def _is_host(host: str, allowed: str) -> bool:
    if allowed.startswith("^"):
        return re.fullmatch(allowed, host) is not None
    return host.endswith(allowed) if allowed.startswith(".") else host == allowed


def _readable(text: str) -> PublicKey:
    try:
        return public_key(text)
    except ValueError as exc:
        raise SecretsUnavailable("a public key of this source is in no form that is known") from exc


def _published_pem(document: bytes) -> PublicKey:
    try:
        return public_key(document.decode("ascii", "replace"))
    except ValueError as exc:
        raise Unproven(Step.KEY_UNKNOWN, "what the key's address gave is no public key") from exc
