"""The proxy is what the fault runs rest on: each of its faults does what it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import cast

import pytest

from tests.servers.proxy import Proxy


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        echoes.add(cast("asyncio.Task[None]", asyncio.current_task()))
        with suppress(OSError):
            while chunk := await reader.read(1000):
                heard.append(chunk)
                writer.write(chunk)
                await writer.drain()
        writer.close()

    heard: list[bytes] = []
    echoes: set[asyncio.Task[None]] = set()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    with Proxy(server.sockets[0].getsockname()) as made:
        made.heard = heard  # type: ignore[attr-defined]  # what reached the far end, for the tests below
        yield made
    server.close()
    await asyncio.gather(*echoes)  # the proxy reset them all; each closes its own end


async def said(proxy: Proxy, text: bytes, within_s: float = 5.0) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(text)
        async with asyncio.timeout(within_s):
            return await reader.readexactly(len(text))
    finally:
        writer.close()


async def test_a_healthy_proxy_carries_every_byte(proxy: Proxy) -> None:
    text = bytes(range(256)) * 2000

    assert await said(proxy, text) == text


async def test_latency_delays_and_keeps_the_order(proxy: Proxy) -> None:
    proxy.latency(0.1, jitter_s=0.05)
    began = time.monotonic()

    answer = await said(proxy, b"0123456789")

    assert answer == b"0123456789"
    assert time.monotonic() - began >= 0.2


async def test_slices_arrive_whole(proxy: Proxy) -> None:
    proxy.throttle(10_000, slice_bytes=7)

    assert await said(proxy, b"x" * 500) == b"x" * 500


async def test_a_half_open_connection_brings_the_request_and_no_answer(proxy: Proxy) -> None:
    proxy.stall("down")

    with pytest.raises(TimeoutError):
        await said(proxy, b"hello", within_s=0.3)

    assert b"".join(proxy.heard) == b"hello"  # type: ignore[attr-defined]


async def test_what_was_stalled_arrives_when_the_cable_is_back(proxy: Proxy) -> None:
    proxy.stall()
    waiting = asyncio.create_task(said(proxy, b"hello"))
    await asyncio.sleep(0.1)
    heard_while_stalled = list(proxy.heard)  # type: ignore[attr-defined]

    proxy.heal()

    assert heard_while_stalled == []
    assert await waiting == b"hello"


async def test_a_cut_resets_what_is_open_and_takes_what_is_new(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"a")
    await reader.readexactly(1)

    proxy.cut()

    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()
    assert await said(proxy, b"b") == b"b"


async def test_a_refusing_proxy_takes_nobody_until_it_is_healed(proxy: Proxy) -> None:
    proxy.refuse()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await said(proxy, b"a")

    proxy.heal()

    assert await said(proxy, b"b") == b"b"
