"""The sender: keys in parallel, one request of a key at a time, each retried until acknowledged, and ledgers of its own."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from pathlib import Path

import aiohttp

from tests.chaos.system import SOURCE_SECRET


class Driver:
    """Posts GitHub-shaped events of `keys` ordering keys until told to stop.

    With several URLs a key keeps to one, and goes on to the next where that refuses: what a load balancer does that knows keys.
    """

    def __init__(self, url: str | list[str], folder: Path, *, keys: int = 40, pause_s: float = 0.0, first_seq: int = 0) -> None:
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
            await asyncio.gather(*(self._key(session, key) for key in range(self.keys)))
        self.sent.close()
        self.acked.close()

    async def _key(self, session: aiohttp.ClientSession, key: int) -> None:
        seq = self.first_seq
        while not self.stopping.is_set():
            ring = f"ring-{key}-{seq}"
            self._write(self.sent, {"ring": ring, "key": key, "seq": seq})
            await self._until_acked(session, ring, key, seq)
            seq += 1
            self.count += 1
            if self.pause_s:
                await asyncio.sleep(self.pause_s)

    async def _until_acked(self, session: aiohttp.ClientSession, ring: str, key: int, seq: int) -> None:
        body, headers = signed(ring, key, seq)
        while True:
            try:
                url = self.urls[(key + self.turns[key]) % len(self.urls)]
                async with session.post(url, data=body, headers=headers) as answer:
                    await answer.read()
                    status = answer.status
            except (aiohttp.ClientError, TimeoutError, OSError):
                status = 0
            if status:
                self._write(self.acked, {"ring": ring, "status": status})
            if 200 <= status < 300:
                return
            self.refused[status] = self.refused.get(status, 0) + 1
            self.turns[key] += 1
            await asyncio.sleep(0.05)


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
