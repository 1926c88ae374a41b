"""Vendors: each key's webhooks one after another, each sent until it is acknowledged, some of them again, some of them forged."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
from collections.abc import Callable
from typing import Any

import orjson

from tests.simulation.database import SOURCE_SECRET
from tests.simulation.process import Process


class Vendor:
    """Keeps the ledgers of what was sent and what was acknowledged."""

    def __init__(self, chance: random.Random, processes: Callable[[], list[Process]], *, keys: int, events: int) -> None:
        self._chance, self._processes = chance, processes
        self.keys, self.events = keys, events
        self.sent: list[dict[str, Any]] = []
        self.acked: list[dict[str, Any]] = []
        self.forged_taken = 0
        self.is_calm = False

    async def run(self) -> None:
        """Until every webhook of every key is acknowledged."""
        async with asyncio.TaskGroup() as group:
            for key in range(self.keys):
                group.create_task(self._key(key))

    async def _key(self, key: int) -> None:
        for seq in range(self.events):
            if not self.is_calm:
                await asyncio.sleep(self._chance.expovariate(4))
            ring = f"{key}-{seq}"
            self.sent.append({"ring": ring, "key": key, "seq": seq})
            body, headers = signed(ring, key, seq)
            while not 200 <= (status := await self._post(body, headers)) < 300:
                self.acked.append({"ring": ring, "status": status})
                await asyncio.sleep(0.05 + self._chance.random() * 0.2)
            self.acked.append({"ring": ring, "status": status})
            await self._mischief(body, headers)
            if not self.is_calm and self._chance.random() < 0.2:  # long ago, and once more
                await self._post(*signed(f"{key}-{(old := self._chance.randint(0, seq))}", key, old))

    async def _mischief(self, body: bytes, headers: dict[str, str]) -> None:
        if self.is_calm:
            return
        luck = self._chance.random()
        if luck < 0.25:  # a redelivery, or two at once, to whoever is there
            await asyncio.gather(*(self._post(body, headers) for _ in range(self._chance.randint(1, 2))))
        elif luck < 0.3:
            forged = headers | {"x-hub-signature-256": "sha256=" + "0" * 64}
            self.forged_taken += 200 <= await self._post(body.replace(b'"filler"', b'"forged"'), forged) < 300

    async def _post(self, body: bytes, headers: dict[str, str]) -> int:
        ready = [process for process in self._processes() if process.ready]
        if not ready:
            await asyncio.sleep(0.1)
            return 0
        return await self._chance.choice(ready).post(body, headers)


def signed(ring: str, key: int, seq: int) -> tuple[bytes, dict[str, str]]:
    """Body and headers of the webhook `ring`, number `seq` of its key."""
    body = orjson.dumps({
        "action": "opened", "number": key, "ring": ring, "key": key, "seq": seq,
        "pull_request": {"id": key, "node_id": f"PR_{key}", "number": key, "title": f"ring {ring}"},
        "repository": {"id": 1, "full_name": "acme/shop"}, "sender": {"login": "nora"}, "filler": "x" * 64,
    })  # fmt: skip
    return body, {
        "content-type": "application/json",
        "x-github-event": "pull_request",
        "x-github-delivery": ring,
        "x-hub-signature-256": "sha256=" + hmac.new(SOURCE_SECRET.encode(), body, hashlib.sha256).hexdigest(),
    }
