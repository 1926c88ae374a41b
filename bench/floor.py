"""The floor: the durable steps that Nightbell's promises rest on, and nothing more.

A signature over the body, the record durable before the 2xx, the event and the invocation kept in a row before the call, a signed call,
one at a time for each key, a row after it; the same interpreter, the same libraries, the same disk.  No rules, no views, no retry, no lease,
nothing read back after an accident.  What Nightbell costs above the floor is what its features cost; what the floor costs above a bare
handler is what durability costs on this machine.

    python -m bench.floor ingest PORT FOLDER             durable on SQLite, nothing behind it
    python -m bench.floor line PORT FOLDER SINK_URL      the whole line in one process on SQLite
    python -m bench.floor kafka-ingest PORT KAFKA TOPIC
    python -m bench.floor kafka-rest KAFKA TOPIC POSTGRES SINK_URL   what router and dispatcher do, in one process of its own

The Kafka topic is made by `kafka-ingest`, so that starts first.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import queue
import signal
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp
import asyncpg
import orjson
import uvloop
from aiohttp import web
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.shape import SECRET

MOST = 256  # events of one commit
CALLS = 64  # calls at once
LOG = "CREATE TABLE record (position INTEGER PRIMARY KEY, key TEXT, headers BLOB, body BLOB)"
STORE = """
CREATE TABLE event (id TEXT PRIMARY KEY, headers BLOB, body BLOB) WITHOUT ROWID;
CREATE TABLE invocation (id TEXT PRIMARY KEY, event TEXT, key TEXT, state INT, code INT) WITHOUT ROWID;
"""
POSTGRES = """
CREATE TABLE floor_event (id text PRIMARY KEY, headers bytea, body bytea);
CREATE TABLE floor_invocation (id text PRIMARY KEY, event text, key text, state int, code int);
"""
APPEND = "INSERT INTO record (key, headers, body) VALUES (?, ?, ?)"
KEEP = "INSERT OR IGNORE INTO event VALUES (?, ?, ?)"
INVOKE = "INSERT OR IGNORE INTO invocation VALUES (?, ?, ?, 1, 0)"
SETTLE = "UPDATE invocation SET state = 2, code = ? WHERE id = ?"
Rows = list[tuple]
Item = tuple[str, str, bytes]  # an invocation: its id, its key, the body of its call


class File:
    """One SQLite file and its one writing thread: what was handed over is durable when its future is done."""

    def __init__(self, path: Path, schema: str) -> None:
        self._jobs: queue.SimpleQueue[tuple[list[tuple[str, Rows]], asyncio.Future[None]]] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._write, args=(path, schema), daemon=True).start()

    def write(self, *statements: tuple[str, Rows]) -> asyncio.Future[None]:
        done = self._loop.create_future()
        self._jobs.put((list(statements), done))
        return done

    def _write(self, path: Path, schema: str) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(schema)
        while True:
            jobs = [self._jobs.get()]
            while len(jobs) < 2 * MOST and not self._jobs.empty():
                jobs.append(self._jobs.get())
            connection.execute("BEGIN")
            for statements, _ in jobs:
                for sql, rows in statements:
                    connection.executemany(sql, rows)
            connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(_tell, [done for _, done in jobs])


def _tell(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        future.set_result(None)


Arrived = tuple[str, str, bytes, dict, bytes]  # an event: its id, its key, its headers, its document, its body


def proven(request: web.BaseRequest, body: bytes) -> Arrived | None:
    """The event that the request is, or None where its signature is another."""
    mac = "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(mac, request.headers.get("X-Hub-Signature-256", "")):
        return None
    data = orjson.loads(body)
    ident = "evt_" + hashlib.sha256(b"default\0bench\0" + request.headers["X-GitHub-Delivery"].encode()).hexdigest()[:26]
    kind, key = f"github.pull_request.{data['action']}", f"default/bench/{data['pull_request']['node_id']}"
    head = {"id": ident, "type": kind, "time": time.time(), "key": key, "actor": data["sender"]["login"]}
    return ident, key, orjson.dumps(head), data, body


async def serve(port: int, take: Callable[[Arrived], Awaitable[None]]) -> None:
    """Answer 202 to what `take` has made durable; until the end."""

    async def post(request: web.Request) -> web.Response:
        event = proven(request, await request.read())
        if event is None:
            return web.Response(status=401)
        await take(event)
        return web.Response(status=202)

    app = web.Application(client_max_size=2 << 20)
    app.router.add_post("/in/{source}", post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


def invocation_of(event: Arrived) -> Item | None:
    """What a rule and a view would make of the event."""
    ident, key, head, data, _ = event
    if data["action"] != "opened":
        return None
    pull = data["pull_request"]
    context = {"title": pull["title"], "author": pull["user"]["login"], "number": pull["number"], "ring": data["ring"]}
    name = "inv_" + hashlib.sha256(ident.encode() + b"prs").hexdigest()[:26]
    body = {"invocation": {"id": name, "attempt": 1}, "event": orjson.loads(head), "context": context}
    return name, key, orjson.dumps(body)


class Caller:
    """Calls the agent, one at a time for each key; `settle` makes durable how a call ended."""

    def __init__(self, url: str, settle: Callable[[str, int], Awaitable[None]]) -> None:
        self._url, self._settle = url, settle
        self._lanes: dict[str, deque[Item]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._places, self._room = asyncio.Semaphore(CALLS), asyncio.Semaphore(4 * MOST)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def offer(self, items: Sequence[Item]) -> None:
        """Take them on; waits while there is much to do."""
        for item in items:
            await self._room.acquire()
            lane = self._lanes.get(item[1])
            if lane is not None:
                lane.append(item)
                continue
            self._lanes[item[1]] = deque([item])
            task = asyncio.create_task(self._lane(item[1]))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        await self._session.close()

    async def _lane(self, key: str) -> None:
        lane = self._lanes[key]
        while lane:
            name, _, body = lane.popleft()
            async with self._places:
                stamp = str(int(time.time()))
                mac = hmac.new(SECRET.encode(), b"%b.%b.%b" % (name.encode(), stamp.encode(), body), hashlib.sha256)
                headers = {"webhook-id": name, "webhook-timestamp": stamp, "webhook-signature": f"v1,{mac.hexdigest()}"}
                async with self._session.post(self._url, data=body, headers=headers) as answer:
                    await answer.read()
                await self._settle(name, answer.status)
            self._room.release()
        del self._lanes[key]


async def ingest(port: str, folder: str) -> None:
    log = File(Path(folder) / "log.db", LOG)

    async def take(event: Arrived) -> None:
        await log.write((APPEND, [(event[1], event[2], event[4])]))

    await serve(int(port), take)


async def line(port: str, folder: str, url: str) -> None:
    log, store = File(Path(folder) / "log.db", LOG), File(Path(folder) / "store.db", STORE)
    waiting: asyncio.Queue[Arrived] = asyncio.Queue(MOST)  # full, it slows whoever takes more

    async def take(event: Arrived) -> None:
        await log.write((APPEND, [(event[1], event[2], event[4])]))
        await waiting.put(event)

    async def settle(name: str, code: int) -> None:
        await store.write((SETTLE, [(code, name)]))

    async def route() -> None:
        caller = Caller(url, settle)
        while True:
            events = [await waiting.get()]
            while len(events) < MOST and not waiting.empty():
                events.append(waiting.get_nowait())
            named = [(event, item) for event in events if (item := invocation_of(event))]
            await store.write(
                (KEEP, [(e[0], e[2], e[4]) for e in events]),
                (INVOKE, [(i[0], e[0], e[1]) for e, i in named]),
            )
            await caller.offer([item for _, item in named])

    routing = asyncio.create_task(route())
    await serve(int(port), take)
    await routing


async def kafka_ingest(port: str, kafka: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topic, num_partitions=8, replication_factor=1)])
    await admin.close()
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka, acks="all", enable_idempotence=True, max_batch_size=1 << 20, max_request_size=4 << 20
    )
    await producer.start()
    places = asyncio.Semaphore(512)

    async def take(event: Arrived) -> None:
        async with places:
            headers = [("head", event[2])]
            await producer.send_and_wait(topic, event[4], key=event[1].encode(), headers=headers)

    await serve(int(port), take)


async def kafka_rest(kafka: str, topic: str, postgres: str, url: str) -> None:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=kafka,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    pool = await asyncpg.create_pool(postgres, min_size=4, max_size=8)
    await pool.execute(POSTGRES)
    ended: asyncio.Queue[tuple[str, int, asyncio.Future[None]]] = asyncio.Queue()

    async def settle(name: str, code: int) -> None:
        done = asyncio.get_running_loop().create_future()
        ended.put_nowait((name, code, done))
        await done

    async def settling() -> None:
        while True:
            some = [await ended.get()]
            while len(some) < MOST and not ended.empty():
                some.append(ended.get_nowait())
            await pool.execute(
                "UPDATE floor_invocation SET state = 2, code = s.code FROM unnest($1::text[], $2::int[]) AS s (id, code)"
                " WHERE floor_invocation.id = s.id",
                [name for name, *_ in some],
                [code for _, code, _ in some],
            )
            _tell([done for *_, done in some])

    settler = asyncio.create_task(settling())
    caller = Caller(url, settle)
    print("ready", flush=True)
    while not settler.done():
        found = await consumer.getmany(timeout_ms=1000, max_records=MOST)
        events = [_read(record) for records in found.values() for record in records]
        named = [(event, item) for event in events if (item := invocation_of(event))]
        if events:
            await pool.execute(
                "INSERT INTO floor_event SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[]) ON CONFLICT DO NOTHING",
                *([event[at] for event in events] for at in (0, 2, 4)),
            )
            await pool.execute(
                "INSERT INTO floor_invocation SELECT i, e, k, 1, 0 FROM unnest($1::text[], $2::text[], $3::text[]) AS t (i, e, k)"
                " ON CONFLICT DO NOTHING",
                [item[0] for _, item in named],
                [event[0] for event, _ in named],
                [event[1] for event, _ in named],
            )
        await caller.offer([item for _, item in named])


def _read(record: object) -> Arrived:
    head = dict(record.headers)["head"]
    return orjson.loads(head)["id"], record.key.decode(), head, orjson.loads(record.value), record.value


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # nothing to close: it was never kept
    parts = {"ingest": ingest, "line": line, "kafka-ingest": kafka_ingest, "kafka-rest": kafka_rest}
    uvloop.run(parts[sys.argv[1]](*sys.argv[2:]))


if __name__ == "__main__":
    main()
