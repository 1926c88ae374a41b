"""The command line's way to Nightbell: the API, or, where the embedded default is not running, its store for reading."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cache
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

import orjson

from control.problems import Flaw, Flawed
from schemas import errors
from schemas.errors import AgentFailed, NightbellError, NotReady, Refused

if TYPE_CHECKING:  # at run time it is imported where it is used: commands that need no server start faster without it
    from control.documents import Checks
    from egress.client import Client

ANSWER_TIMEOUT_S = 60.0
LIVELINESS_TIMEOUT_S = 2.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
PAGE_ITEMS = 200
Query = Mapping[str, str | int | bool | None]


class Api(Protocol):
    """Where commands take their questions and orders: the paths of `/v1`, whoever answers."""

    async def call(self, method: str, path: str, *, query: Query | None = None, body: Any = None) -> Any:
        """The parsed answer.  Raises the error tree's classes."""
        ...


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API and the ingest listener are, with what key, and whether the store can be read beside them."""

    url: str
    ingest_url: str
    key: str | None
    is_embedded: bool


class CreateLocalKey(Protocol):
    """Makes an API key in the store itself, for when no server runs."""

    async def __call__(self, *, name: str, role: str, agent: str | None, expires_at: str | None) -> Mapping[str, Any]:
        """The key's document, with the key itself as `key`."""
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """What the process that runs the command line gives it; each is asked for only when a command needs it."""

    connection: Callable[[], Connection]
    open_store: Callable[[], AbstractAsyncContextManager[Api]]
    checks: Callable[[], Checks]
    create_local_key: CreateLocalKey
    environment: Mapping[str, str]


class HttpApi:
    """The API over HTTP."""

    def __init__(self, client: Client, *, url: str, key: str | None) -> None:
        """Speak to the API at `url`, with `key`."""
        self._client, self._url, self._key = client, url.rstrip("/"), key

    async def call(self, method: str, path: str, *, query: Query | None = None, body: Any = None) -> Any:
        """The parsed answer of the API.  Raises what the problem says, `NotReady` where nobody answers."""
        written = urlencode({name: _written(value) for name, value in (query or {}).items() if value is not None})
        try:
            answer = await self._client.request(
                method,
                f"{self._url}{path}" + (f"?{written}" if written else ""),
                headers=self._headers(),
                body=None if body is None else orjson.dumps(body),
                timeout_s=ANSWER_TIMEOUT_S,
                allow_private=True,
                allow_http=True,
                max_answer_bytes=MAX_ANSWER_BYTES,
            )
        except AgentFailed as exc:
            raise NotReady(
                f"no answer from the API at {self._url}: is `nightbell serve` running there? ({exc.detail})"
            ) from exc
        if answer.status >= 400:  # noqa: PLR2004 - HTTP's border between answers and refusals
            raise error_of(answer.status, answer.body)
        return orjson.loads(answer.body) if answer.body else None

    async def answers(self) -> bool:
        """Whether anybody listens there."""
        try:
            await self._client.request(
                "GET", f"{self._url}/livez", timeout_s=LIVELINESS_TIMEOUT_S, allow_private=True, allow_http=True
            )
        except AgentFailed:
            return False
        return True

    def _headers(self) -> dict[str, str]:
        found = {"content-type": "application/json", "accept": "application/json"}
        if self._key:
            found["authorization"] = f"Bearer {self._key}"
        return found


def _written(value: str | float | bool) -> str:  # noqa: FBT001 - any primitive may stand in a query
    return str(value).lower() if isinstance(value, bool) else str(value)


def http_client() -> Client:
    """A client for the command line's own calls; the authorities that TLS trusts are read once."""
    from egress.client import Client

    return Client(tls=_trusted())


@cache
def _trusted() -> SSLContext:
    from egress.client import default_tls

    return default_tls()


@asynccontextmanager
async def reached(means: Means, *, reading: bool = False) -> AsyncIterator[Api]:
    """The desk to ask.  A reading command of an embedded installation that is not running reads its store instead."""
    connection = means.connection()
    async with http_client() as client:
        api = HttpApi(client, url=connection.url, key=connection.key)
        if reading and connection.is_embedded and not await api.answers():
            async with means.open_store() as store:
                yield store
        else:
            yield api


async def pages(api: Api, path: str, query: Query, *, limit: int | None) -> AsyncIterator[dict[str, Any]]:
    """The items of a list, page by page, at most `limit`."""
    left = limit
    cursor: str | None = None
    while left is None or left > 0:
        # A list that is short by nature (sources, keys) has no pages, and refuses to be asked for one.
        size = None if left is None else min(left, PAGE_ITEMS)
        page = await api.call("GET", path, query={**query, "limit": size, "cursor": cursor})
        for item in page["items"]:
            yield item
        cursor = page.get("next_cursor")
        if not cursor or not page["items"]:
            return
        left = None if left is None else left - len(page["items"])


def error_of(status: int, body: bytes) -> NightbellError:
    """The error that a problem+json answer tells of; where it is none, one by its status."""
    try:
        problem = orjson.loads(body)
    except orjson.JSONDecodeError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    detail = str(problem.get("detail") or f"the API answered {status}")
    flaws = problem.get("errors")
    if isinstance(flaws, list) and flaws:
        return Flawed([Flaw(str(flaw.get("place", "")), str(flaw.get("message", ""))) for flaw in flaws])
    kind = _CLASSES.get(str(problem.get("code"))) or _by_status(status)
    return kind(detail)


def _all_classes(root: type[NightbellError]) -> list[type[NightbellError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in _all_classes(child))]


# A parent comes before its children, and `setdefault` keeps it: a code that a child inherits is the parent's.
_CLASSES: dict[str, type[NightbellError]] = {}
for _kind in _all_classes(NightbellError):
    if _kind.__module__ == errors.__name__:
        _CLASSES.setdefault(_kind.code, _kind)
# `refused` is the family's code and a bad signature's; from the API it is the family's.
_CLASSES["refused"] = Refused
_STATUSES: dict[int, type[NightbellError]] = {
    401: errors.Unauthenticated,
    403: errors.NotAllowed,
    404: errors.NotFound,
    409: errors.Conflict,
    429: errors.Throttled,
}


def _by_status(status: int) -> type[NightbellError]:
    if status in _STATUSES:
        return _STATUSES[status]
    return errors.Busy if status >= 500 else errors.Invalid  # noqa: PLR2004 - HTTP's border between theirs and ours
