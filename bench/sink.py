"""The agent of the benches, a process of its own: answers 200 to every POST and notes when each ring came.

On SIGTERM it writes (ring, CLOCK_MONOTONIC ns) pairs to --times and prints one JSON line with its count and CPU seconds.
GET /count answers how many came so far.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import signal
import struct
import time

import uvloop

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Agent(asyncio.Protocol):
    """One keep-alive connection of the dispatcher."""

    def __init__(self, arrived: list[tuple[int, int]]) -> None:
        self.arrived = arrived
        self.buffer = b""

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, chunk: bytes) -> None:
        self.buffer = self.buffer + chunk if self.buffer else chunk
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[:end].lower()
            if head.startswith(b"get"):
                body = str(len(self.arrived)).encode()
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                self.buffer = self.buffer[end + 4 :]
                continue
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0])
            total = end + 4 + length
            if len(self.buffer) < total:
                return
            ring = self.buffer.rfind(b'"ring":', end, total)
            self.arrived.append((int(self.buffer[ring + 7 : ring + 17]) - 10**9 if ring > 0 else -1, time.monotonic_ns()))
            self.transport.write(_OK)
            self.buffer = self.buffer[total:]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--times", default="")
    args = parser.parse_args()
    arrived: list[tuple[int, int]] = []
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(lambda: Agent(arrived), "127.0.0.1", args.port)
    print("ready", flush=True)
    await stop.wait()
    server.close()
    used = resource.getrusage(resource.RUSAGE_SELF)
    if args.times:
        with open(args.times, "wb") as file:
            file.writelines(struct.pack("<qq", ring, at) for ring, at in arrived)
    print(
        json.dumps(
            {
                "arrived": len(arrived),
                "distinct": len({r for r, _ in arrived}),
                "cpu_s": round(used.ru_utime + used.ru_stime, 3),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    uvloop.run(main())
