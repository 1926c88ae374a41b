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
    """Posts GitHub-shaped events of `keys` ordering keys until told to stop."""

    def __init__(self, url: str, folder: Path, *, keys: int = 40, pause_s: float = 0.0) -> None:
        self.url, self.keys, self.pause_s = url, keys, pause_s
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
        seq = 0
        while not self.stopping.is_set():
            ring = f"ring-{key}-{seq}"
            self._write(self.sent, {"ring": ring, "key": key, "seq": seq})
            await self._until_acked(session, ring, key, seq)
            seq += 1
            self.count += 1
            if self.pause_s:
                await asyncio.sleep(self.pause_s)

    async def _until_acked(self, session: aiohttp.ClientSession, ring: str, key: int, seq: int) -> None:
        body = json.dumps(
            {
                "action": "opened", "number": key, "ring": ring, "key": key, "seq": seq,
                "pull_request": {"id": key, "node_id": f"PR_{key}", "number": key, "title": f"ring {ring}"},
                "repository": {"id": 1, "full_name": "acme/shop"}, "sender": {"login": "nora"}, "filler": "x" * 500,
            }
        ).encode()  # fmt: skip
        headers = {
            "content-type": "application/json",
            "x-github-event": "pull_request",
            "x-github-delivery": ring,
            "x-hub-signature-256": "sha256=" + hmac.new(SOURCE_SECRET.encode(), body, hashlib.sha256).hexdigest(),
        }
        while True:
            try:
                async with session.post(self.url, data=body, headers=headers) as answer:
                    await answer.read()
                    status = answer.status
            except (aiohttp.ClientError, TimeoutError, OSError):
                status = 0
            if status:
                self._write(self.acked, {"ring": ring, "status": status})
            if 200 <= status < 300:
                return
            self.refused[status] = self.refused.get(status, 0) + 1
            await asyncio.sleep(0.05)
