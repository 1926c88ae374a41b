"""Agents that misbehave, each in its own way at the first call of an invocation, and well at the second.

    python -m tests.chaos.bad_agent --port 9001 --tls-port 9002 --ledger bad.jsonl

`POST /{way}`, where the way is a key of `WAYS`.  It speaks bytes, not HTTP of a library: no library answers so badly.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path

Writer = asyncio.StreamWriter
TLS_HELLO = b"\x16"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def later(status: str, value: str | Callable[[], str]) -> Callable[[Writer], Awaitable[None]]:
    async def answer(writer: Writer) -> None:
        said = value() if callable(value) else value
        writer.write(f"HTTP/1.1 {status}\r\nretry-after: {said}\r\ncontent-length: 0\r\n\r\n".encode())

    return answer


async def hangs(_writer: Writer) -> None:
    await asyncio.sleep(3600)


async def drips(writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    for _ in range(1000):
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(1)


async def endless(writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"." * 0x10000 + b"\r\n")
        await writer.drain()


async def resets(writer: Writer) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def resets_after_headers(writer: Writer) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf")
    await writer.drain()
    await asyncio.sleep(0.05)
    await resets(writer)


async def closes(writer: Writer) -> None:
    writer.close()


async def no_http(writer: Writer) -> None:
    writer.write(b"\x00\xff I am no web server\r\n\r\n")


async def well(writer: Writer) -> None:
    writer.write(OK)


WAYS: dict[str, Callable[[Writer], Awaitable[None]]] = {
    "after-two": later("429 Too Many Requests", "2"),
    "after-date": later("503 Service Unavailable", lambda: formatdate(time.time() + 3, usegmt=True)),
    "after-zero": later("429 Too Many Requests", "0"),
    "after-negative": later("429 Too Many Requests", "-3"),
    "after-huge": later("503 Service Unavailable", "1000000000"),
    "after-garbage": later("429 Too Many Requests", "soon"),
    "hangs": hangs,
    "drips": drips,
    "endless": endless,
    "resets": resets,
    "resets-late": resets_after_headers,
    "closes": closes,
    "no-http": no_http,
    "refuses": later("400 Bad Request", "1"),
    "fails": later("500 Internal Server Error", "9"),
}


class BadAgent:
    def __init__(self, ledger: Path) -> None:
        self.ledger = ledger.open("a")
        self.calls: Counter[tuple[str, str]] = Counter()

    async def connected(self, reader: asyncio.StreamReader, writer: Writer) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                first = await reader.readexactly(1)
                if first == TLS_HELLO:
                    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")  # as web servers answer to TLS on a plain port
                    writer.close()
                    return
                head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
                lines = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
                body = json.loads(await reader.readexactly(int(lines["content-length"])))
                way = head.split(" ")[1].strip("/")
                key = (way, lines["webhook-id"])
                self.calls[key] += 1
                self.note(way, body, self.calls[key])
                await (WAYS[way] if self.calls[key] == 1 else well)(writer)
                if writer.is_closing():
                    return
                await writer.drain()

    async def silent(self, _reader: asyncio.StreamReader, _writer: Writer) -> None:
        """A TLS handshake that never ends."""
        await asyncio.sleep(random.uniform(3600, 7200))

    def note(self, way: str, body: dict, call: int) -> None:
        line = {
            "way": way, "call": call, "invocation": body["invocation"]["id"], "attempt": body["invocation"]["attempt"],
            "context": body["context"], "at": time.time(),
        }  # fmt: skip
        self.ledger.write(json.dumps(line) + "\n")
        self.ledger.flush()


async def serve(args: argparse.Namespace) -> None:
    agent = BadAgent(Path(args.ledger))
    await asyncio.start_server(agent.connected, "127.0.0.1", args.port)
    await asyncio.start_server(agent.silent, "127.0.0.1", args.tls_port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tls-port", type=int, required=True)
    parser.add_argument("--ledger", required=True)
    asyncio.run(serve(parser.parse_args()))
