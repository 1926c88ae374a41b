"""Transforms of template references: `{/name|lower}`."""

from __future__ import annotations

import binascii
import hashlib
import hmac
import html
import re
import zlib
from base64 import b64decode, b64encode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote, unquote_plus, urlsplit

Plain = Callable[[Any], "str | bytes | None"]
Keyed = Callable[[Any, bytes], "str | bytes | None"]
_NOT_WORD = re.compile(r"[^0-9a-z]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ENCODED: dict[str, Callable[[bytes], str]] = {
    "hex": bytes.hex,
    "base64": lambda raw: b64encode(raw).decode(),
    "base64url": lambda raw: urlsafe_b64encode(raw).rstrip(b"=").decode(),
}  # fmt: skip


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


def _snake(text: str) -> str:
    return _NOT_WORD.sub("_", _CAMEL.sub("_", text).lower()).strip("_")


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _shortened(text: str, length: int) -> str:
    line = _squeezed(text)
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def _unbase64(value: Any) -> bytes | None:
    squeezed = b"".join(_raw(value).split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    try:
        return b64decode(squeezed + b"=" * (-len(squeezed) % 4), validate=True)
    except binascii.Error:
        return None


def _over_text(change: Callable[[str], str | None]) -> Callable[[str], tuple[Plain | None, Keyed | None]]:
    return lambda _: (lambda value: change(_text(value)), None)


def _with(change: Callable[[str, str], str | None]) -> Callable[[str], tuple[Plain | None, Keyed | None]]:
    def maker(argument: str) -> tuple[Plain | None, Keyed | None]:
        return (lambda value: change(_text(value), argument)), None

    return maker


def _of_bytes(change: Callable[[bytes], str | bytes]) -> Callable[[str], tuple[Plain | None, Keyed | None]]:
    return lambda _: (lambda value: change(_raw(value)), None)


def _mac(argument: str) -> tuple[Plain | None, Keyed | None]:
    algorithm, _, encoding = argument.partition(":")
    encode = _ENCODED[encoding or "hex"]
    if algorithm not in hashlib.algorithms_guaranteed:
        raise ValueError(f"|mac:{algorithm}: no such hash")
    return None, lambda value, key: encode(hmac.digest(key, _raw(value), algorithm))


TRANSFORMS: dict[str, Callable[[str], tuple[Plain | None, Keyed | None]]] = {
    # text
    "lower": _over_text(str.lower),
    "upper": _over_text(str.upper),
    "trim": _over_text(str.strip),
    "line": _over_text(_squeezed),
    "snake": _over_text(_snake),
    "host": _over_text(lambda text: urlsplit(text).hostname),
    "unquote": _over_text(unquote),
    "unquote_plus": _over_text(unquote_plus),
    "quote": _over_text(lambda text: quote(text, safe="")),
    "unescape_html": _over_text(html.unescape),
    "short": _with(lambda text, length: _shortened(text, int(length or 100))),
    "removeprefix": _with(str.removeprefix),
    "removesuffix": _with(str.removesuffix),
    "before": _with(lambda text, mark: text.partition(mark)[0]),
    "after": _with(lambda text, mark: text.partition(mark)[2]),
    "last": _with(lambda text, mark: text.rpartition(mark)[2]),
    "first_chars": _with(lambda text, length: text[: int(length)]),
    "replace": _with(lambda text, pair: text.replace(pair.partition(":")[0], pair.partition(":")[2])),
    # bytes
    "sha256": _of_bytes(lambda raw: hashlib.sha256(raw).hexdigest()),
    "sha1": _of_bytes(lambda raw: hashlib.sha1(raw, usedforsecurity=False).hexdigest()),
    "md5": _of_bytes(lambda raw: hashlib.md5(raw, usedforsecurity=False).hexdigest()),
    "crc32": _of_bytes(lambda raw: str(zlib.crc32(raw))),
    "hex": _of_bytes(bytes.hex),
    "base64": _of_bytes(_ENCODED["base64"]),
    "base64url": _of_bytes(_ENCODED["base64url"]),
    "unbase64": lambda _: (_unbase64, None),
    # with the source's newest secret, for answers that prove who we are: |mac:sha256:hex
    "mac": _mac,
}
