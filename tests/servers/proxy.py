"""A TCP proxy of our own that makes a network bad at will: late, slow, silent, half-open, cut, refused.

Each proxy stands on a port that it keeps and forwards to one target.  It runs in a thread and a loop of its own, so that a busy
test cannot slow what it carries.  The words follow Toxiproxy's; `up` is from the client to the server, `down` back.

    with Proxy(("127.0.0.1", 5432)) as proxy:
        proxy.latency(0.2, jitter_s=0.1)   # bytes arrive later, in order
        proxy.stall("down")                # half-open: requests arrive, answers never do; nobody is told
        proxy.stall()                      # nothing arrives in either direction: a cable that was pulled
        proxy.cut()                        # every connection is reset, now; new ones are taken
        proxy.refuse()                     # every connection is reset, and so is each new one
        proxy.heal()
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

Way = Literal["up", "down", "both"]
_CHUNK = 64 << 10
_BUFFER = 256 << 10  # bytes under way that latency may hold back
_WAIT_S = 10.0


@dataclass(slots=True)
class Weather:
    """How bad it is now."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = 0.0  # 0: as fast as it goes
    slice_bytes: int = 0  # 0: as they come
    is_up_stalled: bool = False
    is_down_stalled: bool = False
    is_refusing: bool = False

    def stalls(self, way: Way) -> bool:
        """Whether bytes of this way stay where they are."""
        return self.is_up_stalled if way == "up" else self.is_down_stalled


class Proxy:
    """One port in front of one target; its faults hold for every connection, those that are open already too."""

    def __init__(self, target: tuple[str, int], *, seed: int = 0) -> None:
        """Take a port at once; forward once entered."""
        self.target = target
        self.weather = Weather()
        self.connections = 0
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._random = random.Random(seed)
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._loop = asyncio.new_event_loop()
        self._changed: asyncio.Event
        self._ended: asyncio.Event
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(_WAIT_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._thread.is_alive():
            self._tell(self._ended.set)
            self._thread.join(_WAIT_S)
        self._socket.close()

    # --- what can be done to it, from any thread; it has happened when the call returns ---

    def latency(self, seconds: float, *, jitter_s: float = 0.0) -> None:
        """Let each piece arrive that much later, in order; a lost packet that is sent again looks like a large jitter."""
        self._set(latency_s=seconds, jitter_s=jitter_s)

    def throttle(self, bytes_per_s: float, *, slice_bytes: int = 0) -> None:
        """Let so many bytes a second through in each way of each connection, in pieces of `slice_bytes`."""
        self._set(bytes_per_s=bytes_per_s, slice_bytes=slice_bytes)

    def stall(self, way: Way = "both") -> None:
        """Let nothing of this way arrive any more, and tell nobody; connections stay open, and new ones are taken."""
        self._set(is_up_stalled=way != "down", is_down_stalled=way != "up")

    def cut(self) -> None:
        """Reset every connection that is open."""
        self._tell(self._reset_all)

    def refuse(self) -> None:
        """Reset every connection, and each new one."""
        self._set(is_refusing=True)
        self.cut()

    def heal(self) -> None:
        """Be a good network again; what was stalled arrives, as after a cable was put back in time."""
        self._tell(lambda: setattr(self, "weather", Weather()))
        self._tell(self._changed.set)

    def _set(self, **faults: Any) -> None:
        def change() -> None:
            for name, value in faults.items():
                setattr(self.weather, name, value)
            self._changed.set()

        self._tell(change)

    def _tell(self, act: Callable[[], object]) -> None:
        done: Future[None] = Future()

        def acted() -> None:
            act()
            done.set_result(None)

        self._loop.call_soon_threadsafe(acted)
        done.result(_WAIT_S)

    # --- its thread ---

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._changed, self._ended = asyncio.Event(), asyncio.Event()
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=_CHUNK)
        self._ready.set()
        await self._ended.wait()
        server.close()
        self._reset_all()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:  # a connection taken just now begins a task of its own
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # what was closed is told so on the loop's next turn

    async def _connected(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.weather.is_refusing:
            _reset(client)
            return
        try:
            from_server, server = await asyncio.open_connection(*self.target, limit=_CHUNK)
        except OSError:
            _reset(client)
            return
        except asyncio.CancelledError:
            _reset(client)
            raise
        pair = (client, server)
        self._pairs.add(pair)
        try:
            await _first_ended(self._carry("up", reader, server), self._carry("down", from_server, client))
        finally:
            self._pairs.discard(pair)
            for writer in pair:
                writer.close()

    def _reset_all(self) -> None:
        for pair in list(self._pairs):
            for writer in pair:
                _reset(writer)

    async def _carry(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one way until its end, through a queue in which pieces wait for their time."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_BUFFER // _CHUNK)

        async def take() -> None:
            while chunk := await reader.read(_CHUNK):
                late_s = self.weather.latency_s + self._random.uniform(0, self.weather.jitter_s)
                await pieces.put((self._loop.time() + late_s, chunk))
            await pieces.put((0.0, b""))

        async def give() -> None:
            while True:
                due_s, chunk = await pieces.get()
                await asyncio.sleep(max(0.0, due_s - self._loop.time()))
                await self._while_stalled(way)
                if not chunk:
                    return
                await self._write(way, writer, chunk)

        with suppress(OSError):
            await _first_ended(take(), give(), all_of=True)

    async def _while_stalled(self, way: Way) -> None:
        while self.weather.stalls(way):
            self._changed.clear()
            await self._changed.wait()

    async def _write(self, way: Way, writer: asyncio.StreamWriter, chunk: bytes) -> None:
        step = self.weather.slice_bytes or len(chunk)
        for start in range(0, len(chunk), step):
            await self._while_stalled(way)
            piece = chunk[start : start + step]
            writer.write(piece)
            await writer.drain()
            if self.weather.bytes_per_s:
                await asyncio.sleep(len(piece) / self.weather.bytes_per_s)


async def _first_ended(*ways: Coroutine[Any, Any, None], all_of: bool = False) -> None:
    """Run both; the end of one is the end of both, unless it ended well and `all_of` asks for the other too."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION if all_of else asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with an RST, as a dead machine's kernel or a firewall does."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
