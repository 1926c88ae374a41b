"""The one HTTP client that speaks to the outside, guarded at the address that is connected to."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from egress.errors import TRANSLATED, translated
from egress.guard import check_address, check_url
from schemas.errors import AddressRefused, BadSetting, NightbellError

DEFAULT_MAX_ANSWER_BYTES = 64 * 1024
DNS_TTL_S = 10
# Node and uvicorn drop an idle connection after 5 s.  A request written just then is lost without a word, so we let go first.
KEEPALIVE_S = 4.0
_NEVER_ROUNDED = float("inf")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the host said.  `truncated`: the body went on beyond the cap and is cut there.  The body is never decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool
    elapsed_s: float


class _Progress:
    """How far one request got: only the connector knows, and an exception does not say."""

    __slots__ = ("refusal", "sent")

    def __init__(self) -> None:
        self.sent = False
        self.refusal: AddressRefused | None = None


_progress: ContextVar[_Progress] = ContextVar("egress_progress")


class _RefusedSocketError(OSError):
    """An address that the guard refused; an OSError, because the connector gathers nothing else from a race of addresses."""


class _Connector(aiohttp.TCPConnector):
    """A connector that notes when a request is about to be written."""

    async def connect(self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout) -> Any:  # noqa: ASYNC109 - aiohttp's signature
        connection = await super().connect(req, traces, timeout)
        _progress.get().sent = True
        return connection


def _strict_socket(addr_info: tuple[Any, ...]) -> socket.socket:
    """A socket for an address that the guard allows: the last moment before the connection, after every resolution."""
    family, kind, proto, _, address = addr_info
    try:
        check_address(address[0])
    except AddressRefused as exc:
        _progress.get().refusal = exc
        raise _RefusedSocketError(str(exc)) from exc
    return socket.socket(family, kind, proto)


@lru_cache(maxsize=4096)
def _target(url: str, allow_private: bool, allow_http: bool) -> URL:  # noqa: FBT001 - a cache key
    return check_url(url, allow_private=allow_private, allow_http=allow_http)


@lru_cache(maxsize=256)
def _timeout(total_s: float) -> aiohttp.ClientTimeout:
    # aiohttp rounds deadlines beyond 5 s up to whole seconds; an attempt's deadline lies within a lease and may not.
    return aiohttp.ClientTimeout(total=total_s, ceil_threshold=_NEVER_ROUNDED)


def default_tls() -> ssl.SSLContext:
    """TLS 1.2 or newer, the system's authorities, names checked.  There is no switch that turns this off."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Client:
    """Guarded HTTP, for as long as its `async with` lasts.

    No redirects, no proxies from the environment, no cookies, no decompression; one deadline for the whole of a call.  Calls
    that may reach private addresses have connections of their own, so that a strict call never finds one of those open.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
        user_agent: str = "Nightbell",
        dns_ttl_s: int = DNS_TTL_S,
    ) -> None:
        """Opens nothing yet.  `tls` may trust further authorities; `resolver` replaces the system's."""
        self._tls = tls
        self._resolver = resolver
        self._user_agent = user_agent
        self._dns_ttl_s = dns_ttl_s
        self._strict: aiohttp.ClientSession | None = None
        self._private: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Ready for calls."""
        self._tls = self._tls or default_tls()
        self._strict = self._session(guarded=True)
        self._private = self._session(guarded=False)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        """Close every connection."""
        for session in (self._strict, self._private):
            if session is not None:
                await session.close()
        self._strict = self._private = None

    def _session(self, *, guarded: bool) -> aiohttp.ClientSession:
        assert self._tls is not None
        connector = _Connector(
            limit=0,  # the callers bound what is in flight; a queue here would eat an attempt's time unseen
            ssl=self._tls,
            resolver=self._resolver,
            ttl_dns_cache=self._dns_ttl_s,
            keepalive_timeout=KEEPALIVE_S,
            socket_factory=_strict_socket if guarded else None,
        )
        return aiohttp.ClientSession(
            connector=connector,
            connector_owner=True,
            headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity", "Accept": "*/*"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
        allow_private: bool = False,
        allow_http: bool = False,
        max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES,
    ) -> Answer:
        """The answer, whatever its status; a redirect is an answer like others.

        Raises AddressRefused (nothing was sent), AgentTimedOut or AgentUnreachable; the last two carry `kind` and `sent`.
        """
        session, target = self._called(url, allow_private=allow_private, allow_http=allow_http)
        progress = _Progress()
        _progress.set(progress)
        started = monotonic()
        try:
            response = await session.request(
                method, target, data=body, headers=headers, timeout=_timeout(timeout_s), allow_redirects=False
            )
            content, truncated = await _bounded(response, max_answer_bytes)
        except TRANSLATED as exc:
            raise _failure(exc, progress, monotonic() - started) from exc
        except ValueError as exc:
            raise _unsendable() from exc
        return Answer(response.status, response.headers, content, truncated, monotonic() - started)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
        allow_private: bool = False,
        allow_http: bool = False,
    ) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
        """An answer whose body is still to come, and the chunks of that body; `timeout_s` bounds each silence."""
        session, target = self._called(url, allow_private=allow_private, allow_http=allow_http)
        progress = _Progress()
        _progress.set(progress)
        started = monotonic()
        waits = aiohttp.ClientTimeout(total=None, connect=timeout_s, sock_read=timeout_s)
        try:
            response = await session.request(method, target, data=body, headers=headers, timeout=waits, allow_redirects=False)
        except TRANSLATED as exc:
            raise _failure(exc, progress, monotonic() - started) from exc
        except ValueError as exc:
            raise _unsendable() from exc
        try:
            head = Answer(response.status, response.headers, b"", truncated=True, elapsed_s=monotonic() - started)
            yield head, _chunks(response, progress, started)
        finally:
            response.close()

    def _called(self, url: str, *, allow_private: bool, allow_http: bool) -> tuple[aiohttp.ClientSession, URL]:
        session = self._private if allow_private else self._strict
        if session is None:
            raise RuntimeError("the client is closed: use it inside its `async with`")
        return session, _target(url, allow_private, allow_http)


def _failure(exc: BaseException, progress: _Progress, elapsed_s: float) -> NightbellError:
    if progress.refusal is not None and not progress.sent:
        return progress.refusal
    return translated(exc, sent=progress.sent, elapsed_s=elapsed_s)


def _unsendable() -> BadSetting:
    """What aiohttp says of a control character in a header or a blank in a method; its text would repeat the header."""
    return BadSetting("a header or the method holds what HTTP cannot carry", kind="request", sent=False)


async def _bounded(response: aiohttp.ClientResponse, cap: int) -> tuple[bytes, bool]:
    """At most `cap` bytes of the body, and whether there was more; a connection with an unread rest is dropped."""
    length = response.content_length
    if length is not None and length <= cap:
        return await response.read(), False
    chunks: list[bytes] = []
    size = 0
    try:
        while size <= cap:
            chunk = await response.content.readany()
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
    except BaseException:
        response.close()
        raise
    if size > cap:
        response.close()
    return b"".join(chunks)[:cap], size > cap


async def _chunks(response: aiohttp.ClientResponse, progress: _Progress, started: float) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except TRANSLATED as exc:
        raise _failure(exc, progress, monotonic() - started) from exc
