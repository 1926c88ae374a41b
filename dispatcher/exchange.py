"""What is kept of the frame of a failed call: its address and headers, and those of the answer, without secrets."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import orjson

from dispatcher.protocols.base import Call

HIDDEN = "(hidden)"
_MAX_HEADERS, _MAX_VALUE_CHARS = 40, 500
_SECRET_NAMES = frozenset({"authorization", "cookie", "set-cookie", "webhook-signature", "www-authenticate"})
_SECRET_PARTS = ("auth", "cookie", "credential", "key", "password", "secret", "session", "signature", "token")
_PLAIN = frozenset({"idempotency-key"})


def exchange_of(call: Call, *, own: Collection[str], answer: Mapping[str, str] | None) -> bytes:
    """The request's address and headers and the answer's headers (None: there was none), as JSON.

    Values that are or may be secrets are hidden: signatures, whatever is named like a credential, and every header that the
    operator set (`own`, lower-case), since that is where credentials are put.
    """
    found: dict[str, object] = {"method": call.method, "url": call.url, "headers": _shown(call.headers.items(), own)}
    if answer is not None:
        found["answer_headers"] = _shown(answer.items(), ())
    return orjson.dumps(found)


def _shown(headers: Iterable[tuple[str, str]], own: Collection[str]) -> list[tuple[str, str]]:
    """Names and values in their order, as they came but for secrets; too many or too long ones are cut."""
    shown: list[tuple[str, str]] = []
    for name, value in headers:
        if len(shown) == _MAX_HEADERS:
            break
        is_secret = name.lower() in own or is_secret_header(name)
        shown.append((_clean(name), HIDDEN if is_secret else _clean(value)[:_MAX_VALUE_CHARS]))
    return shown


def _clean(text: str) -> str:
    """Text that JSON can hold: a header's odd bytes come as lone surrogates."""
    return text.encode("utf-8", "replace").decode()


def is_secret_header(name: str) -> bool:
    """Whether a header of this name may hold a secret."""
    lower = name.lower()
    return lower in _SECRET_NAMES or (lower not in _PLAIN and any(part in lower for part in _SECRET_PARTS))
