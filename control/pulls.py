"""Pull delivery: agents that nobody can call fetch their work, by long poll or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from control.asked import LeaseBody, StreamQuery
from control.auth import Caller, Role
from control.desk import Desk
from schemas.config import PULL
from schemas.errors import Conflict, NotFound, NotReady
from schemas.ids import random_id
from schemas.times import iso
from store.agents import agents_of
from store.pulls import Fetched, Poller, leave, take, wait_for_work
from store.run_rows import OFFERS
from store.runs import RUNS, open_ids

_BREATH_S = 1.0  # how soon a wait notices that its caller is gone, or that this process stops
_SAY_AGAIN_S = 5.0  # a wait is announced again so often, and counts for twice as long: a dead process's waits fade
_KEEPALIVE_S = 10.0
_TOKEN_SLACK_MS = 60_000
IsThere = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Held:
    """An answer that is waited for, as long as who asked is there."""

    answer: Callable[[IsThere], Any]


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer in parts, as long as who asked is there: server-sent events."""

    parts: Callable[[IsThere], AsyncIterator[bytes]]


async def lease_work(desk: Desk, caller: Caller, *, name: str, body: LeaseBody) -> Held:
    """Fetch what is to be done for an agent of protocol pull: at once what there is, else what comes within `wait_s`."""
    who = await _poller(desk, caller, name, body.worker)

    async def answer(is_there: IsThere) -> dict[str, Any]:
        found = await _fetched(desk, who, want=body.max, wait_s=body.wait_s, is_there=is_there)
        return {"items": [_item(desk, who, each) for each in found]}

    return Held(answer)


async def stream_work(desk: Desk, caller: Caller, *, name: str, query: StreamQuery) -> Stream:
    """The same as a stream: an event `lease` for each invocation, at most `max` of its unfinished at a time."""
    who = await _poller(desk, caller, name, query.worker)

    async def parts(is_there: IsThere) -> AsyncIterator[bytes]:
        yield b": waiting\n\n"
        mine: set[str] = set()
        while is_there():
            if room := query.max - len(mine):
                found = await _fetched(desk, who, want=room, wait_s=_KEEPALIVE_S, is_there=is_there)
                for each in found:
                    mine.add(each.invocation_id)
                    data = orjson.dumps(_item(desk, who, each))
                    yield b"event: lease\nid: %b\ndata: %b\n\n" % (each.invocation_id.encode(), data)
            else:
                await _until_changed(desk, who)
            yield b": waiting\n\n"
            mine &= await _unfinished(desk, who)

    return Stream(parts)


async def _poller(desk: Desk, caller: Caller, name: str, worker: str) -> Poller:
    row = (await agents_of(desk.engine, caller.team)).get(name)
    if row is None or caller.is_token or (caller.role is Role.AGENT and caller.agent != name):
        raise NotFound(f"there is no agent `{name}`, or this key is not its own")
    if desk.mint is None:
        raise NotReady("fetching work needs a running server")
    if row.public["protocol"] != PULL:
        raise Conflict(f"agent {name} is called by protocol {row.public['protocol']}: it has nothing to fetch")
    return Poller(caller.team, name, random_id("pol_", os.urandom(17)), worker)


async def _fetched(desk: Desk, who: Poller, *, want: int, wait_s: float, is_there: IsThere) -> list[Fetched]:
    loop = asyncio.get_running_loop()
    ends_s, said_s, has_said = loop.time() + wait_s, float("-inf"), False
    async with _woken_by(desk, OFFERS, who) as woken:
        try:
            while is_there():
                woken.clear()
                if found := await take(desk.engine, who, limit=want, now_ms=desk.now_ms()):
                    has_said = False  # taking takes the announcement back
                    if desk.runs is not None:
                        desk.runs.fetched(who.agent, len(found))
                    return found
                if loop.time() >= ends_s:
                    break
                if loop.time() - said_s >= _SAY_AGAIN_S:
                    until_ms = desk.now_ms() + round(2000 * min(_SAY_AGAIN_S, max(ends_s - loop.time(), 0.5)))
                    await wait_for_work(desk.engine, who, want=want, until_ms=until_ms)
                    said_s, has_said = loop.time(), True
                await _rest(woken, is_there, until_s=min(ends_s, said_s + _SAY_AGAIN_S))
        finally:
            if has_said:
                await leave(desk.engine, who, now_ms=desk.now_ms())
    return []


async def _rest(woken: asyncio.Event, is_there: IsThere, *, until_s: float) -> None:
    loop = asyncio.get_running_loop()
    while is_there() and not woken.is_set() and (left_s := until_s - loop.time()) > 0:
        try:
            async with asyncio.timeout(min(_BREATH_S, left_s)):
                await woken.wait()
        except TimeoutError:
            continue


async def _until_changed(desk: Desk, who: Poller) -> None:
    async with _woken_by(desk, RUNS, who) as woken:
        try:
            async with asyncio.timeout(_BREATH_S):
                await woken.wait()
        except TimeoutError:
            return


async def _unfinished(desk: Desk, who: Poller) -> set[str]:
    return await open_ids(desk.engine, who.team, who.agent)


@asynccontextmanager
async def _woken_by(desk: Desk, channel: str, who: Poller) -> AsyncIterator[asyncio.Event]:
    woken, mine = asyncio.Event(), {"", f"{who.team}/{who.agent}"}
    end = desk.engine.listen(channel, lambda payload: woken.set() if payload in mine else None)
    try:
        yield woken
    finally:
        end()


def _item(desk: Desk, who: Poller, fetched: Fetched) -> dict[str, Any]:
    """What is fetched: the document that a webhook agent is sent, with the run's own deadline and token."""
    assert desk.mint is not None
    document = orjson.loads(fetched.document)
    document["invocation"] |= {"attempt": fetched.number, "deadline": iso(fetched.ends_ms)}
    document["links"]["token"] = desk.mint(
        team=who.team,
        invocation_id=fetched.invocation_id,
        event_id=fetched.event_id,
        expires_ms=fetched.ends_ms + _TOKEN_SLACK_MS,
        attempt=fetched.number,
    )
    return {"invocation": fetched.invocation_id, "lease_until": iso(fetched.lease_ms), "delivery": document}
