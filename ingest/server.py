"""HTTP's side of the edge: bounded reads of raw bytes, and answers that say no more than they must."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.web_exceptions import HTTPException

from ingest.inbound import Reply, Request
from ingest.prepared import PreparedSource
from ingest.service import Ingest
from schemas.config import DEFAULT_TEAM, is_name
from schemas.errors import Busy, MalformedRequest, NightbellError, NotFound, Throttled, TooLarge, TooSlow, WrongMethod

METHODS = frozenset({"POST", "GET", "HEAD", "OPTIONS", "PUT", "PATCH"})
KEEPALIVE_S = 15.0  # closes silent connections, and those that drip their headers
_MAX_KNOWN = 1000
LINGER_S = 1.0  # how long a refused sender may go on before its connection ends
_TITLES = {
    400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout",
    413: "Content Too Large", 415: "Unsupported Media Type", 429: "Too Many Requests", 503: "Service Unavailable",
}  # fmt: skip


def ingest_runner(ingest: Ingest) -> web.ServerRunner:
    """A runner of the ingest listener; add sites to it.

    No application, no router, no middleware: every request is one source's, and its path says whose.  Bodies are never
    decompressed on the way in (signatures cover the bytes as sent), and nothing is logged per request.
    """
    server = web.Server(
        Edge(ingest).answer, access_log=None, auto_decompress=False, keepalive_timeout=KEEPALIVE_S, lingering_time=LINGER_S
    )
    return web.ServerRunner(server)


class Edge:
    """Turns HTTP requests into accepted events."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self._limits = ingest.limits
        self._known: dict[str, tuple[str, str]] = {}  # what well-spelled paths name

    async def answer(self, raw: web.BaseRequest) -> web.StreamResponse:
        """The answer to one request; what we did not foresee is a 503 without a word, never a 2xx."""
        ingest = self._ingest
        started_s = ingest.clock.steady_s()
        state = _State()
        try:
            ingest.flight.enter()
            state.entered = True
            reply = await self._taken(raw, state)
            response = _response(reply)
            ingest.metrics.body_bytes.observe(state.held)
        except NightbellError as error:
            state.close = state.close or not raw.content.is_eof()
            response = self._refused(error, raw, state)
        finally:
            if state.entered:
                ingest.flight.leave(state.held)
        ingest.metrics.duration.observe(ingest.clock.steady_s() - started_s)
        if state.close:
            response.force_close()
        return response

    async def _taken(self, raw: web.BaseRequest, state: _State) -> Reply:
        state.team, state.name = self._known.get(raw.raw_path) or self._spelled(raw.raw_path)
        if raw.method not in METHODS:
            raise WrongMethod
        state.source = self._ingest.admit(state.team, state.name)
        state.body = await self._body(raw, state)
        return await self._ingest.accept(self._request(raw, state), state.source)

    def _spelled(self, raw_path: str) -> tuple[str, str]:
        found = team_and_name(raw_path)
        if len(self._known) < _MAX_KNOWN:
            self._known[raw_path] = found
        return found

    async def _body(self, raw: web.BaseRequest, state: _State) -> bytes:
        """The raw bytes, under a deadline and a cap.  Raises `TooLarge`, `TooSlow`, `Saturated`, `MalformedRequest`."""
        assert state.source is not None
        cap = min(state.source.spec.max_body_bytes or self._limits.max_body_bytes, self._limits.max_body_bytes)
        if (raw.content_length or 0) > cap:
            raise TooLarge
        content = raw.content
        try:
            if content.is_eof():  # the body came with the headers, as small ones do
                body = content.read_nowait()
                self._hold(state, len(body), cap)
                return body
            await _continue(raw)
            async with asyncio.timeout(self._limits.body_timeout_s):
                return await self._chunks(content, state, cap)
        except TimeoutError as exc:
            raise TooSlow from exc
        except (BadHttpMessage, HTTPException, ConnectionError) as exc:
            raise MalformedRequest("the body's framing is broken") from exc

    async def _chunks(self, content: Any, state: _State, cap: int) -> bytes:
        chunks = bytearray()
        while chunk := await content.readany():
            self._hold(state, len(chunk), cap)
            chunks += chunk
        return bytes(chunks)

    def _hold(self, state: _State, count: int, cap: int) -> None:
        if state.held + count > cap:
            raise TooLarge
        self._ingest.flight.hold(count)
        state.held += count

    def _request(self, raw: web.BaseRequest, state: _State) -> Request:
        remote = raw.transport.get_extra_info("peername") if raw.transport else None
        url = self._ingest.public_url + raw.raw_path
        return Request(raw.method, url, raw.headers.items(), state.body, remote=str(remote[0]) if remote else "")

    def _refused(self, error: NightbellError, raw: web.BaseRequest, state: _State) -> web.Response:
        self._ingest.refuse(error, self._request(raw, state), state.source, team=state.team, name=state.name)
        headers = {}
        if isinstance(error, Throttled):
            headers["Retry-After"] = str(error.fields.get("retry_after_s", 1))
        elif isinstance(error, Busy):
            headers["Retry-After"] = str(error.retry_after_s)
        elif isinstance(error, WrongMethod):
            methods = state.source.provider.methods if state.source else METHODS
            headers["Allow"] = ", ".join(sorted(methods))
        return web.Response(status=error.status, body=problem(error), content_type="application/problem+json", headers=headers)


class _State:
    """What is known of a request so far."""

    __slots__ = ("body", "close", "entered", "held", "name", "source", "team")

    def __init__(self) -> None:
        self.team = ""
        self.name = ""
        self.source: PreparedSource | None = None
        self.body = b""
        self.held = 0
        self.entered = False
        self.close = False


def team_and_name(raw_path: str) -> tuple[str, str]:
    """Whose address this is: `/in/{source}` or `/in/{team}/{source}`, spelled exactly so.  Raises `NotFound`."""
    path = raw_path.partition("?")[0]
    parts = path.split("/")
    if len(parts) == 3 and parts[1] == "in" and is_name(parts[2]):  # noqa: PLR2004 - the empty part, `in`, the source
        return DEFAULT_TEAM, parts[2]
    if len(parts) == 4 and parts[1] == "in" and is_name(parts[2]) and is_name(parts[3]):  # noqa: PLR2004 - and a team
        return parts[2], parts[3]
    raise NotFound


async def _continue(raw: web.BaseRequest) -> None:
    """Let a sender go on that waits for our word (curl does, with larger bodies)."""
    if raw.headers.get("Expect", "").lower() == "100-continue" and raw.transport is not None:
        raw.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def problem(error: NightbellError) -> bytes:
    """The answer's body (RFC 9457): the class's own words, never what the operator may know."""
    title = _TITLES.get(error.status, "Error")
    detail = (type(error).__doc__ or title).strip()
    return orjson.dumps({"type": "about:blank", "title": title, "status": error.status, "detail": detail, "code": error.code})


def _response(reply: Reply) -> web.Response:
    if not reply.body:
        return web.Response(status=reply.status, headers=reply.headers or None)
    headers = {**reply.headers, "Content-Type": reply.content_type, "X-Content-Type-Options": "nosniff"}
    return web.Response(status=reply.status, body=reply.body, headers=headers)
