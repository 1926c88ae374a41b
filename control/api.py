"""The API over HTTP: the routes' table as an aiohttp application, with health and metrics beside it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import orjson
import structlog
from aiohttp import hdrs, web

from control.actions_events import Raw
from control.auth import Authenticate
from control.desk import Desk
from control.openapi import openapi_document
from control.problems import MEDIA_TYPE, Problem, problem_of
from control.pulls import Held, IsThere, Stream
from control.routes import ROUTES, Route, perform
from schemas import errors
from schemas.errors import Invalid, MalformedRequest, NightbellError, TooSlow, UnsupportedMedia

MAX_BODY_BYTES = 8 * 1024 * 1024
READ_S = 30.0  # for a whole body
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "Nightbell",
}
_STOPPING = web.AppKey("stopping", asyncio.Event)
_WITH_BODY = frozenset({"POST", "PUT"})
_log = structlog.get_logger(__name__)

Metrics = Callable[[], bytes]
Liveness = Callable[[], bool]
Readiness = Callable[[], Awaitable[Mapping[str, Any]]]  # {"ready": bool, …}: what is missing, for people
_Endpoint = Callable[[web.Request], Awaitable[web.StreamResponse]]


def health_app(*, metrics: Metrics, is_live: Liveness, readiness: Readiness) -> web.Application:
    """Health and metrics alone: what the listener of a role without the API answers."""
    app = web.Application(middlewares=[_guarded], client_max_size=MAX_BODY_BYTES)
    app.router.add_route("GET", "/metrics", _metrics(metrics))
    app.router.add_route("GET", "/livez", _livez(is_live))
    app.router.add_route("GET", "/readyz", _readyz(readiness))
    return app


def api_app(
    desk: Desk,
    *,
    authenticate: Authenticate,
    version: str,
    metrics: Metrics,
    is_live: Liveness,
    readiness: Readiness,
) -> web.Application:
    """The API, with health and metrics.  Every answer is JSON, every error problem+json."""
    app = health_app(metrics=metrics, is_live=is_live, readiness=readiness)
    app.router.add_route("GET", "/openapi.json", _constant(_described(version, desk.api_url)))
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _endpoint(route, desk, authenticate))
    app[_STOPPING] = asyncio.Event()
    app.on_shutdown.append(_stop_waiting)
    return app


async def _stop_waiting(app: web.Application) -> None:
    app[_STOPPING].set()


@cache
def _described(version: str, server: str) -> bytes:
    return orjson.dumps(openapi_document(version, server=server))


def _endpoint(route: Route, desk: Desk, authenticate: Authenticate) -> _Endpoint:
    async def answer(request: web.Request) -> web.StreamResponse:
        caller = await authenticate(request.headers.get(hdrs.AUTHORIZATION))
        body = await _parsed_body(request) if request.method in _WITH_BODY else None
        found = await perform(route, desk, caller, path=request.match_info, query=_parsed_query(request), body=body)
        if isinstance(found, Held):
            found = await found.answer(_presence(request))
        if isinstance(found, Stream):
            return await _streamed(request, found)
        if isinstance(found, Raw):
            return _download(found)
        return _json(found, status=route.status)

    return answer


def _presence(request: web.Request) -> IsThere:
    """Whether the caller is still there, and this process means to serve on."""
    stopping = request.app[_STOPPING]
    return lambda: not stopping.is_set() and request.transport is not None and not request.transport.is_closing()


async def _streamed(request: web.Request, stream: Stream) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={hdrs.CONTENT_TYPE: "text/event-stream", "X-Accel-Buffering": "no", **_SECURITY_HEADERS}
    )
    await response.prepare(request)
    with suppress(ConnectionError):  # whoever goes away loses its leases, as any agent that vanishes
        async for part in stream.parts(_presence(request)):
            await response.write(part)
        await response.write_eof()
    return response


def _parsed_query(request: web.Request) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in request.query.items():
        if name in query:
            raise Invalid(f"the parameter `{name}` is given twice", place=f"/{name}")
        query[name] = value
    return query


async def _parsed_body(request: web.Request) -> Any:
    try:
        async with asyncio.timeout(READ_S):
            raw = await request.read()  # bounded by the application's client_max_size
    except TimeoutError as exc:
        raise TooSlow from exc
    if not raw:
        return None
    # Demanded, so that a form on a foreign page cannot make a browser send it.
    if request.content_type != "application/json":
        raise UnsupportedMedia("send JSON: content-type: application/json")
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise MalformedRequest(f"the body is not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}") from None


def _json(found: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(found), status=status, content_type="application/json")


def _constant(document: bytes) -> _Endpoint:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=document, content_type="application/json")

    return answer


def _download(raw: Raw) -> web.Response:
    disposition = f'attachment; filename="{raw.filename}"'
    return web.Response(
        body=raw.content, content_type="application/octet-stream", headers={hdrs.CONTENT_DISPOSITION: disposition}
    )


def _metrics(metrics: Metrics) -> _Endpoint:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(body=metrics(), headers={hdrs.CONTENT_TYPE: METRICS_TYPE})

    return answer


def _livez(is_live: Liveness) -> _Endpoint:
    async def answer(_request: web.Request) -> web.StreamResponse:
        live = is_live()
        return _json({"live": live}, status=200 if live else 503)

    return answer


def _readyz(readiness: Readiness) -> _Endpoint:
    async def answer(_request: web.Request) -> web.StreamResponse:
        found = await readiness()
        return _json(found, status=200 if found.get("ready") else 503)

    return answer


@web.middleware
async def _guarded(request: web.Request, handler: _Endpoint) -> web.StreamResponse:
    """Turn errors into problems, and add the security headers to whatever is answered."""
    try:
        response = await handler(request)
    except NightbellError as exc:
        response = _problem(problem_of(exc))
    except web.HTTPException as exc:
        response = _problem(_problem_of_http(exc), allow=exc.headers.get(hdrs.ALLOW, ""))
    except Exception:  # noqa: BLE001 - a bug of ours ends this request alone: the caller gets a number, the log the rest
        incident = secrets.token_hex(8)
        _log.exception("api_failed", incident=incident, method=request.method, route=_route_of(request))
        response = _problem(Problem(500, "internal", "Something went wrong here", f"incident {incident}"))
    if not response.prepared:
        response.headers.update(_SECURITY_HEADERS)
    return response


def _route_of(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource else ""


def _problem(problem: Problem, *, allow: str = "") -> web.Response:
    response = web.Response(body=orjson.dumps(problem.as_json()), status=problem.status, content_type=MEDIA_TYPE)
    if problem.retry_after_s is not None:
        response.headers[hdrs.RETRY_AFTER] = str(problem.retry_after_s)
    if problem.status == web.HTTPUnauthorized.status_code:
        response.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="nightbell"'
    if allow:
        response.headers[hdrs.ALLOW] = allow
    return response


_OF_HTTP: dict[int, type[NightbellError]] = {
    404: errors.NotFound,
    405: errors.WrongMethod,
    413: errors.TooLarge,
}


def _problem_of_http(exc: web.HTTPException) -> Problem:
    kind = _OF_HTTP.get(exc.status_code, MalformedRequest)
    return problem_of(kind("there is no such address") if kind is errors.NotFound else kind())
