"""The load tool, a process of its own: a closed loop over N connections, or an open loop at a fixed rate.

With --sink PORT --ahead N a closed loop keeps pace with what the sink (`bench/sink.py`) says has arrived: at most N are under way.
Prints one JSON line: requests, statuses, seconds, latencies in ms, its own CPU seconds; with --times FILE the instant
(CLOCK_MONOTONIC, ns) at which each ring was sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import struct
import time
from collections import Counter, deque

import uvloop

from bench.shape import Shape


class Connection(asyncio.Protocol):
    """One keep-alive connection: one request at a time."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.sent_ns = 0
        self.ring = -1
        self.buffer = b""

    def connection_made(self, transport) -> None:
        self.transport = transport

    def post(self, ring: int, sent_ns: int) -> None:
        self.ring, self.sent_ns = ring, sent_ns
        self.transport.write(self.load.shape.request(ring, ring % self.load.keys))

    def data_received(self, chunk: bytes) -> None:
        self.buffer += chunk
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.buffer) < end + 4 + length:
            return
        status = int(self.buffer[9:12])
        self.buffer = b""
        self.load.answered(self, status)

    def connection_lost(self, exc) -> None:
        self.load.lost(self)


class Load:
    def __init__(self, args) -> None:
        self.args = args
        self.keys = args.keys
        self.shape = Shape(path=args.path)
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.times: dict[int, int] = {}
        self.next_ring = args.first_ring
        self.free: deque[Connection] = deque()
        self.waiting: deque[tuple[int, int]] = deque()
        self.arrived = 0  # at the sink
        self.watching: asyncio.Task[None] | None = None
        self.open = 0
        self.done = asyncio.get_running_loop().create_future()
        self.started = 0.0
        self.stopping = False

    def answered(self, connection: Connection, status: int) -> None:
        now = time.monotonic_ns()
        self.statuses[status] += 1
        self.latencies.append((now - connection.sent_ns) / 1e6)
        self.open -= 1
        if self.args.rate:
            if self.waiting:
                self._post(connection, *self.waiting.popleft())
            else:
                self.free.append(connection)
        else:
            self.free.append(connection)
            self._go_on()
        self._maybe_done()

    def _go_on(self) -> None:
        """In the closed loop: whoever is free asks again, as far as the sink keeps pace."""
        while self.free and not self._finished() and self._is_near():
            self._post(self.free.popleft(), self._ring(), time.monotonic_ns())

    def _is_near(self) -> bool:
        return not self.args.ahead or self.next_ring - self.args.first_ring - self.arrived < self.args.ahead

    def _finished(self) -> bool:
        over = time.monotonic() - self.started >= self.args.seconds
        return over or bool(self.args.count and self.next_ring - self.args.first_ring >= self.args.count)

    def _ring(self) -> int:
        self.next_ring += 1
        return self.next_ring - 1

    def _post(self, connection: Connection, ring: int, sent_ns: int) -> None:
        self.open += 1
        if self.args.times:
            self.times[ring] = sent_ns
        connection.post(ring, sent_ns)

    def _maybe_done(self) -> None:
        if self.open == 0 and (self.stopping if self.args.rate else self._finished()) and not self.done.done():
            self.done.set_result(None)

    def lost(self, connection: Connection) -> None:
        if not self.done.done() and not self.stopping:
            self.done.set_exception(ConnectionError("the server closed a connection"))

    async def run(self) -> dict:
        loop = asyncio.get_running_loop()
        connections = []
        for _ in range(self.args.connections):
            _, connection = await loop.create_connection(lambda: Connection(self), self.args.host, self.args.port)
            connections.append(connection)
        cpu = resource.getrusage(resource.RUSAGE_SELF)
        self.started = time.monotonic()
        if self.args.rate:
            self.free.extend(connections)
            await self._open_loop()
            self.stopping = True
            self._maybe_done()
        else:
            self.free.extend(connections)
            self.watching = asyncio.create_task(self._watch_sink()) if self.args.ahead else None
            self._go_on()
        await asyncio.wait_for(self.done, self.args.seconds + 60)
        elapsed = time.monotonic() - self.started
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.stopping = True
        for connection in connections:
            connection.transport.close()
        return self._report(elapsed, used.ru_utime + used.ru_stime - cpu.ru_utime - cpu.ru_stime)

    async def _watch_sink(self) -> None:
        reader, writer = await asyncio.open_connection(self.args.host, self.args.sink)
        before = None
        while not self.done.done():
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            count = int(await reader.readexactly(int(head.rpartition(b":")[2])))
            before = count if before is None else before
            self.arrived = count - before
            self._go_on()
            self._maybe_done()
            await asyncio.sleep(0.005)
        writer.close()

    async def _open_loop(self) -> None:
        """Send at the scheduled instants, whatever the answers do; latency counts from the schedule."""
        gap = 1 / self.args.rate
        total = int(self.args.rate * self.args.seconds)
        for index in range(total):
            due = self.started + index * gap
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            due_ns = int(due * 1e9)
            if self.free:
                self._post(self.free.popleft(), self._ring(), due_ns)
            else:
                self.waiting.append((self._ring(), due_ns))
        while self.waiting:
            await asyncio.sleep(0.01)

    def _report(self, elapsed: float, cpu_s: float) -> dict:
        found = sorted(self.latencies)
        at = lambda q: round(found[min(len(found) - 1, int(q * len(found)))], 3) if found else None
        return {
            "requests": len(found), "statuses": dict(self.statuses), "seconds": round(elapsed, 3),
            "per_s": round(len(found) / elapsed, 1), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1),
            "cpu_s": round(cpu_s, 3), "first_ring": self.args.first_ring, "next_ring": self.next_ring,
        }  # fmt: skip


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/in/github-bench")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--first-ring", type=int, default=0)
    parser.add_argument("--sink", type=int, default=0)
    parser.add_argument("--ahead", type=int, default=0)
    parser.add_argument("--times", default="")
    args = parser.parse_args()
    load = Load(args)
    report = await load.run()
    if args.times:
        with open(args.times, "wb") as file:
            file.writelines(struct.pack("<qq", ring, sent) for ring, sent in load.times.items())
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
