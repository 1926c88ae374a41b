"""Agents in the same loop, calm ones and others, and the ledger that they keep by themselves."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

from schemas.errors import AgentUnreachable
from tests.simulation.database import CAP, Database


@dataclass(frozen=True)
class Said:
    """An answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Agents:
    """Each call is noted as it begins; its end is the answer, or when the caller was cut off."""

    def __init__(
        self,
        chance: random.Random,
        database: Database,
        secrets: dict[str, str],
        now_s: Callable[[], float],
        fault: Callable[[str], None],
    ) -> None:
        self._chance, self._database, self._now_s, self._fault = chance, database, now_s, fault
        self._secrets = {name: b64decode(secret.removeprefix("whsec_")) for name, secret in secrets.items()}
        self.are_well = False
        self.ledger: list[dict[str, Any]] = []
        self.effects: dict[str, int] = {}

    async def called(self, agent: str, headers: dict[str, str], body: bytes, *, by: str, at_once: int) -> Said:
        """Note the call, act, and answer; or not."""
        document = orjson.loads(body)
        line = {
            "agent": agent,
            "by": by,
            "invocation": document["invocation"]["id"],
            "attempt": document["invocation"]["attempt"],
            "subscription": document["invocation"]["subscription"],
            "event": document["event"]["id"],
            "context": document["context"],
            "status": 599,
            "start": self._now_s(),
        }
        self.ledger.append(line)
        self._proven(agent, headers, body, line)
        self._look(agent, line, at_once)
        try:
            said = await self._act(agent, line["invocation"])
            line["status"] = said.status
            return said
        finally:
            line["end"] = self._now_s()

    def _proven(self, agent: str, headers: dict[str, str], body: bytes, line: dict[str, Any]) -> None:
        signed = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body))
        mac = hmac.new(self._secrets[agent], signed, hashlib.sha256).digest()
        if not any(b64decode(each.removeprefix("v1,")) == mac for each in headers["webhook-signature"].split()):
            line["forged"] = True

    def _look(self, agent: str, line: dict[str, Any], at_once: int) -> None:
        """Before every call stands a committed row of its own; and an owner keeps the limit exactly."""
        row = self._database.rows(
            "SELECT a.ended_ms, s.owner FROM attempts a JOIN invocations i ON i.seq = a.invocation_seq "
            "JOIN shards s ON s.id = i.shard WHERE i.id = ? AND a.number = ?",
            line["invocation"],
            line["attempt"],
        )
        if not row:
            self._fault(f"I7 trace: {line['invocation']} was called before its attempt {line['attempt']} was written")
        elif row[0]["owner"].startswith(f"{line['by']}-") and at_once > CAP:
            self._fault(f"I9 limits: {agent} got {at_once} calls at once from its owner")

    async def _act(self, agent: str, invocation: str) -> Said:
        luck = self._chance.random()
        await asyncio.sleep(self._chance.random() * (0.3 if agent == "slow" and not self.are_well else 0.02))
        if agent == "calm" or self.are_well:
            return self._took(invocation)
        if agent == "slow" and luck < 0.25:
            await asyncio.sleep(60)
        if agent == "lying" and luck < 0.4:
            self._took(invocation)  # it acted, and says that it did not, or nothing
            if luck < 0.2:
                raise AgentUnreachable("reset", kind="reset", sent=True)
            return Said(500)
        if agent == "flaky" and luck < 0.1:
            return Said(400)
        if agent == "flaky" and luck < 0.5:
            return Said(self._chance.choice((500, 502, 429, 503)), {"retry-after": self._chance.choice(("0", "1", "-3", "x"))})
        return self._took(invocation)

    def _took(self, invocation: str) -> Said:
        self.effects[invocation] = self.effects.get(invocation, 0) + 1
        return Said()
