"""What aiohttp raises, said in our words."""

from __future__ import annotations

import asyncio
import ssl

import aiohttp

from schemas.errors import AgentFailed, AgentTimedOut, AgentUnreachable

# First match wins: a class stands before those that it derives from.
KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "dns"),
    (aiohttp.ClientConnectorCertificateError, "tls"),
    (aiohttp.ClientConnectorSSLError, "tls"),
    (aiohttp.ClientSSLError, "tls"),
    (aiohttp.ServerFingerprintMismatch, "tls"),
    (ssl.SSLError, "tls"),
    (aiohttp.ConnectionTimeoutError, "connect_timeout"),
    (aiohttp.ServerTimeoutError, "timeout"),
    (TimeoutError, "timeout"),
    (asyncio.TimeoutError, "timeout"),
    (aiohttp.ClientProxyConnectionError, "connect"),
    (aiohttp.ClientConnectorError, "connect"),
    (aiohttp.ClientConnectionResetError, "reset"),
    (aiohttp.ServerDisconnectedError, "reset"),
    (aiohttp.ClientOSError, "reset"),
    (aiohttp.ServerConnectionError, "reset"),
    (aiohttp.ClientConnectionError, "reset"),
    (aiohttp.ClientPayloadError, "answer"),
    (aiohttp.UploadAbortedError, "reset"),
    (aiohttp.InvalidURL, "url"),
    (aiohttp.NonHttpUrlClientError, "url"),
    (aiohttp.RedirectClientError, "redirect"),
    (aiohttp.ClientResponseError, "answer"),
    (aiohttp.ClientError, "other"),
    (OSError, "reset"),
    (asyncio.IncompleteReadError, "reset"),
)
TRANSLATED: tuple[type[BaseException], ...] = (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError)
_NEVER_SENT = frozenset({"dns", "tls", "connect_timeout", "connect", "refused", "unreachable", "url", "address"})
_SAYS = {
    "dns": "the host's name has no address",
    "tls": "the TLS handshake failed",
    "connect_timeout": "no connection within the time allowed",
    "connect": "no connection to the host",
    "refused": "the host refused the connection",
    "unreachable": "no route to the host",
    "timeout": "no whole answer within the time allowed",
    "reset": "the connection was lost",
    "answer": "the answer is not HTTP that can be read",
    "url": "the URL cannot be called",
    "redirect": "the answer redirects to what is no URL",
    "other": "the call failed",
}


def translated(exc: BaseException, *, sent: bool, elapsed_s: float) -> AgentFailed:
    """The failure in our tree, with `kind` (dns, tls, refused, reset, timeout, …), `sent` and `elapsed_s` among its fields.

    `sent` True says that the host may have got the request; what never left stays False, whatever the caller believes.
    The text names no URL: one may carry a token.
    """
    kind = kind_of(exc)
    sent = sent and kind not in _NEVER_SENT
    detail = _SAYS[kind]
    if reason := _reason(exc):
        detail = f"{detail}: {reason}"
    raised = AgentTimedOut if kind in {"timeout", "connect_timeout"} else AgentUnreachable
    return raised(detail, kind=kind, sent=sent, elapsed_s=round(elapsed_s, 4))


def kind_of(exc: BaseException) -> str:
    """The closed-set word for a foreign exception."""
    for foreign, kind in KINDS:
        if isinstance(exc, foreign):
            return _connect_kind(exc) if kind == "connect" else kind
    return "other"


def _connect_kind(exc: BaseException) -> str:
    inner = exc.os_error if isinstance(exc, aiohttp.ClientConnectorError) else exc
    if isinstance(inner, ConnectionRefusedError):
        return "refused"
    if isinstance(inner, ConnectionResetError):
        return "connect"
    if isinstance(inner, OSError) and inner.strerror and "unreachable" in inner.strerror.lower():
        return "unreachable"
    return "connect"


def _reason(exc: BaseException) -> str:
    """A short cause that cannot hold a URL: an operating system's or TLS library's own words."""
    inner: BaseException = exc
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        inner = exc.certificate_error
    elif isinstance(exc, aiohttp.ClientConnectorError):
        inner = exc.os_error
    if isinstance(inner, ssl.SSLCertVerificationError):
        return inner.verify_message
    if isinstance(inner, ssl.SSLError):
        return (getattr(inner, "reason", "") or "").replace("_", " ").lower()
    if isinstance(inner, OSError):
        return (inner.strerror or "")[:200]
    return ""
