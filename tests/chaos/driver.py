"""The sender: keys in parallel, one request of a key at a time, each retried until acknowledged, and ledgers of its own."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
from collections.abc import Callable
from pathlib import Path

import aiohttp

from tests.chaos.system import SOURCE_SECRET


class Driver:
    """Posts GitHub-shaped events of `keys` ordering keys until told to stop.

    With several URLs a key keeps to one, and goes on to the next where that refuses: what a load balancer does that knows keys.
    With `repeats`, so many senders besides deliver again what was acknowledged before, at random: vendors do that for days.

    Where `backlog` tells how much of what was taken is still to be delivered, the sender slows down by it, and never stops: a
    busy machine then has as much to do as it can, and a run takes no longer than its faults.

    `refused` counts what was no 2xx by status: `NOBODY` where no connection was taken (a balancer goes on to the next and the
    sender never knows), `BROKEN` where one was, and ended without an answer.
    """

    NOBODY, BROKEN = -1, 0

    def __init__(
        self, url: str | list[str], folder: Path, *, keys: int = 40, pause_s: float = 0.0, first_seq: int = 0, repeats: int = 0
    ) -> None:
        self.backlog: Callable[[int], int] = lambda taken: 0
        self.repeats, self.again = repeats, 0
        self.taken: list[tuple[str, int, int]] = []
        self.urls = [url] if isinstance(url, str) else list(url)
        self.keys, self.pause_s = keys, pause_s
        self.first_seq = first_seq
        self.turns = dict.fromkeys(range(keys), 0)
        self.sent = (folder / "sent.jsonl").open("a")
        self.acked = (folder / "acked.jsonl").open("a")
        self.stopping = asyncio.Event()
        self.count = 0
        self.refused: dict[int, int] = {}

    def _write(self, file, line: dict) -> None:
        file.write(json.dumps(line) + "\n")
        file.flush()

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            async with asyncio.TaskGroup() as group:
                for key in range(self.keys):
                    group.create_task(self._key(session, key))
                for number in range(self.repeats):
                    group.create_task(self._repeat(session, random.Random(number)))
        self.sent.close()
        self.acked.close()

    async def _key(self, session: aiohttp.ClientSession, key: int) -> None:
        seq = self.first_seq
        while not self.stopping.is_set():
            ring = f"ring-{key}-{seq}"
            self._write(self.sent, {"ring": ring, "key": key, "seq": seq})
            await self._until_acked(session, ring, key, seq)
            if self.repeats:
                self.taken.append((ring, key, seq))
            seq += 1
            self.count += 1
            if self.pause_s:
                await asyncio.sleep(self.pause_s * (1 + min(self.backlog(self.count) / 50, 10)))

    async def _until_acked(self, session: aiohttp.ClientSession, ring: str, key: int, seq: int) -> None:
        body, headers = signed(ring, key, seq)
        tries = 0
        while True:
            status = await self._answer(session, self.urls[(key + self.turns[key]) % len(self.urls)], body, headers)
            if status > 0:
                self._write(self.acked, {"ring": ring, "status": status})
            if 200 <= status < 300:
                return
            self.refused[status] = self.refused.get(status, 0) + 1
            self.turns[key] += 1
            tries += 1
            await asyncio.sleep(min(0.05 * tries, 0.5))  # who cannot be reached needs the machine to start again

    async def _answer(self, session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]) -> int:
        try:
            async with session.post(url, data=body, headers=headers) as answer:
                await answer.read()
                return answer.status
        except aiohttp.ClientConnectorError:
            return self.NOBODY
        except (aiohttp.ClientError, TimeoutError, OSError):
            return self.BROKEN

    async def _repeat(self, session: aiohttp.ClientSession, chance: random.Random) -> None:
        """Deliver again, up to nineteen times in a row, old ones and new ones; what is refused is not tried again."""
        while not self.stopping.is_set():
            for ring, key, seq in chance.choices(self.taken, k=1) * chance.randint(1, 19) if self.taken else ():
                self.again += await self._answer(session, chance.choice(self.urls), *signed(ring, key, seq)) == 202
                await asyncio.sleep(chance.uniform(0, 0.2))
            await asyncio.sleep(chance.uniform(0.05, 0.5))


def signed(ring: str, key: int, seq: int) -> tuple[bytes, dict[str, str]]:
    """Body and headers of the webhook `ring`, number `seq` of its key."""
    body = json.dumps(
        {
            "action": "opened", "number": key, "ring": ring, "key": key, "seq": seq,
            "pull_request": {"id": key, "node_id": f"PR_{key}", "number": key, "title": f"ring {ring}"},
            "repository": {"id": 1, "full_name": "acme/shop"}, "sender": {"login": "nora"}, "filler": "x" * 500,
        }
    ).encode()  # fmt: skip
    return body, {
        "content-type": "application/json",
        "x-github-event": "pull_request",
        "x-github-delivery": ring,
        "x-hub-signature-256": "sha256=" + hmac.new(SOURCE_SECRET.encode(), body, hashlib.sha256).hexdigest(),
    }
